"""Wake-ups: whoever is in this process hears of them at once, everybody else by way of Postgres, and nobody twice."""

from __future__ import annotations

import asyncio

from orchestrator.store.db import Database
from orchestrator.store.events import READY_CHANNEL


async def test_a_ring_that_was_heard_in_this_process_carries_its_mark_for_the_others(database_url: str) -> None:
    here, elsewhere = Database(database_url), Database(database_url)
    heard: list[str] = []
    payloads: set[str] = set()
    for db in (here, elsewhere):
        await db.open()
    async with here.listener(READY_CHANNEL) as conn, asyncio.timeout(10):
        with (
            here.hearing(READY_CHANNEL, lambda: heard.append("one")),
            here.hearing(READY_CHANNEL, lambda: heard.append("two")),
        ):
            here.ring(READY_CHANNEL, "default")
            assert heard == ["one", "two"]
            elsewhere.ring(READY_CHANNEL, "default")
            async for notice in conn.notifies():
                payloads.add(notice.payload)
                if len(payloads) == 2:
                    break
        here.ring(READY_CHANNEL, "default")
    for db in (here, elsewhere):
        await db.close()
    assert payloads == {here.mark, "default"}
    assert heard == ["one", "two"]
