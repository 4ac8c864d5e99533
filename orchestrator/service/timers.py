"""What happens because time passes: leases are renewed, and whatever is due is done. Any worker may act."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from orchestrator.core.errors import Unavailable
from orchestrator.core.model import Status
from orchestrator.core.votes import CLOCK
from orchestrator.service import sessions
from orchestrator.service.context import Context
from orchestrator.service.settling import settle
from orchestrator.store import approvals, events, workflows
from orchestrator.store.db import Params
from orchestrator.store.endings import unasked
from orchestrator.store.events import Event

log = logging.getLogger("keyturn.timers")
_BATCH = 100
# As many connections as the sweep takes of a pool at once.
_AT_ONCE = 4
# So many seconds one sweep spends on what was published: nothing else of it may wait longer.
_JUDGING = 5.0


async def renew(ctx: Context, held: Sequence[tuple[str, int]], lease_seconds: float) -> set[str]:
    """Renew (workflow, epoch) leases in one statement; returns the ids still held."""
    async with ctx.db.connection() as conn:
        return await workflows.renew(conn, held, lease_seconds, ctx.clock())


async def sweep(ctx: Context) -> int:
    """Do what time asks for, wherever it is due; returns for how many workflows."""
    done = 0
    async with ctx.db.connection() as conn:
        overdue = await workflows.any_overdue(conn, ctx.clock())
        reviews = await approvals.reviews_due(conn, _BATCH, ctx.clock())
    for workflow_id in await _time_out(ctx) if overdue else []:
        ctx.db.ring(events.CANCEL_CHANNEL, workflow_id)
        ctx.db.ring(events.EVENTS_CHANNEL, workflow_id, patient=True)
        done += 1
    for row in reviews:
        try:
            await _review_due(ctx, row)
        except Unavailable:
            raise
        except Exception:
            # Nor must other reviews, and whatever else is due.
            log.exception("approval %s: its review is due, and nobody could be told", row["approval_id"])
    return done + await sessions.end_idle(ctx) + await _settle_due(ctx)


async def _settle_due(ctx: Context) -> int:
    """Batch after batch, until nothing is due but what was looked at in vain: others may be at the same workflows, and
    what cannot be done must not stand before what can. What was published comes behind what time asks for.
    """
    ends = time.monotonic() + _JUDGING
    done, in_vain = 0, set[str]()
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(namespace: str, workflow_id: str) -> bool:
        async with room:
            changed = await _settle(ctx, namespace, workflow_id)
        if not changed:
            in_vain.add(workflow_id)
        return changed

    while True:
        async with ctx.db.connection() as conn:
            due = await approvals.due(conn, sorted(in_vain), _BATCH, ctx.clock())
            more = len(due) < _BATCH and time.monotonic() < ends
            behind = await approvals.behind(conn, sorted(in_vain), _BATCH) if more else []
        wanted = dict.fromkeys((row["namespace"], row["workflow_id"]) for row in (*due, *behind))
        done += sum(await asyncio.gather(*(one(*found) for found in wanted)))
        if len(due) < _BATCH and len(behind) < _BATCH:
            return done


async def _settle(ctx: Context, namespace: str, workflow_id: str) -> bool:
    try:
        return await settle(ctx, namespace, workflow_id)
    except Unavailable:
        raise
    except Exception:
        # Other workflows' deadlines must not wait for it.
        log.exception("workflow %s: what is due of it could not be done", workflow_id)
        return False


async def _review_due(ctx: Context, row: Params) -> None:
    """Somebody broke the glass and nobody has reviewed it in time: said once, and held against them (rule 17)."""
    async with ctx.db.transaction() as conn:
        if await workflows.lock(conn, row["namespace"], row["workflow_id"], ctx.clock()) is None:
            return
        whole = await approvals.whole(conn, row["approval_id"])
        if whole["review_told_at"] is not None or whole["reviewed_at"] is not None:
            return
        now = await workflows.present(conn, ctx.clock())
        await approvals.put(conn, {**whole, "review_told_at": now})
        told: dict[str, object] = {"request_id": row["approval_id"], "person": whole["broken_by"]}
        await events.append(conn, row["workflow_id"], [Event("review-due", CLOCK, told)], ctx.clock())
        if ctx.governance.tells:
            notice = {"kind": "review_due", "approval_id": row["approval_id"], "data": told}
            await approvals.queue_notices(conn, row["namespace"], row["workflow_id"], [notice], ctx.clock())


async def _time_out(ctx: Context) -> list[str]:
    async with ctx.db.transaction() as conn:
        rows = await workflows.overdue(conn, _BATCH, ctx.clock())
        for row in rows:
            workflow_id = row["workflow_id"]
            cancelled = await approvals.cancel_pending(conn, workflow_id, CLOCK, ctx.clock())
            move = {"workflow": workflow_id, "status": Status.TIMED_OUT, "reason": "deadline", "finished": True,
                    "now": ctx.clock()}  # fmt: skip
            await workflows.move(conn, move)
            over = Event("workflow-timed-out", CLOCK, {"reason": "deadline"})
            await events.append(conn, workflow_id, [*unasked(cancelled, CLOCK, "deadline"), over], ctx.clock())
        return [row["workflow_id"] for row in rows]
