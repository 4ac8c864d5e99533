"""Deadlines by the hundred: one index probe while nothing is due, and all that come due are done, each once."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

from benchmarks.deadlines import explained, fill
from orchestrator.service import timers
from orchestrator.service.context import Context
from orchestrator.store import workflows
from orchestrator.store.db import Connection, Database
from tests.harness import Keyturn

_DAY = 86_400
_PAST = timedelta(seconds=1)
_DONE = """
SELECT count(*) FILTER (WHERE a.state = 'expired' AND w.status = 'expired') AS expired,
       count(*) FILTER (WHERE a.state = 'pending' AND 'escalated' = ANY (a.flags) AND escalate_at IS NULL) AS escalated,
       count(*) FILTER (WHERE a.state = 'pending' AND escalated_at IS NULL AND a.remind_at IS NULL) AS reminded,
       count(*) FILTER (WHERE w.last_seq <> CASE a.state WHEN 'expired' THEN 2 ELSE 1 END) AS otherwise
  FROM keyturn.approvals a JOIN keyturn.workflows w USING (workflow_id) WHERE approval_id LIKE %(name)s
"""
_EXPIRED = {"expired": 100, "escalated": 100, "reminded": 100, "otherwise": 0}


async def done(conn: Connection, name: str) -> dict[str, Any]:
    """How many of these expired, escalated and were reminded of; and any whose chain tells of more, or of less."""
    row = await (await conn.execute(_DONE, {"name": f"ap-{name}%"})).fetchone()
    assert row is not None
    return row


async def test_beside_a_hundred_thousand_deadlines_the_sweep_is_one_index_probe(keyturn: Keyturn) -> None:
    async with keyturn.ctx.db.connection() as conn:
        first = await workflows.present(conn, None) + timedelta(hours=1)
        await fill(conn, keyturn.ctx, "day", 100_000, first, _DAY / 100_000)
        for analyzed in (False, True):
            if analyzed:
                await conn.execute("ANALYZE keyturn.approvals, keyturn.workflows")
            plan = "\n".join(await explained(conn))
            assert re.search(r"Index Scan using approvals_wake on approvals.*\n\s+Index Cond: \(wake_at <=", plan), plan
            assert "Seq Scan" not in plan, plan
            assert "Sort" not in plan, plan
            read = sum(int(n) for n in re.findall(r"Buffers: shared hit=(\d+)", plan.split("Planning")[0])[:1])
            assert read < 10, plan
    assert await timers.sweep(keyturn.ctx) == 0


async def test_three_hundred_that_come_due_at_one_instant_are_done_once_each_by_one_sweep(keyturn: Keyturn) -> None:
    async with keyturn.ctx.db.connection() as conn:
        at = await workflows.present(conn, None) - _PAST
        await fill(conn, keyturn.ctx, "once", 300, at, 0.0)
        assert await timers.sweep(keyturn.ctx) == 300
        assert await timers.sweep(keyturn.ctx) == 0
        assert await done(conn, "once") == _EXPIRED


async def test_workers_that_sweep_at_once_do_nothing_twice(keyturn: Keyturn, database_url: str) -> None:
    other = Context(Database(database_url), keyturn.ctx.governance)
    await other.db.open()
    try:
        async with keyturn.ctx.db.connection() as conn:
            at = await workflows.present(conn, None) - _PAST
            await fill(conn, keyturn.ctx, "once", 300, at, 0.0)
            told = await asyncio.gather(timers.sweep(keyturn.ctx), timers.sweep(other), timers.sweep(keyturn.ctx))
            assert sum(told) == 300
            assert await done(conn, "once") == _EXPIRED
    finally:
        await other.db.close()


async def test_what_cannot_be_done_does_not_stand_before_what_can(keyturn: Keyturn) -> None:
    async with keyturn.ctx.db.connection() as conn:
        at = await workflows.present(conn, None) - _PAST
        await fill(conn, keyturn.ctx, "broken", 250, at - _PAST, 0.0)
        await conn.execute("UPDATE keyturn.approvals SET terms = '{\"escalation\": 7}'")
        await fill(conn, keyturn.ctx, "once", 300, at, 0.0)
        assert await timers.sweep(keyturn.ctx) == 300
        assert await done(conn, "once") == _EXPIRED
