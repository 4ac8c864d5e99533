"""Statements sent together: each gets its own answer, and nobody suffers for another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest

from orchestrator.core.errors import Unavailable
from orchestrator.store.db import Connection, Database


@dataclass(eq=False)
class Doubling:
    """Doubles numbers in Postgres; not 13 and not 0, and `held` ones only by itself. Every call waits for `go`."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    held: frozenset[int] = frozenset()
    away: bool = False
    calls: list[list[int]] = field(default_factory=list[list[int]])

    async def __call__(self, conn: Connection, items: Sequence[int], /, *, wait: bool) -> list[int | None]:
        self.calls.append(list(items))
        self.begun.set()
        await self.go.wait()
        if self.away:
            detail = "away"
            raise Unavailable(detail)
        found = await conn.execute(
            "SELECT n * 2 * (1 / (n - 13) IS NOT NULL)::int AS twice FROM unnest(%s::int[]) n", [list(items)]
        )
        answers = [row["twice"] for row in await found.fetchall()]
        return [
            None if item in self.held and not wait else answer or None
            for item, answer in zip(items, answers, strict=True)
        ]


@pytest.fixture
async def db(database_url: str) -> AsyncGenerator[Database]:
    found = Database(database_url)
    await found.open()
    yield found
    await found.close()


async def sent(db: Database, doubling: Doubling, *numbers: int) -> list[asyncio.Task[int | None]]:
    """Ask for numbers while as many are under way as may be, which are all 100."""
    busy: list[asyncio.Task[int | None]] = []
    async with asyncio.timeout(10):
        for _ in range(2):
            doubling.begun.clear()
            busy.append(asyncio.create_task(db.together(doubling, 100)))
            await doubling.begun.wait()
    tasks = [asyncio.create_task(db.together(doubling, number)) for number in numbers]
    await asyncio.sleep(0)
    assert doubling.calls == [[100], [100]]
    doubling.calls.clear()
    return tasks


async def test_what_is_asked_for_while_one_is_under_way_goes_together(db: Database) -> None:
    doubling = Doubling()
    tasks = await sent(db, doubling, 1, 2, 3, 4)
    doubling.go.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
    assert doubling.calls == [[1, 2, 3, 4]]


async def test_what_cannot_be_done_fails_alone(db: Database) -> None:
    doubling = Doubling()
    tasks = await sent(db, doubling, 1, 2, 13, 4)
    doubling.go.set()
    *fine, bad = await asyncio.gather(tasks[0], tasks[1], tasks[3], tasks[2], return_exceptions=True)
    assert fine == [2, 4, 8]
    assert "division by zero" in str(bad)
    assert doubling.calls[0] == [1, 2, 13, 4]
    assert sorted(doubling.calls[1:]) == [[1], [2], [4], [13]]


async def test_what_somebody_else_holds_waits_by_itself(db: Database) -> None:
    doubling = Doubling(held=frozenset({3}))
    tasks = await sent(db, doubling, 1, 2, 3, 4)
    doubling.go.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
    assert doubling.calls == [[1, 2, 3, 4], [3]]


async def test_what_is_refused_is_asked_for_once_more_by_itself_and_then_refused(db: Database) -> None:
    doubling = Doubling()
    tasks = await sent(db, doubling, 1, 0, 2)
    doubling.go.set()
    assert await asyncio.gather(*tasks) == [2, None, 4]
    assert doubling.calls == [[1, 0, 2], [0]]


async def test_whoever_gives_up_is_left_out_and_keeps_nobody_waiting(db: Database) -> None:
    doubling = Doubling()
    given_up, other = await sent(db, doubling, 2, 3)
    given_up.cancel()
    await asyncio.wait([given_up])
    doubling.go.set()
    assert await other == 6
    assert doubling.calls == [[3]]


async def test_something_large_keeps_nobody_waiting(db: Database) -> None:
    doubling = Doubling()
    await sent(db, doubling)
    doubling.begun.clear()
    large = asyncio.create_task(db.together(doubling, 5, alone=True))
    async with asyncio.timeout(10):
        await doubling.begun.wait()
    assert doubling.calls == [[5]]
    doubling.go.set()
    assert await large == 10


async def test_an_outage_reaches_everybody_and_the_next_is_sent_again(db: Database) -> None:
    doubling = Doubling(away=True)
    tasks = await sent(db, doubling, 1, 2, 3)
    doubling.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [Unavailable] * 3
    assert len({id(one) for one in found}) == 3
    doubling.away = False
    assert await db.together(doubling, 4) == 8
    assert doubling.calls == [[1, 2, 3], [4]]


async def test_what_the_database_says_of_one_is_not_told_to_all(db: Database) -> None:
    async def too_deep(conn: Connection, items: Sequence[int], /, *, wait: bool) -> list[int | None]:
        del wait
        if 13 in items:
            # An operational error, as an outage is, but of this one item.
            await conn.execute("DO $$ BEGIN RAISE EXCEPTION 'too deep' USING ERRCODE = '54001'; END $$")
        return list(items)

    found = await asyncio.gather(*(db.together(too_deep, item) for item in (1, 2, 13, 4)), return_exceptions=True)
    assert [found[0], found[1], found[3]] == [1, 2, 4]
    assert isinstance(found[2], Unavailable)


async def test_what_is_still_under_way_ends_before_the_database_is_closed(db: Database) -> None:
    doubling = Doubling()
    tasks = await sent(db, doubling, 1, 2)
    asyncio.get_running_loop().call_soon(doubling.go.set)
    await db.close()
    assert await asyncio.gather(*tasks) == [2, 4]
