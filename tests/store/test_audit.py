"""Reading the trail takes plain index scans, however much of it there is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orchestrator.store import audit
from orchestrator.store.db import Database, Params

_FILL = """
INSERT INTO keyturn.workflows (workflow_id, namespace, graph, graph_version, status, input, requester, created_at,
                               updated_at, run_at)
SELECT 'wf-' || i, 'default', 'g', '1', 'completed', '{}', 'rita', now(), now(), now() FROM generate_series(1, 500) i
"""
_EVENTS = """
SELECT count(keyturn.append_events('wf-' || i, now(), '{progress,progress}', '{rita,rita}', '{"{}","{}"}'))
  FROM generate_series(1, 500) i
"""
_NAMES = [f"wf-{i}" for i in range(1, 33)]
_WANTED: Params = {"type": None, "actor": None, "since": None, "until": None, "limit": 500}
_STATEMENTS: dict[str, Params] = {
    audit._LEDGER: {},
    audit._WORKFLOWS: {"before_at": datetime.now(UTC), "before_id": "wf-9"},
    audit._WORKFLOW: {"workflow": "wf-9"},
    audit._NAMES: {"after": ""},
    audit._EVENTS: {"chains": _NAMES, "after": 0},
    audit._NEWEST: {"chains": _NAMES, "before": audit.FROM_THE_NEWEST},
    audit._ANCHORED: {"chains": _NAMES, "seqs": list(range(1, 33))},
}


@pytest.fixture
async def filled(database_url: str) -> str:
    """A database with some hundred chains."""
    db = Database(database_url, min_size=1, max_size=1)
    await db.open()
    async with db.connection() as conn:
        for statement in (_FILL, _EVENTS, "ANALYZE"):
            await conn.execute(statement)
    await db.close()
    return database_url


async def test_every_statement_that_reads_the_trail_goes_by_an_index(filled: str) -> None:
    db = Database(filled, min_size=1, max_size=1)
    await db.open()
    async with db.connection() as conn:
        for statement, parts in _STATEMENTS.items():
            explain = f"EXPLAIN (COSTS OFF) {statement}"
            rows = await (await conn.execute(explain, {**_WANTED, "namespace": "default", **parts})).fetchall()  # pyright: ignore[reportArgumentType] a statement of ours
            plan = "\n".join(row["QUERY PLAN"] for row in rows)
            assert "Seq Scan" not in plan, plan
            assert "Bitmap" not in plan, plan
    await db.close()
