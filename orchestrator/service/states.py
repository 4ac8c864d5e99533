"""The state of a thread as clients of LangGraph's own interfaces see it, read from its stored checkpoints.

Secrets are masked here, as everywhere that something is shown (rule 25). Reads only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, cast

from orchestrator.core.canonical import redact
from orchestrator.core.errors import NotFound, Unsupported
from orchestrator.core.model import Status
from orchestrator.engine.reading import Snapshot, snapshot
from orchestrator.service import interrupts
from orchestrator.service.context import Caller, Context
from orchestrator.service.interrupts import Asked
from orchestrator.service.settling import settle
from orchestrator.store import approvals, checkpoints, seen, thread_pages
from orchestrator.store.checkpoints import Newest
from orchestrator.store.db import Params

if TYPE_CHECKING:
    from orchestrator.service.threads import Thread

_LARGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Waiting:
    """One interrupt that waits: its name, what it asks (as edited since, without its secrets), the task and node that
    ask, and the approvals it made.
    """

    id: str
    value: object
    task_id: str
    node: str
    approval_ids: Sequence[str]

    def to_json(self) -> dict[str, object]:
        """`{id, value, approval_ids}`."""
        return {"id": self.id, "value": self.value, "approval_ids": list(self.approval_ids)}


@dataclass(frozen=True, slots=True)
class ThreadState:
    """A thread at one stored checkpoint; of a thread that has none, only what is empty."""

    values: Mapping[str, object] = field(default_factory=dict[str, object])
    next: Sequence[str] = ()
    interrupts: Sequence[Waiting] = ()
    checkpoint_id: str | None = None
    parent_checkpoint_id: str | None = None
    created_at: datetime | None = None
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])


async def state(
    ctx: Context, caller: Caller, thread: Thread, checkpoint_id: str | None = None, *, note: bool = True
) -> ThreadState:
    """A thread's newest state, or the one at a checkpoint of it. NotFound for a checkpoint that it has not.

    `note`: what it asks will be shown to the caller.
    """
    caller.need("read")
    asked = await waiting(ctx, caller, thread)
    async with ctx.db.connection() as conn:
        found = await checkpoints.of_thread(conn, thread.thread_key, exactly=checkpoint_id)
        newest_of = found if checkpoint_id is None else await checkpoints.of_thread(conn, thread.thread_key)
    if not found:
        if checkpoint_id is not None:
            raise NotFound(f"the thread has no checkpoint {checkpoint_id!r}", checkpoint_id=checkpoint_id)
        await shown(ctx, caller, asked if note else ())
        return _told(thread, None, asked)
    is_head = found[0].head.checkpoint_id == newest_of[0].head.checkpoint_id
    await shown(ctx, caller, asked if note and is_head else ())
    return _state(thread, snapshot(found[0]), asked if is_head else None)


async def history(
    ctx: Context, caller: Caller, thread: Thread, limit: int = 10, before: str | None = None
) -> list[ThreadState]:
    """A thread's stored states, newest first."""
    caller.need("read")
    asked = await waiting(ctx, caller, thread)
    size = max(1, min(limit, _LARGEST_PAGE))
    async with ctx.db.connection() as conn:
        found = await checkpoints.of_thread(conn, thread.thread_key, before=before, limit=size)
    await shown(ctx, caller, asked if found and before is None else ())
    return [
        _state(thread, snapshot(one), asked if before is None and nth == 0 else None) for nth, one in enumerate(found)
    ]


async def newest(ctx: Context, caller: Caller, found: Sequence[Thread], *, note: bool = True) -> list[ThreadState]:
    """The newest states of many threads, in their order. `note`: what they ask will be shown to the caller."""
    caller.need("read")
    asking = [one.workflow_id for one in found if one.workflow_id is not None and one.status is Status.WAITING]
    async with ctx.db.connection() as conn:
        rows = await thread_pages.asked(conn, caller.namespace, asking)
        stored = await checkpoints.newest(conn, [(one.thread_key, "") for one in found])
    groups: dict[str, list[Asked]] = {}
    for one in interrupts.grouped(rows):
        if one.pending:
            groups.setdefault(one.rows[0]["workflow_id"], []).append(one)
    await shown(ctx, caller, [one for asked in groups.values() for one in asked] if note else ())
    return [
        _told(thread, head, groups.get(thread.workflow_id or "", ()))
        for thread, head in zip(found, stored, strict=True)
    ]


async def shown(ctx: Context, caller: Caller, asked: Sequence[Asked]) -> None:
    """Keep that the caller is shown this, if they can decide at all: an answer without a name will be for it."""
    if asked and "decide" in caller.permissions:
        async with ctx.db.connection() as conn:
            await seen.note(conn, caller.person, [row["approval_id"] for one in asked for row in one.rows])


async def head(ctx: Context, thread: Thread) -> str | None:
    """The name of a thread's newest state; None where it has none."""
    async with ctx.db.connection() as conn:
        found = await checkpoints.of_thread(conn, thread.thread_key)
    return found[0].head.checkpoint_id if found else None


async def check_head(ctx: Context, thread: Thread, known: str | None) -> None:
    """Refuse what is said of another state than the newest: clients say which one they have seen. Unsupported."""
    if known is None:
        return
    newest = await head(ctx, thread)
    if known != newest:
        detail = (
            f"a run goes on from the thread's newest state ({newest}), and no fork is made of an earlier one; read the"
            " thread again, or leave `checkpoint` out"
        )
        raise Unsupported(detail, field="checkpoint", newest=newest)


def _told(thread: Thread, head: Newest | None, asked: Sequence[Asked]) -> ThreadState:
    if head is None:
        return ThreadState(interrupts=[_waiting(one, None) for one in asked])
    return _state(thread, snapshot(head), asked)


async def waiting(ctx: Context, caller: Caller, thread: Thread) -> list[Asked]:
    """What the newest run of a thread waits for, after what time has done meanwhile."""
    if thread.workflow_id is None:
        return []
    rows = await _rows(ctx, caller, thread.workflow_id)
    if any(row["behind"] for row in rows):
        await settle(ctx, caller.namespace, thread.workflow_id)
        rows = await _rows(ctx, caller, thread.workflow_id)
    return [one for one in interrupts.grouped(rows) if one.pending]


async def _rows(ctx: Context, caller: Caller, workflow_id: str) -> list[Params]:
    async with ctx.db.connection() as conn:
        return await approvals.of_workflow(conn, caller.namespace, workflow_id, ctx.clock())


def _state(thread: Thread, found: Snapshot, asked: Sequence[Asked] | None) -> ThreadState:
    """`asked` is what waits at the newest checkpoint; None for an earlier one, at which nothing does any more."""
    # What ended otherwise than by a fault, which can be retried, runs nothing more; nor does what was only copied.
    over = thread.status is None or (thread.status.finished and thread.status is not Status.FAILED)
    return ThreadState(
        cast("Mapping[str, object]", redact(dict(found.values))),
        [] if asked is not None and over else list(found.next_nodes),
        [_waiting(one, found) for one in asked or ()],
        found.checkpoint_id,
        found.parent_id,
        found.created_at,
        found.metadata,
    )


def _waiting(one: Asked, found: Snapshot | None) -> Waiting:
    row = one.rows[0]
    tasks = found.tasks if found else ()
    task = next((task.task_id for task in tasks if row["interrupt_id"] in task.interrupts), str(row["interrupt_id"]))
    return Waiting(one.id, interrupts.shown(one), task, row["node"], [each["approval_id"] for each in one.rows])
