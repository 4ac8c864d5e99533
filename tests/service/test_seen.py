"""Which requests somebody was shown: noted without deadlocks, forgotten when nothing of it waits."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.core.errors import AlreadyResolved
from orchestrator.service import conversations, resuming, states, threads
from orchestrator.store import seen
from orchestrator.store.db import Connection
from tests.harness import APPS, Keyturn, caller, running

GATE = {"type": "approval", "action": {"operation": "deploy", "environment": "production"}}
PASSED = "UPDATE keyturn.approvals SET state = 'approved', resolved_by = 'policy:p@1', resolved_at = requested_at"
PASSED_LATER = "UPDATE keyturn.approvals SET resolved_at = requested_at + interval '1 hour'"
NOTED = "SELECT count(*) AS found FROM keyturn.seen_requests"


async def _waiting(keyturn: Keyturn, count: int) -> list[str]:
    made = [await keyturn.submit("anything", payload=GATE) for _ in range(count)]
    return sorted([(await keyturn.asked(one)).approval_id for one in made])


async def _blocked(keyturn: Keyturn, count: int) -> None:
    """Until so many connections wait for a lock."""
    async with asyncio.timeout(10), keyturn.ctx.db.connection() as conn:
        while True:
            query = "SELECT count(*) AS found FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            row = await (await conn.execute(query)).fetchone()
            if row is not None and row["found"] >= count:
                return


async def test_two_who_note_the_same_in_different_orders_never_wait_for_each_other(database_url: str) -> None:
    async with running(database_url, app=APPS / "dialects.json") as keyturn, keyturn.working():
        first, middle, last = await _waiting(keyturn, 3)
        db = keyturn.ctx.db

        async def note(*ids: str) -> None:
            async with db.connection() as conn:
                await seen.note(conn, "tara", ids)

        async with asyncio.timeout(20), db.transaction() as conn:
            await seen.note(conn, "tara", [middle])
            both = [asyncio.create_task(note(first, middle, last)), asyncio.create_task(note(last, middle, first))]
            await _blocked(keyturn, 2)
        done = await asyncio.gather(*both, return_exceptions=True)
        assert done == [None, None]


async def test_who_was_overtaken_while_looking_learns_by_whom(database_url: str) -> None:
    async with running(database_url, app=APPS / "dialects.json") as keyturn, keyturn.working():
        workflow = await keyturn.submit("anything", payload=GATE)
        await keyturn.asked(workflow)
        late = caller("theo")
        _, before = await resuming._asked(keyturn.ctx, late, workflow)  # pyright: ignore[reportPrivateUsage]
        await keyturn.approve(workflow, "tara")
        with pytest.raises(AlreadyResolved) as refused:
            await resuming._check_seen(keyturn.ctx, late, workflow, before)  # pyright: ignore[reportPrivateUsage]
    assert refused.value.facts["resolved_by"] == "tara"


async def test_what_was_seen_is_forgotten_when_it_waits_no_more(database_url: str) -> None:
    async with running(database_url, app=APPS / "dialects.json") as keyturn, keyturn.working():
        ids = await _waiting(keyturn, 2)
        db = keyturn.ctx.db
        async with db.connection() as conn:
            await seen.note(conn, "tara", ids)
            await conn.execute("UPDATE keyturn.approvals SET state = 'rejected' WHERE approval_id = %s", [ids[0]])
            assert await seen.forget(conn) == 1
            assert await _count(conn) == 1
            assert await seen.by(conn, "tara", [ids[1]])


async def _count(conn: Connection) -> int:
    row = await (await conn.execute(NOTED)).fetchone()
    return int(row["found"]) if row else -1


async def test_a_request_that_silence_approved_makes_an_answer_without_a_name_ask_which(database_url: str) -> None:
    async with running(database_url, app=APPS / "dialects.json") as keyturn, keyturn.working():
        workflow = await keyturn.submit("anything", payload=GATE)
        await keyturn.asked(workflow)
        async with keyturn.ctx.db.connection() as conn:
            # At once, and so never shown to anybody.
            await conn.execute(PASSED)
            assert not await seen.decided_before(conn, workflow, None)
            await conn.execute(PASSED_LATER)
            assert await seen.decided_before(conn, workflow, None)


async def test_ignoring_twice_leaves_alone_what_was_not_seen(database_url: str) -> None:
    async with running(database_url, app=APPS / "dialects.json") as keyturn, keyturn.working():
        ask = {"messages": [{"role": "user", "content": "clean up"}]}
        workflow = await keyturn.submit("two_turns", **ask)
        await keyturn.asked(workflow)
        tom = caller("tom")
        thread = await threads.find(keyturn.ctx, tom, workflow)
        await states.state(keyturn.ctx, tom, thread)
        await conversations.ignore(keyturn.ctx, tom, thread)
        second = await keyturn.asked(workflow)
        with pytest.raises(AlreadyResolved):
            await conversations.ignore(keyturn.ctx, tom, thread)
        assert (await keyturn.asked(workflow)).approval_id == second.approval_id
        await states.state(keyturn.ctx, tom, thread)
        await conversations.ignore(keyturn.ctx, tom, thread)
        await keyturn.until(workflow, "completed")
