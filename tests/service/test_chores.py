"""Chores run as Procrastinate jobs, on the worker, and survive nothing being due."""

from __future__ import annotations

import asyncio
import contextlib

from orchestrator.chores import app as chores
from orchestrator.chores.notify import Notifier
from tests.harness import Keyturn


async def test_retention_forgets_old_idempotency_keys_and_long_dead_workers(keyturn: Keyturn) -> None:
    async with keyturn.ctx.db.connection() as conn:
        await conn.execute(
            "INSERT INTO keyturn.idempotency_keys SELECT 'default', 'rita', key, '', 'x', now() - age"
            " FROM (VALUES ('old', interval '8 days'), ('new', interval '0')) AS keys (key, age)"
        )
        await conn.execute(
            "INSERT INTO keyturn.workers (worker_id, host, pid, capacity, graphs, seen_at)"
            " VALUES ('dead', 'h', 1, 1, '{}', now() - interval '2 days')"
        )
    app = chores.make_app(keyturn.ctx.db.url)
    async with app.open_async():
        await app.configure_task(chores.RETENTION).defer_async(timestamp=0)
    working = asyncio.create_task(chores.work(Notifier(keyturn.ctx.db)))
    try:
        async with asyncio.timeout(20):
            while True:
                async with keyturn.ctx.db.connection() as conn:
                    rows = await (await conn.execute("SELECT key FROM keyturn.idempotency_keys")).fetchall()
                    workers = await (await conn.execute("SELECT worker_id FROM keyturn.workers")).fetchall()
                if [row["key"] for row in rows] == ["new"] and "dead" not in {row["worker_id"] for row in workers}:
                    break
                await asyncio.sleep(0.05)
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
