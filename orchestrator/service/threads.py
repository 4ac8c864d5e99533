"""Threads from outside: make one, find one, begin its next run. What a run asks and how it ends is the workflow's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, cast

from pydantic import ValidationError

from orchestrator.core.errors import (
    InvalidInput,
    NotFound,
    NotOwner,
    SessionEnded,
    ThreadBusy,
    ThreadEnded,
    ThreadExists,
    TransitionConflict,
)
from orchestrator.core.model import Status
from orchestrator.core.plain import plain_json
from orchestrator.core.sessions import IDLE, Standing
from orchestrator.service import idempotency, workflows
from orchestrator.service.context import Caller, Context
from orchestrator.store import checkpoints, threads
from orchestrator.store import workflows as rows
from orchestrator.store.db import Connection, Params
from orchestrator.store.events import EVENTS_CHANNEL, READY_CHANNEL
from orchestrator.store.workflows import NewWorkflow
from orchestrator.wire import SubmitRequest, Submitted

Mode = Literal["interactive", "autonomous"]
_LONGEST_ID = 255


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread and its newest run. `kind` is `workflow` where a workflow is a thread of its own.

    `thread_key` is what LangGraph's tables know it by, and is not shown.
    """

    thread_key: str
    thread_id: str
    kind: str
    graph: str | None
    person: str
    mode: Mode
    title: str
    case_id: str | None
    metadata: Mapping[str, object]
    idle_seconds: float | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    ended_reason: str | None
    workflow_id: str | None
    status: Status | None

    @property
    def busy(self) -> bool:
        """Whether its newest run is under way or waits for a person."""
        return self.status is not None and not self.status.finished


def thread_of(row: Params) -> Thread:
    """A thread from its row with its newest run."""
    status = row["status"]
    named = {name: row[name] for name in Thread.__dataclass_fields__ if name != "status"}
    return Thread(**named, status=None if status is None else Status(status))


async def create(
    ctx: Context,
    caller: Caller,
    *,
    kind: Literal["thread", "ag-ui", "session"],
    thread_id: str | None = None,
    graph: str | None = None,
    metadata: Mapping[str, object] | None = None,
    mode: Mode = "interactive",
    title: str = "",
    case_id: str | None = None,
    if_exists: Literal["raise", "do_nothing"] = "raise",
) -> Thread:
    """A new thread, under an id of the caller's or of ours. ThreadExists unless that may be (`do_nothing`)."""
    caller.need("submit")
    wanted = workflows.new_id("th") if thread_id is None else _checked_id(thread_id)
    try:
        plain_json(metadata or {}, "metadata")
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    row: Params = {
        "thread_key": workflows.new_id("tk"), "namespace": caller.namespace, "thread_id": wanted, "kind": kind,
        "graph": graph, "person": caller.person, "mode": mode, "title": title, "case_id": case_id,
        "metadata": dict(metadata or {}), "idle_seconds": None, "now": ctx.clock(),
    }  # fmt: skip
    async with ctx.db.transaction() as conn:
        # A workflow's id is its thread's: one made under it would be taken for the workflow.
        found = await threads.find(conn, caller.namespace, wanted) if thread_id is not None else None
        made = found is None and await threads.insert(conn, row)
        found = found or await threads.find(conn, caller.namespace, wanted)
    if not made and if_exists == "raise":
        detail = f"there is a thread {wanted!r} already; choose another id, or leave it out"
        raise ThreadExists(detail, thread_id=wanted)
    assert found is not None  # noqa: S101 it was inserted, or there before
    return thread_of(found)


def _checked_id(thread_id: str) -> str:
    if not thread_id.strip() or len(thread_id) > _LONGEST_ID or not thread_id.isprintable():
        detail = f"a thread's id has 1 to {_LONGEST_ID} printable characters"
        raise InvalidInput(detail)
    return thread_id


async def find(ctx: Context, caller: Caller, thread_id: str) -> Thread:
    """The thread, or the workflow of this id as one. NotFound."""
    caller.need("read")
    async with ctx.db.connection() as conn:
        row = await threads.find(conn, caller.namespace, thread_id)
    if row is None:
        raise no_thread(thread_id)
    return thread_of(row)


def no_thread(thread_id: str) -> NotFound:
    """The refusal for a thread that is not in the caller's namespace."""
    return NotFound(f"there is no thread {thread_id!r}", thread_id=thread_id)


