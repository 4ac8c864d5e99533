"""Claiming: a lease says of its workflow what is true when the row is had, not when the statement began."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from orchestrator.store import segments, workflows
from orchestrator.store.db import Connection, Params
from orchestrator.store.events import Event
from orchestrator.store.segments import Commit, Parts
from tests.harness import APPS, Keyturn, running

# This role, which every server has, sees rows of workflows only when nobody holds the lock: so a statement of its waits
# after it has taken its snapshot, and before it has locked a row.
_HELD_UP = b"""
CREATE FUNCTION keyturn.held_up() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_lock(77);
    PERFORM pg_advisory_unlock(77);
    RETURN true;
END $$;
GRANT USAGE ON SCHEMA keyturn TO pg_monitor;
GRANT ALL ON ALL TABLES IN SCHEMA keyturn TO pg_monitor;
ALTER TABLE keyturn.workflows ENABLE ROW LEVEL SECURITY;
CREATE POLICY held_up ON keyturn.workflows TO pg_monitor USING (keyturn.held_up())
"""
_WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted) AS waits"


def asked(owner: str) -> Params:
    return {"graphs": ["batch"], "free": 5, "suspects": 1, "owner": owner, "lease": 60.0, "now": None}


@pytest.fixture
async def keyturn(database_url: str) -> AsyncGenerator[Keyturn]:
    async with running(database_url, app=APPS / "late.json") as found:
        yield found


@pytest.fixture
async def conn(database_url: str) -> AsyncGenerator[Connection]:
    async with await AsyncConnection[DictRow].connect(database_url, autocommit=True, row_factory=dict_row) as found:
        yield found


@asynccontextmanager
async def held_up(conn: Connection, database_url: str) -> AsyncGenerator[asyncio.Future[list[Params]]]:
    """A claim that has begun before the block, and gets at the rows after it."""
    async with await AsyncConnection[DictRow].connect(database_url, autocommit=True, row_factory=dict_row) as slow:
        await conn.execute(_HELD_UP)
        await conn.execute("SELECT pg_advisory_lock(77)")
        await slow.execute("SET ROLE pg_monitor")
        claiming = asyncio.ensure_future(workflows.claim(slow, asked("slow")))
        async with asyncio.timeout(10):
            while not (await (await conn.execute(_WAITS)).fetchone() or {})["waits"]:  # noqa: ASYNC110 it tells nobody
                await asyncio.sleep(0)
        yield claiming
        await conn.execute("SELECT pg_advisory_unlock(77)")
        await claiming


async def decided(keyturn: Keyturn, workflow: str) -> list[str]:
    """Let the workflow ask and approve everything; the approvals."""
    async with keyturn.working():
        found = await keyturn.until(workflow, "waiting")
    for one in found.approvals:
        await keyturn.approve(workflow, approval_id=one.approval_id)
    return [one.approval_id for one in found.approvals]


async def test_a_claim_that_was_held_up_takes_no_row_whose_decisions_it_has_not_seen(
    keyturn: Keyturn, conn: Connection, database_url: str
) -> None:
    workflow = await keyturn.submit("batch")
    async with held_up(conn, database_url) as claiming:
        await decided(keyturn, workflow)
        # A worker that drains hands a workflow back as due as it was.
        await conn.execute("UPDATE keyturn.workflows SET run_at = created_at")
    (lease,) = claiming.result() or await workflows.claim(conn, asked("next"))
    assert [one["state"] for one in lease["decided"] or ()] == ["approved", "approved"]


async def test_a_claim_that_was_held_up_takes_no_row_whose_decisions_were_delivered_meanwhile(
    keyturn: Keyturn, conn: Connection, database_url: str
) -> None:
    workflow = await keyturn.submit("batch")
    approvals = await decided(keyturn, workflow)
    (zombie,) = await workflows.claim(conn, asked("zombie"))
    await conn.execute("UPDATE keyturn.workflows SET lease_until = now() - interval '1 s'")
    async with held_up(conn, database_url) as claiming:
        # Its lease has run out, and nobody else has it yet: its barrier counts.
        barrier = Parts(delivered=approvals, events=[Event("decision-delivered", "worker:zombie")])
        assert await segments.commit(conn, [Commit(workflow, zombie["epoch"], barrier, None)], wait=True) == [True]
    (lease,) = claiming.result() or await workflows.claim(conn, asked("next"))
    # Behind them nothing has run yet, so they are looked at; they are not fed again.
    assert [one["delivered"] for one in lease["decided"]] == [True, True]
