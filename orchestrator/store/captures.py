"""The inbox: workflows of graphs that take captures, read for showing. They are written as workflows are."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.store.db import Connection, Params

# One page, newest first; filters that are null do not apply.
PAGE = """
SELECT workflow_id, created_at, finished_at, graph, requester, title, status, reason, error, input, result
  FROM keyturn.workflows
 WHERE namespace = %(namespace)s AND capture
   AND (%(status)s::text IS NULL OR status = %(status)s)
   AND (%(category)s::text IS NULL OR lower(result ->> 'category') = lower(%(category)s))
 ORDER BY created_at DESC, workflow_id DESC LIMIT %(limit)s OFFSET %(offset)s
"""

# How many there are with the same filters.
COUNT = """
SELECT count(*)::int AS found
  FROM keyturn.workflows
 WHERE namespace = %(namespace)s AND capture
   AND (%(status)s::text IS NULL OR status = %(status)s)
   AND (%(category)s::text IS NULL OR lower(result ->> 'category') = lower(%(category)s))
"""

# One capture.
GET = """
SELECT workflow_id, created_at, finished_at, graph, requester, title, status, reason, error, input, result
  FROM keyturn.workflows
 WHERE namespace = %(namespace)s AND workflow_id = %(workflow)s AND capture
"""

# The questions that wait for an answer, of these workflows.
WAITING = """
SELECT workflow_id, approval_id, question, state, requested_at, expires_at, decision, resolved_by, resolved_at
  FROM keyturn.approvals
 WHERE workflow_id = ANY(%(workflows)s) AND state = 'pending' AND kind = 'question'
 ORDER BY requested_at, interrupt_id, item
"""

# The graphs whose newest version takes captures.
GRAPHS = """
SELECT graph
  FROM (SELECT DISTINCT ON (graph) graph, traits FROM keyturn.graphs ORDER BY graph, offered_at DESC) AS newest
 WHERE (traits ->> 'capture')::boolean
 ORDER BY graph
"""


async def page(conn: Connection, filters: Params) -> list[Params]:
    """One page of captures."""
    return await (await conn.execute(PAGE, filters)).fetchall()


async def count(conn: Connection, filters: Params) -> int:
    """How many captures the filters leave."""
    found = await (await conn.execute(COUNT, filters)).fetchone()
    return int(found["found"]) if found else 0


async def get(conn: Connection, namespace: str, workflow_id: str) -> Params | None:
    """A capture; None when there is none in the namespace."""
    return await (await conn.execute(GET, {"namespace": namespace, "workflow": workflow_id})).fetchone()


async def waiting(conn: Connection, workflow_ids: Sequence[str]) -> list[Params]:
    """The questions about these captures that wait for an answer, oldest first."""
    return await (await conn.execute(WAITING, {"workflows": list(workflow_ids)})).fetchall()


async def graphs(conn: Connection) -> list[str]:
    """The graphs that take captures."""
    return [row["graph"] for row in await (await conn.execute(GRAPHS)).fetchall()]
