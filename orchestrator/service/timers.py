"""What happens because time passes: leases are renewed, total time-outs end workflows. Any worker may act."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.model import Status
from orchestrator.service.context import Context
from orchestrator.store import approvals, events, workflows
from orchestrator.store.events import Event

# Claims without progress after which a workflow is suspected of killing its workers (see the claim statement).
SUSPECT_AFTER = 2
_BATCH = 50


async def renew(ctx: Context, held: Sequence[tuple[str, int]], lease_seconds: float) -> set[str]:
    """Renew (workflow, epoch) leases in one statement; returns the ids still held."""
    async with ctx.db.connection() as conn:
        return await workflows.renew(conn, held, lease_seconds, ctx.clock())


async def sweep(ctx: Context) -> int:
    """End workflows whose total time-out has passed, wherever they stand; returns how many."""
    now = ctx.clock()
    async with ctx.db.connection() as probe:
        if not await workflows.any_overdue(probe, now):
            return 0
    async with ctx.db.transaction() as conn:
        rows = await workflows.overdue(conn, _BATCH, now)
        for row in rows:
            workflow_id = row["workflow_id"]
            await approvals.cancel_pending(conn, workflow_id, "keyturn", now)
            await workflows.move(
                conn,
                {
                    "workflow": workflow_id,
                    "status": Status.TIMED_OUT,
                    "reason": "deadline",
                    "finished": True,
                    "now": now,
                },
            )
            await events.append(
                conn, workflow_id, [Event("workflow-timed-out", "keyturn", {"reason": "deadline"})], now
            )
    for row in rows:
        ctx.db.ring(events.CANCEL_CHANNEL, row["workflow_id"])
        ctx.db.ring(events.EVENTS_CHANNEL, row["workflow_id"])
    return len(rows)
