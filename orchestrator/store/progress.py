"""What progress is told from: milestones, the newest that each node told, and a person's tasks. Read only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from orchestrator.core.progress import MILESTONES
from orchestrator.store.db import Connection, Params

# What happened to the steps of some workflows, in order.
HAPPENED = """
SELECT workflow_id, seq, at, type, body ->> 'node' AS node, body ->> 'request_id' AS request_id
  FROM keyturn.events
 WHERE workflow_id = ANY (%(workflows)s::text[]) AND type = ANY (%(types)s::text[])
 ORDER BY workflow_id, seq
"""

# The newest that each of some nodes told; one index probe a node.
TOLD = """
SELECT one.workflow_id, newest.seq, newest.at, newest.body
  FROM unnest(%(workflows)s::text[], %(nodes)s::text[]) AS one (workflow_id, node)
 CROSS JOIN LATERAL (
    SELECT seq, at, body FROM keyturn.events e
     WHERE e.workflow_id = one.workflow_id AND e.type = 'progress' AND e.body ->> 'node' = one.node
     ORDER BY seq DESC LIMIT 1) AS newest
"""

# A person's tasks, newest first: those that have not ended, and those that ended lately. `tasks` counts all of them.
LIVE = """
WITH clock AS (SELECT coalesce(%(now)s::timestamptz, now()) AS now),
shown AS (
    SELECT workflow_id, created_at FROM keyturn.workflows
     WHERE namespace = %(namespace)s AND requester = %(person)s AND task AND finished_at IS NULL
    UNION ALL
    SELECT workflow_id, created_at FROM keyturn.workflows
     WHERE namespace = %(namespace)s AND requester = %(person)s AND task
       AND finished_at > (SELECT now FROM clock) - make_interval(secs => %(seconds)s)
), first AS (
    SELECT workflow_id, count(*) OVER ()::int AS tasks FROM shown
     ORDER BY created_at DESC, workflow_id DESC LIMIT %(limit)s
)
SELECT w.*, first.tasks FROM first JOIN keyturn.workflows w USING (workflow_id)
 ORDER BY w.created_at DESC, w.workflow_id DESC
"""


async def happened(conn: Connection, workflow_ids: Sequence[str]) -> list[Params]:
    """The milestones of these workflows, in order."""
    found = await conn.execute(HAPPENED, {"workflows": list(workflow_ids), "types": list(MILESTONES)})
    return await found.fetchall()


async def told(conn: Connection, pairs: Sequence[tuple[str, str]]) -> list[Params]:
    """The newest `progress` event of each (workflow, node) that has one."""
    named = {"workflows": [one[0] for one in pairs], "nodes": [one[1] for one in pairs]}
    return await (await conn.execute(TOLD, named)).fetchall()


async def live(
    conn: Connection, namespace: str, person: str, *, seconds: float, limit: int, now: datetime | None
) -> list[Params]:
    """The rows of a person's tasks that run, wait, or ended less than so many seconds ago; each with their number."""
    given = {"namespace": namespace, "person": person, "seconds": seconds, "limit": limit, "now": now}
    return await (await conn.execute(LIVE, given)).fetchall()
