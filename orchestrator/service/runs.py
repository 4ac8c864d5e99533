"""Runs of a thread as the LangGraph API counts them: each input and each resume is one. What runs is the workflow."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from orchestrator.core.errors import NotFound, NothingPending, TransitionConflict
from orchestrator.core.model import ApprovalState, Status
from orchestrator.service import resuming, threads, workflows
from orchestrator.service.context import Caller, Context
from orchestrator.service.threads import Thread
from orchestrator.store import runs
from orchestrator.store import workflows as workflow_rows
from orchestrator.store.db import Params

Told = Literal["pending", "running", "success", "interrupted", "error", "timeout"]
_TOLD: Mapping[Status, Told] = {
    Status.READY: "pending",
    Status.RUNNING: "running",
    Status.WAITING: "interrupted",
    Status.COMPLETED: "success",
    Status.FAILED: "error",
    Status.REJECTED: "error",
    Status.EXPIRED: "error",
    Status.CANCELLED: "interrupted",
    Status.TIMED_OUT: "timeout",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One run: the events of its workflow behind `after_seq`, and up to `until_seq` where another run followed.

    `decided`: the run is an answer that ended the workflow, as whoever sent it wanted.
    """

    run_id: str
    thread_id: str
    workflow_id: str
    graph: str
    workflow_status: Status
    reason: str | None
    error: Mapping[str, object] | None
    after_seq: int
    until_seq: int | None
    created_at: datetime
    updated_at: datetime
    metadata: Mapping[str, object]
    kwargs: Mapping[str, object]
    decided: bool = False

    @property
    def status(self) -> Told:
        """In the words of the LangGraph API. One that another run followed had paused for an answer."""
        return "interrupted" if self.until_seq is not None else _TOLD[self.workflow_status]

    @property
    def failure(self) -> tuple[str, str] | None:
        """Code and sentence of what kept it from its end; None where nothing did."""
        if self.until_seq is not None or self.workflow_status in (Status.READY, Status.RUNNING, Status.WAITING):
            return None
        if self.workflow_status is Status.COMPLETED or self.decided:
            return None
        if self.error is not None:
            return str(self.error.get("code") or "node_error"), str(self.error.get("detail") or "the graph failed")
        status = self.workflow_status.value
        return status, f"the run was {status.replace('_', ' ')}{f': {self.reason}' if self.reason else ''}"


async def start(
    ctx: Context,
    caller: Caller,
    thread: Thread,
    *,
    graph: str,
    content: Mapping[str, object],
    metadata: Mapping[str, object],
    kwargs: Mapping[str, object],
) -> Run:
    """The thread's next run, on an input. ThreadBusy while the thread is busy or waits, and says for what."""
    begun = await threads.begin(ctx, caller, thread, graph=graph, input=content)
    return await _kept(ctx, caller, thread, _New(begun.workflow_id, 0, metadata, kwargs))


async def resume(
    ctx: Context,
    caller: Caller,
    thread: Thread,
    value: object,
    *,
    metadata: Mapping[str, object],
    kwargs: Mapping[str, object],
) -> Run:
    """The run that answers what the thread waits for. MoreApprovalsNeeded where the votes do not suffice yet."""
    if thread.workflow_id is None:
        detail = "the thread has not run yet and waits for no answer"
        raise NothingPending(detail, thread_id=thread.thread_id)
    async with ctx.db.connection() as conn:
        row = await workflow_rows.get(conn, caller.namespace, thread.workflow_id)
    decided = await resuming.resume(ctx, caller, thread.workflow_id, resuming.entries_of(value))
    short = await resuming.short_of(ctx, caller, decided)
    if short is not None:
        raise short
    after = row["last_seq"] if row else 0
    run = await _kept(ctx, caller, thread, _New(thread.workflow_id, after, metadata, kwargs))
    ended = any(one.state in (ApprovalState.REJECTED, ApprovalState.WITHDRAWN) for one in decided)
    return replace(run, decided=ended)


@dataclass(frozen=True, slots=True)
class _New:
    workflow_id: str
    after_seq: int
    metadata: Mapping[str, object]
    kwargs: Mapping[str, object]


async def _kept(ctx: Context, caller: Caller, thread: Thread, new: _New) -> Run:
    run_id = str(uuid.uuid4())
    row: Params = {
        "run_id": run_id, "namespace": caller.namespace, "thread_key": thread.thread_key,
        "workflow_id": new.workflow_id, "after_seq": new.after_seq, "metadata": dict(new.metadata),
        "kwargs": dict(new.kwargs), "now": ctx.clock(),
    }  # fmt: skip
    async with ctx.db.transaction() as conn:
        await runs.insert(conn, row)
        (found,) = await runs.of_thread(conn, caller.namespace, thread.thread_key, run_id)
    return _run(thread, found)


async def find(ctx: Context, caller: Caller, thread: Thread, run_id: str) -> Run:
    """A run of the thread. NotFound."""
    async with ctx.db.connection() as conn:
        found = await runs.of_thread(conn, caller.namespace, thread.thread_key, run_id)
    if not found:
        raise NotFound(f"the thread has no run {run_id!r}", run_id=run_id, thread_id=thread.thread_id)
    return _run(thread, found[0])


async def of_thread(ctx: Context, caller: Caller, thread: Thread) -> list[Run]:
    """The runs of the thread, newest first."""
    caller.need("read")
    async with ctx.db.connection() as conn:
        rows = await runs.of_thread(conn, caller.namespace, thread.thread_key)
    return [_run(thread, row) for row in rows]


async def cancel(ctx: Context, caller: Caller, run: Run) -> None:
    """End the workflow of the thread's newest run. TransitionConflict for a run that is over."""
    if run.until_seq is not None:
        detail = "the run is over, and another one followed it; cancel that one"
        raise TransitionConflict(detail, status=run.status)
    await workflows.cancel(ctx, caller, run.workflow_id, "cancelled by a LangGraph client")


def as_known(run: Run, before: Run) -> Run:
    """A run as it is now, for somebody who has known it before."""
    return replace(run, decided=before.decided)


def _run(thread: Thread, row: Params) -> Run:
    return Run(
        row["run_id"], thread.thread_id, row["workflow_id"], row["graph"], Status(row["status"]), row["reason"],
        row["error"], row["after_seq"], row["until_seq"], row["created_at"], row["updated_at"], row["metadata"],
        row["kwargs"],
    )  # fmt: skip
