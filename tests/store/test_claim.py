"""Claiming: a lease says of its workflow what is true when the row is had, not when the statement began."""

from __future__ import annotations

import asyncio

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from orchestrator.store import workflows
from tests.harness import APPS, running

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


async def test_a_claim_that_was_held_up_takes_no_row_whose_decision_it_has_not_seen(database_url: str) -> None:
    asked = {"graphs": ["batch"], "free": 5, "suspects": 1, "owner": "slow", "lease": 60.0, "now": None}
    async with (
        running(database_url, app=APPS / "late.json") as keyturn,
        await AsyncConnection[DictRow].connect(database_url, autocommit=True, row_factory=dict_row) as holder,
        await AsyncConnection[DictRow].connect(database_url, autocommit=True, row_factory=dict_row) as slow,
    ):
        workflow = await keyturn.submit("batch")
        await holder.execute(_HELD_UP)
        await holder.execute("SELECT pg_advisory_lock(77)")
        await slow.execute("SET ROLE pg_monitor")
        claiming = asyncio.create_task(workflows.claim(slow, asked))
        async with asyncio.timeout(10):
            while not (await (await holder.execute(_WAITS)).fetchone() or {})["waits"]:  # noqa: ASYNC110 it tells nobody
                await asyncio.sleep(0)
        async with keyturn.working():
            found = await keyturn.until(workflow, "waiting")
        for one in found.approvals:
            await keyturn.approve(workflow, approval_id=one.approval_id)
        # A worker that drains hands a workflow back as due as it was.
        await holder.execute("UPDATE keyturn.workflows SET run_at = created_at")
        await holder.execute("SELECT pg_advisory_unlock(77)")
        stale = await claiming
        (fresh,) = stale or await workflows.claim(slow, asked)
    assert [decided["state"] for decided in fresh["decided"] or ()] == ["approved", "approved"]
    assert fresh["epoch"] == 3
