"""Threads, states and runs in the shapes that LangGraph's clients read. Values come here without their secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from orchestrator.core.canonical import redact
from orchestrator.core.errors import Unsupported
from orchestrator.service import assistants, conversations
from orchestrator.service.assistants import Assistant
from orchestrator.service.runs import Run
from orchestrator.service.states import ThreadState, Waiting
from orchestrator.service.threads import Thread

Json = dict[str, object]


def assistant(found: Assistant) -> Json:
    """An assistant."""
    at = found.offered_at.isoformat()
    return {
        "assistant_id": found.assistant_id, "graph_id": found.graph, "name": found.graph, "description": None,
        "config": {}, "context": {}, "metadata": {"created_by": "system"}, "version": 1, "created_at": at,
        "updated_at": at,
    }  # fmt: skip


def thread(found: Thread, state: ThreadState) -> Json:
    """A thread with its values and what it waits for."""
    at = found.updated_at.isoformat()
    return {
        "thread_id": found.thread_id, "created_at": found.created_at.isoformat(), "updated_at": at,
        "state_updated_at": at, "metadata": conversations.metadata_of(found), "config": {},
        "status": conversations.told(found), "values": state.values, "interrupts": by_task(state.interrupts),
        "error": None,
    }  # fmt: skip


def interrupt(one: Waiting) -> Json:
    """What waits, as LangGraph shows it; the ids of the approvals beside it."""
    return {"id": one.id, "value": one.value, "approval_ids": list(one.approval_ids)}


def by_task(waiting: Sequence[Waiting]) -> dict[str, list[Json]]:
    """What waits, by the task that asks."""
    found: dict[str, list[Json]] = {}
    for one in waiting:
        found.setdefault(one.task_id, []).append(interrupt(one))
    return found


def checkpoint(thread_id: str, checkpoint_id: str | None) -> Json | None:
    """The name of a stored state; None where there is none."""
    if checkpoint_id is None:
        return None
    return {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": checkpoint_id, "checkpoint_map": None}


def state(found: Thread, at: ThreadState) -> Json:
    """A thread at one of its states."""
    return {
        "values": at.values, "next": list(at.next), "tasks": _tasks(at),
        "checkpoint": checkpoint(found.thread_id, at.checkpoint_id),
        "parent_checkpoint": checkpoint(found.thread_id, at.parent_checkpoint_id),
        "metadata": {**at.metadata, "thread_id": found.thread_id},
        "created_at": at.created_at.isoformat() if at.created_at else None,
        "interrupts": [interrupt(one) for one in at.interrupts],
    }  # fmt: skip


def _tasks(at: ThreadState) -> list[Json]:
    """The tasks of a state; those that wait last, as clients look for what is asked there."""
    asked = by_task(at.interrupts)
    names = {one.task_id: one.node for one in at.interrupts}
    tasks = [(node, node, list[Json]()) for node in at.next if node not in names.values()]
    tasks += [(task_id, names[task_id], ones) for task_id, ones in asked.items()]
    return [
        {"id": task_id, "name": node, "path": ["__pregel_pull", node], "error": None, "interrupts": ones,
         "checkpoint": None, "state": None, "result": None}
        for task_id, node, ones in tasks
    ]  # fmt: skip


def redacted(metadata: Mapping[str, object]) -> Json:
    """What clients have noted, without its secrets."""
    return cast("Json", redact(dict(metadata)))


def run(found: Run) -> Json:
    """A run."""
    return {
        "run_id": found.run_id, "thread_id": found.thread_id, "assistant_id": assistants.id_of(found.graph),
        "created_at": found.created_at.isoformat(), "updated_at": found.updated_at.isoformat(), "status": found.status,
        "metadata": {**redacted(found.metadata), "graph_id": found.graph, "workflow_id": found.workflow_id},
        "kwargs": found.kwargs, "multitask_strategy": "reject",
    }  # fmt: skip


def outcome(found: Run, at: ThreadState) -> Json:
    """What a wait for a run ends with: the thread's values, and what kept it from its end or what it asks."""
    body: Json = dict(at.values)
    if found.status == "interrupted" and at.interrupts:
        body["__interrupt__"] = [interrupt(one) for one in at.interrupts]
    if (failure := found.failure) is not None:
        body["__error__"] = {"error": failure[0], "message": failure[1]}
    return body


def selected(row: Json, names: Sequence[str] | None) -> Json:
    """Only these fields of a row, where a client wants no others."""
    return row if not names else {name: value for name, value in row.items() if name in names}


def checkpoint_id_of(wanted: str | Mapping[str, object] | None) -> str | None:
    """The id that a client's checkpoint, or config with one, names."""
    if wanted is None or isinstance(wanted, str):
        return wanted or None
    inner = wanted.get("configurable")
    body = cast("Mapping[str, object]", inner) if isinstance(inner, dict) else wanted
    found = body.get("checkpoint_id")
    if found is not None and not isinstance(found, str):
        raise Unsupported("`checkpoint_id` is a text")
    if body.get("checkpoint_ns"):
        raise Unsupported("the states of subgraphs are not served; leave `checkpoint_ns` out")
    return found or None
