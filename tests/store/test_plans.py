"""The statements of the hot path settle on one plan each: planning one anew each time costs more than running it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest

from orchestrator.service.workflows import new_id
from orchestrator.store import checkpoints, decisions, segments, workflows
from orchestrator.store.db import Connection, Database
from orchestrator.store.decisions import Asked, Question, Written
from orchestrator.store.events import Event
from orchestrator.store.segments import Commit, Parts
from orchestrator.store.workflows import NewWorkflow

# Postgres looks at the values of the first five times before it may settle; psycopg prepares what comes a third time.
_TIMES = 12
_SETTLED = """
SELECT regexp_replace(statement, '\\s+', ' ', 'g') AS statement, generic_plans > 0 AS settled
  FROM pg_prepared_statements WHERE NOT from_sql ORDER BY 1
"""
_PARTS = [
    "commit_segment",
    "keyturn.decide",
    "xmin::text AS version",
    "INSERT INTO keyturn.workflows",
    "'running', owner",
]


@pytest.fixture
async def conn(database_url: str) -> AsyncGenerator[Connection]:
    db = Database(database_url, min_size=1, max_size=1)
    await db.open()
    async with db.connection() as found:
        yield found
    await db.close()


def new(nth: int) -> NewWorkflow:
    """A workflow of nobody's."""
    return NewWorkflow(
        {
            "workflow_id": new_id("wf"), "namespace": "default", "graph": "g", "graph_version": "1", "title": "",
            "mode": "interactive", "input": {"nth": nth}, "requester": "rita", "priority": 0, "now": None,
        },
        Event("workflow-submitted", "rita"),
    )  # fmt: skip


async def test_the_hot_statements_settle_on_one_plan_each(conn: Connection) -> None:
    claim = {"graphs": ["g"], "free": 3, "suspects": 1, "owner": "w", "lease": 9.0, "now": None}
    known = {"policy_version": 0, "people_version": 0}
    asked = Asked({"workflow_id": "none", "version": "3", "now": datetime.now(UTC), **known}, [], {})
    # With next to no rows any plan is good enough.
    for _ in range(10):
        await workflows.insert(conn, [new(one) for one in range(100)])
    await conn.execute("ANALYZE")
    for nth in range(_TIMES):
        some = range(1 + nth % 3)
        await workflows.insert(conn, [new(one) for one in some])
        await workflows.claim(conn, claim)
        await checkpoints.newest(conn, [(f"none{one}", "") for one in some])
        await segments.commit(conn, [Commit(f"none{one}", 1, Parts(), None) for one in some], wait=False)
        await decisions.read(conn, [Question("default", f"none{one}", ["tara"], None) for one in some])
        await decisions.write(conn, [(asked, Written("none")) for _ in some], wait=False)
    found = await (await conn.execute(_SETTLED)).fetchall()
    assert [row["statement"] for row in found if not row["settled"]] == []
    for part in _PARTS:
        assert sum(part in row["statement"] for row in found) == 1, part