async def begin(
    ctx: Context,
    caller: Caller,
    thread: Thread,
    *,
    graph: str,
    input: Mapping[str, object],  # noqa: A002 the field's name
    on_behalf_of: str | None = None,
    title: str = "",
    deadline: float | None = None,
    idempotency_key: str | None = None,
) -> Submitted:
    """The thread's next run, durable when this returns: `input` comes on top of what the earlier ones left.

    ThreadBusy while one is under way or waits for a person, ThreadEnded, TransitionConflict when the thread is another
    graph's; else as `workflows.submit`.
    """
    request = _request(
        graph=graph, input=dict(input), on_behalf_of=on_behalf_of, title=title or thread.title, deadline=deadline,
        case_id=thread.case_id, mode=thread.mode,
    )  # fmt: skip
    new = await workflows.prepared(ctx, caller, request)
    keyed = idempotency.keyed(ctx, caller, idempotency_key, f"run {thread.thread_id}", request)
    workflow_id = cast("str", new.row["workflow_id"])
    async with ctx.db.transaction() as conn:
        if keyed is not None and (earlier := await keyed.keep(conn, workflow_id)) is not None:
            return await workflows.replayed(conn, caller, earlier)
        if thread.kind == "workflow":
            await threads.adopt(conn, caller.namespace, thread.thread_key)
        await insert_run(conn, caller, thread.thread_key, new, ctx.clock())
    ctx.db.ring(READY_CHANNEL, caller.namespace)
    ctx.db.ring(EVENTS_CHANNEL, workflow_id, patient=True)
    return Submitted(workflow_id=workflow_id, status=Status.READY.value)


def _request(**content: object) -> SubmitRequest:
    try:
        return SubmitRequest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        detail = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise InvalidInput(detail) from error


async def insert_run(conn: Connection, caller: Caller, thread_key: str, new: NewWorkflow, now: datetime | None) -> None:
    """Begin the next run of a thread in the caller's transaction; refuses as `begin` does."""
    row = await threads.lock(conn, caller.namespace, thread_key)
    if row is None:
        raise no_thread(thread_key)
    last = await threads.newest_run(conn, thread_key)
    if row["kind"] == "session":
        _check_session(row, last, caller, await rows.present(conn, now))
    if row["ended_at"] is not None:
        detail = f"thread {row['thread_id']!r} has ended; begin a new one"
        raise ThreadEnded(detail, thread_id=row["thread_id"], reason=row["ended_reason"])
    if last is not None and not Status(last["status"]).finished:
        detail = f"the thread's run is {last['status']}; decide what it asks, wait for its end, or cancel it"
        raise ThreadBusy(detail, workflow_id=last["workflow_id"], status=last["status"])
    graph = cast("str", new.row["graph"])
    if (owner := last["graph"] if last else row["graph"]) not in (None, graph):
        detail = f"the thread belongs to graph {owner!r}; use another thread for {graph!r}"
        raise TransitionConflict(detail, graph=owner)
    # One that was copied has state without a run.
    continues = last is not None or await checkpoints.any_of(conn, thread_key)
    run = {**new.row, "thread_key": thread_key, "continues": continues}
    await rows.insert(conn, [replace(new, row=run)])
    await threads.moved(conn, thread_key, graph, now)


def _check_session(row: Params, last: Params | None, caller: Caller, now: datetime) -> None:
    """A session is one person's, so that whoever asks for what it does is always among those who may not approve it;
    and one that has been idle for long enough is over, whether or not that was written down.
    """
    if caller.person != row["person"]:
        detail = f"only {row['person']}, whose session this is, begins anything in it; begin one of your own"
        raise NotOwner(detail, owner=row["person"])
    touched = max(row["updated_at"], last["updated_at"]) if last else row["updated_at"]
    standing = Standing(touched, row["idle_seconds"], Status(last["status"]) if last else None, row["ended_at"])
    if standing.over(now):
        raise session_over(row["thread_id"], standing.ended_at or standing.ends_at, row["ended_reason"] or IDLE)


def session_over(session_id: str, at: datetime | None, reason: str, **facts: object) -> SessionEnded:
    """The refusal for a session that has ended."""
    why = "it was idle for too long" if reason == IDLE else f"it was {reason}"
    when = at.isoformat() if at else None
    detail = f"the session ended at {when}: {why}. Begin a new one with POST /sessions"
    if facts.get("approvals"):
        detail += "; what it asked still waits and is answered at POST /approvals/{approval_id}/answer"
    return SessionEnded(detail, session_id=session_id, ended_at=when, reason=reason, **facts)
