"""What a client's request sets going: the next run of a thread, answers to what it waits for, or nothing new.

All of it has happened, or was refused, before the answer begins: a refusal is a problem document, not a broken stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ag_ui.core import BaseEvent
from ag_ui.core.types import Message, RunAgentInput

from orchestrator.core.errors import NotFound, NothingPending, ThreadBusy, TransitionConflict
from orchestrator.core.model import Status
from orchestrator.service import pausing, resuming, states, threads, workflows
from orchestrator.service.context import Caller, Context
from orchestrator.service.pausing import Pause
from orchestrator.service.refusals import noted
from orchestrator.service.resuming import Entry
from orchestrator.service.threads import Thread
from orchestrator.web.agui.answers import in_dialect
from orchestrator.web.agui.endings import MESSAGES, warning
from orchestrator.web.agui.taking import Takes, brings_nothing, graph_input, takes_of
from orchestrator.wire import Decided, SubmitRequest


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a client begins to follow: behind event `after` of a workflow of this thread. `nodes` go on at once."""

    thread: Thread
    workflow_id: str
    after: int
    warnings: Sequence[BaseEvent] = ()
    nodes: Sequence[str] = ()


async def begun(ctx: Context, caller: Caller, graph: str, offer: Mapping[str, Any], body: RunAgentInput) -> Beginning:
    """Begin the thread's next run, unless one is under way. ThreadBusy when that would drop what was sent."""
    takes = takes_of(offer)
    async with noted(ctx, caller, wanted="begin a run", graph=graph, thread_id=body.thread_id):
        thread = await _thread(ctx, caller, graph, takes, body)
        if thread.busy:
            return await _under_way(ctx, caller, thread, takes, body)
        given = await _given(ctx, caller, thread, takes, body)
        try:
            run = await threads.begin(ctx, caller, thread, graph=graph, input=given)
        except ThreadBusy:
            # Another client was first.
            return await _under_way(ctx, caller, await threads.find(ctx, caller, body.thread_id), takes, body)
        return Beginning(thread, run.workflow_id, 0)


async def _thread(ctx: Context, caller: Caller, graph: str, takes: Takes, body: RunAgentInput) -> Thread:
    """The thread, made where it is new and what was sent fits the graph."""
    try:
        return _of_graph(await threads.find(ctx, caller, body.thread_id), graph)
    except NotFound:
        given = graph_input(body, takes, {}, [])
    await workflows.prepared(ctx, caller, SubmitRequest(graph=graph, input=given))
    found = await threads.create(
        ctx, caller, kind="ag-ui", thread_id=body.thread_id, graph=graph, if_exists="do_nothing"
    )
    return _of_graph(found, graph)


def _of_graph(thread: Thread, graph: str) -> Thread:
    """The thread, where it may be run by this protocol with this graph."""
    if thread.kind == "session":
        detail = f"{thread.thread_id!r} is a session; send it messages at /sessions/{thread.thread_id}/messages"
        raise TransitionConflict(detail, thread_id=thread.thread_id)
    if thread.graph not in (None, graph):
        detail = f"the thread belongs to graph {thread.graph!r}; use another thread for {graph!r}"
        raise TransitionConflict(detail, thread_id=thread.thread_id, graph=thread.graph)
    return thread


async def _given(
    ctx: Context, caller: Caller, thread: Thread, takes: Takes, body: RunAgentInput, running: Pause | None = None
) -> dict[str, object]:
    values = (await states.state(ctx, caller, thread)).values
    known = message_ids(values.get(MESSAGES)) | message_ids(running.input.get(MESSAGES) if running else None)
    return graph_input(body, takes, values, known)


def message_ids(messages: object) -> frozenset[str]:
    """The ids of messages as a graph keeps them."""
    listed = cast("list[object]", messages) if isinstance(messages, list) else list[object]()
    found = [cast("Mapping[str, object]", one).get("id") for one in listed if isinstance(one, Mapping)]
    return frozenset(one for one in found if isinstance(one, str))


async def _under_way(ctx: Context, caller: Caller, thread: Thread, takes: Takes, body: RunAgentInput) -> Beginning:
    """What waits is asked again, and never dropped; what runs is followed by whoever sends the same once more."""
    pause = await pausing.of_workflow(ctx, caller, cast("str", thread.workflow_id))
    given = await _given(ctx, caller, thread, takes, body, pause)
    new = not brings_nothing(given, pause.input)
    if pause.status is Status.WAITING:
        detail = "the thread waits for an answer to what it asked; what this request says besides was not taken"
        told = [warning(ThreadBusy(detail, status=pause.status.value))] if new else []
        return Beginning(thread, pause.workflow_id, pause.last_seq, told)
    if new:
        detail = f"the thread's run is {pause.status.value}; send this again when it has ended, or cancel the run"
        raise ThreadBusy(detail, workflow_id=pause.workflow_id, status=pause.status.value)
    return Beginning(thread, pause.workflow_id, 0)


async def resumed(ctx: Context, caller: Caller, graph: str, thread_id: str, entries: Sequence[Entry]) -> Beginning:
    """Take a client's answers. What is refused of them is told in the run; the graph sees nothing of it."""
    async with noted(ctx, caller, wanted="resume a run", graph=graph, thread_id=thread_id):
        thread = _of_graph(await threads.find(ctx, caller, thread_id), graph)
        pause = await _asking(ctx, caller, thread)
    told = [in_dialect(entry, pause.waiting) for entry in entries]
    answered = await pausing.answer_each(ctx, caller, pause.workflow_id, told)
    warnings = [warning(error, entry.interrupt_id) for entry, error in answered.refused]
    return _gone_on(thread, pause, answered.decided, warnings)


async def responded(ctx: Context, caller: Caller, thread_id: str, entry: Entry) -> Beginning:
    """Take the answer to the one thing that a thread waits for; whatever is wrong with it is raised."""
    async with noted(ctx, caller, wanted="respond", thread_id=thread_id):
        thread = await threads.find(ctx, caller, thread_id)
        pause = await _asking(ctx, caller, thread)
    decided = await resuming.resume(ctx, caller, pause.workflow_id, [in_dialect(entry, pause.waiting)])
    return _gone_on(thread, pause, decided, [])


async def _asking(ctx: Context, caller: Caller, thread: Thread) -> Pause:
    caller.need("decide")
    if thread.workflow_id is None:
        detail = "no run of this thread has begun, so nothing waits for an answer"
        raise NothingPending(detail, thread_id=thread.thread_id)
    return await pausing.of_workflow(ctx, caller, thread.workflow_id)


def _gone_on(thread: Thread, pause: Pause, decided: Sequence[Decided], warnings: Sequence[BaseEvent]) -> Beginning:
    running = any(one.status in (Status.READY, Status.RUNNING) for one in decided)
    nodes = list(dict.fromkeys(one.node for one in pause.waiting)) if running else []
    return Beginning(thread, pause.workflow_id, pause.last_seq, warnings, nodes)


def ids_of(messages: Sequence[Message]) -> frozenset[str]:
    """The ids of the messages that a client has."""
    return frozenset(message.id for message in messages)
