"""How a run ends in AG-UI's words: the state and the messages as they are, what is asked, and the outcome. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, cast

from ag_ui.core import (
    BaseEvent,
    CustomEvent,
    MessagesSnapshotEvent,
    RunErrorEvent,
    RunFinishedCancelledOutcome,
    RunFinishedEvent,
    RunFinishedInterruptOutcome,
    RunFinishedSuccessOutcome,
    StateSnapshotEvent,
)
from ag_ui.core.types import Interrupt, Message

from orchestrator.core.errors import KeyturnError
from orchestrator.core.model import ApprovalState, Kind, Status
from orchestrator.service.pausing import Interrupted, Pause
from orchestrator.web.agui.interrupts import interrupt_of, prompt_of
from orchestrator.web.agui.translating import Translator

# A message of ours with a question's words; the graph does not know it.
QUESTION_ID: Final = "question-"
MESSAGES: Final = "messages"
_FAULTS: Final = (Status.FAILED, Status.TIMED_OUT)


def snapshots(values: Mapping[str, object], messages: Sequence[Message] | None) -> list[BaseEvent]:
    """The thread's state and its conversation; `messages` is None where the graph keeps none."""
    told: list[BaseEvent] = []
    if values:
        told.append(StateSnapshotEvent(snapshot={key: value for key, value in values.items() if key != MESSAGES}))
    if messages is not None:
        told.append(MessagesSnapshotEvent(messages=list(messages)))
    return told


def warning(error: KeyturnError, interrupt_id: str | None = None) -> BaseEvent:
    """Why an answer was not taken. The facts of a refusal name who was first, or what is allowed."""
    facts = {key: value for key, value in error.facts.items() if key not in {"cause", "applied"}}
    named = {"interruptId": interrupt_id} if interrupt_id is not None else {}
    return CustomEvent(name="warning", value={**facts, **named, "code": error.code, "detail": error.detail})


def ending(run: Translator, pause: Pause, known: frozenset[str], *, legacy: bool) -> list[BaseEvent]:
    """The last events of a run whose workflow is at `pause`; `known` are the messages that the client has."""
    if pause.status is Status.WAITING:
        return _asking(run, pause, known, legacy=legacy)
    if pause.status in _FAULTS:
        code = str(pause.error.get("code") or pause.reason or pause.status.value)
        detail = str(pause.error.get("detail") or f"the workflow ended as {pause.status.value}: {pause.reason}")
        return [RunErrorEvent(message=detail, code=code)]
    finished = RunFinishedEvent(thread_id=run.thread_id, run_id=run.run_id)
    if pause.status is Status.COMPLETED:
        finished.result = _result(pause.result)
        finished.outcome = None if legacy else RunFinishedSuccessOutcome()
        return [finished]
    told = {"workflowId": pause.workflow_id, "status": pause.status.value, "reason": pause.reason, "by": pause.ended_by}
    finished.outcome = None if legacy else RunFinishedCancelledOutcome()
    return [CustomEvent(name="workflow_ended", value=told), finished]


def _result(result: object) -> object:
    """The graph's result without the conversation, which the client has."""
    if not isinstance(result, Mapping):
        return result
    return {key: value for key, value in cast("Mapping[str, object]", result).items() if key != MESSAGES}


def _asking(run: Translator, pause: Pause, known: frozenset[str], *, legacy: bool) -> list[BaseEvent]:
    told: list[BaseEvent] = []
    for request in (one for asked in pause.waiting for one in asked.requests):
        message_id = f"{QUESTION_ID}{request.approval_id}"
        if request.kind == Kind.QUESTION and request.state == ApprovalState.PENDING and message_id not in known:
            told += run.message(message_id, prompt_of(request))
    told.append(CustomEvent(name="HITL_REQUIRED", value={"threadId": run.thread_id}))
    found = [interrupt_of(asked) for asked in pause.waiting]
    for asked, interrupt in zip(pause.waiting, found, strict=True):
        told.append(_on_interrupt(asked, interrupt))
    finished = RunFinishedEvent(thread_id=run.thread_id, run_id=run.run_id)
    finished.outcome = None if legacy else RunFinishedInterruptOutcome(interrupts=found)
    return [*told, finished]


def _on_interrupt(asked: Interrupted, interrupt: Interrupt) -> BaseEvent:
    """What clients from before 1.0 listen for: the payload, as text; its name is beside it."""
    value = asked.payload if isinstance(asked.payload, str) else json.dumps(asked.payload, ensure_ascii=False)
    return CustomEvent(
        name="on_interrupt", value=value, metadata={"interruptId": asked.id, "message": interrupt.message}
    )
