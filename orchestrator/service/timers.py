"""What happens because time passes: leases are renewed, time-outs and expiries end workflows. Any worker may act."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.model import Status
from orchestrator.service.context import Context
from orchestrator.store import approvals, events, workflows
from orchestrator.store.db import Connection
from orchestrator.store.events import Event

_BATCH = 50


async def renew(ctx: Context, held: Sequence[tuple[str, int]], lease_seconds: float) -> set[str]:
    """Renew (workflow, epoch) leases in one statement; returns the ids still held."""
    async with ctx.db.connection() as conn:
        return await workflows.renew(conn, held, lease_seconds, ctx.clock())


async def sweep(ctx: Context) -> int:
    """End what has run out of time, wherever it stands; returns how many workflows ended."""
    now = ctx.clock()
    async with ctx.db.connection() as conn:
        overdue = await workflows.any_overdue(conn, now)
        expired = await approvals.expired(conn, _BATCH, now)
    ended: list[str] = await _time_out(ctx) if overdue else []
    for row in expired:
        ended += await _expire(ctx, row["namespace"], row["workflow_id"])
    for workflow_id in ended:
        ctx.db.ring(events.CANCEL_CHANNEL, workflow_id)
        ctx.db.ring(events.EVENTS_CHANNEL, workflow_id, patient=True)
    return len(ended)


async def _time_out(ctx: Context) -> list[str]:
    async with ctx.db.transaction() as conn:
        rows = await workflows.overdue(conn, _BATCH, ctx.clock())
        for row in rows:
            await approvals.cancel_pending(conn, row["workflow_id"], "keyturn", ctx.clock())
            await _end(ctx, conn, row["workflow_id"], Status.TIMED_OUT, "deadline", [])
        return [row["workflow_id"] for row in rows]


async def _expire(ctx: Context, namespace: str, workflow_id: str) -> list[str]:
    """A request nobody answered in time ends its workflow; the instant itself is too late (rule 11)."""
    async with ctx.db.transaction() as conn:
        row = await workflows.lock(conn, namespace, workflow_id, ctx.clock())
        gone = await approvals.expire(conn, workflow_id, ctx.clock())
        if row is None or not gone:
            return []
        await approvals.cancel_pending(conn, workflow_id, "keyturn", ctx.clock())
        resolved = [Event("confirmation-resolved", "keyturn", {"request_id": one, "state": "expired"}) for one in gone]
        await _end(ctx, conn, workflow_id, Status.EXPIRED, "approval_expired", resolved)
        return [workflow_id]


async def _end(
    ctx: Context, conn: Connection, workflow_id: str, status: Status, reason: str, noted: Sequence[Event]
) -> None:
    row = {"workflow": workflow_id, "status": status, "reason": reason, "finished": True, "now": ctx.clock()}
    await workflows.move(conn, row)
    over = Event("workflow-timed-out", "keyturn", {"reason": reason})
    await events.append(conn, workflow_id, [*noted, over], ctx.clock())
