"""Threads looked for, counted, described, copied and put away. A workflow without a thread counts as its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from orchestrator.store.db import Connection, Params

# Threads that wait for a person, by what they ask: an index holds just those.
WAITING = """
SELECT coalesce(t.thread_key, w.workflow_id) AS thread_key, coalesce(t.thread_id, w.workflow_id) AS thread_id,
       coalesce(t.kind::text, 'workflow') AS kind, w.graph, coalesce(t.person, w.requester) AS person,
       coalesce(t.mode, w.mode) AS mode, coalesce(t.title, w.title) AS title, coalesce(t.case_id, w.case_id) AS case_id,
       coalesce(t.metadata, '{}') AS metadata, t.idle_seconds, coalesce(t.created_at, w.created_at) AS created_at,
       w.updated_at, t.ended_at, t.ended_reason, w.workflow_id, w.status
  FROM (SELECT DISTINCT workflow_id FROM keyturn.approvals
         WHERE namespace = %(namespace)s AND state = 'pending') AS a
  JOIN keyturn.workflows w USING (workflow_id) LEFT JOIN keyturn.threads t ON t.thread_key = w.thread_key
 WHERE w.status = 'waiting' AND (%(graph)s::text IS NULL OR w.graph = %(graph)s)
   AND coalesce(t.metadata, '{}') @> %(metadata)s
   AND (%(ids)s::text[] IS NULL OR coalesce(t.thread_id, w.workflow_id) = ANY (%(ids)s))
 ORDER BY CASE WHEN %(up)s THEN CASE %(sort)s WHEN 'created_at' THEN coalesce(t.created_at, w.created_at)
                                              ELSE w.updated_at END END,
          CASE WHEN NOT %(up)s THEN CASE %(sort)s WHEN 'created_at' THEN coalesce(t.created_at, w.created_at)
                                                  ELSE w.updated_at END END DESC, 2
 LIMIT %(limit)s OFFSET %(offset)s
"""

# All threads, those made last first; each part is read from its index as far as the page needs.
PAGE = """
SELECT * FROM (
    (SELECT t.thread_key, t.thread_id, t.kind::text AS kind, coalesce(r.graph, t.graph) AS graph, t.person, t.mode,
            t.title, t.case_id, t.metadata, t.idle_seconds, t.created_at,
            greatest(t.updated_at, r.updated_at) AS updated_at, t.ended_at, t.ended_reason, r.workflow_id, r.status
       FROM keyturn.threads t
       LEFT JOIN LATERAL (SELECT workflow_id, status, graph, updated_at FROM keyturn.workflows w
                           WHERE w.thread_key = t.thread_key
                           ORDER BY created_at DESC, workflow_id DESC LIMIT 1) AS r ON true
      WHERE t.namespace = %(namespace)s AND t.ended_reason IS DISTINCT FROM 'deleted'
        AND (%(graph)s::text IS NULL OR coalesce(r.graph, t.graph, t.metadata ->> 'graph_id') = %(graph)s)
        AND t.metadata @> %(metadata)s
        AND (%(ids)s::text[] IS NULL OR t.thread_id = ANY (%(ids)s))
        AND (%(statuses)s::text[] IS NULL OR coalesce(r.status::text, 'none') = ANY (%(statuses)s))
      ORDER BY CASE WHEN %(newest)s THEN t.created_at END DESC, CASE WHEN %(newest)s THEN t.thread_id END
      LIMIT %(most)s)
    UNION ALL
    (SELECT w.workflow_id, w.workflow_id, 'workflow', w.graph, w.requester, w.mode, w.title, w.case_id, '{}', NULL,
            w.created_at, w.updated_at, NULL, NULL, w.workflow_id, w.status
       FROM keyturn.workflows w
      WHERE w.namespace = %(namespace)s AND w.thread_key IS NULL
        AND (%(graph)s::text IS NULL OR w.graph = %(graph)s)
        AND '{}'::jsonb @> %(metadata)s
        AND (%(ids)s::text[] IS NULL OR w.workflow_id = ANY (%(ids)s))
        AND (%(statuses)s::text[] IS NULL OR w.status::text = ANY (%(statuses)s))
      ORDER BY CASE WHEN %(newest)s THEN w.created_at END DESC LIMIT %(most)s)) AS found
 ORDER BY CASE WHEN %(up)s AND %(sort)s IN ('thread_id', 'status')
               THEN CASE %(sort)s WHEN 'status' THEN status::text ELSE thread_id END END,
          CASE WHEN NOT %(up)s AND %(sort)s IN ('thread_id', 'status')
               THEN CASE %(sort)s WHEN 'status' THEN status::text ELSE thread_id END END DESC,
          CASE WHEN %(up)s THEN CASE %(sort)s WHEN 'created_at' THEN created_at ELSE updated_at END END,
          CASE WHEN NOT %(up)s THEN CASE %(sort)s WHEN 'created_at' THEN created_at ELSE updated_at END END DESC,
          thread_id
 LIMIT %(limit)s OFFSET %(offset)s
"""

# What a page with the same filters would hold if it had no end.
COUNT = """
SELECT (SELECT count(*) FROM keyturn.threads t
          LEFT JOIN LATERAL (SELECT status, graph FROM keyturn.workflows w
                              WHERE w.thread_key = t.thread_key
                              ORDER BY created_at DESC, workflow_id DESC LIMIT 1) AS r ON true
         WHERE t.namespace = %(namespace)s AND t.ended_reason IS DISTINCT FROM 'deleted'
           AND (%(graph)s::text IS NULL OR coalesce(r.graph, t.graph, t.metadata ->> 'graph_id') = %(graph)s)
           AND t.metadata @> %(metadata)s
           AND (%(ids)s::text[] IS NULL OR t.thread_id = ANY (%(ids)s))
           AND (%(statuses)s::text[] IS NULL OR coalesce(r.status::text, 'none') = ANY (%(statuses)s)))
     + (SELECT count(*) FROM keyturn.workflows w
         WHERE w.namespace = %(namespace)s AND w.thread_key IS NULL
           AND (%(graph)s::text IS NULL OR w.graph = %(graph)s)
           AND '{}'::jsonb @> %(metadata)s
           AND (%(ids)s::text[] IS NULL OR w.workflow_id = ANY (%(ids)s))
           AND (%(statuses)s::text[] IS NULL OR w.status::text = ANY (%(statuses)s))) AS found
"""

# Add to a thread's metadata.
PATCH = """
UPDATE keyturn.threads SET metadata = metadata || %(metadata)s, updated_at = coalesce(%(now)s::timestamptz, now())
 WHERE namespace = %(namespace)s AND thread_key = %(thread_key)s
"""

# A thread that is not to be shown any more; its workflows and their trail stay.
PUT_AWAY = """
UPDATE keyturn.threads SET ended_at = coalesce(%(now)s::timestamptz, now()), ended_reason = 'deleted'
 WHERE namespace = %(namespace)s AND thread_key = %(thread_key)s
"""

# The state of one thread for another. Its pending writes are not copied, so nothing of what it asks can be answered.
COPY_CHECKPOINTS = """
INSERT INTO langgraph.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint,
                                   metadata)
SELECT %(to)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
  FROM langgraph.checkpoints WHERE thread_id = %(from)s
"""
COPY_BLOBS = """
INSERT INTO langgraph.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
SELECT %(to)s, checkpoint_ns, channel, version, type, blob FROM langgraph.checkpoint_blobs WHERE thread_id = %(from)s
"""

# All that some workflows have asked.
ASKED = """
SELECT * FROM keyturn.approvals
 WHERE namespace = %(namespace)s AND workflow_id = ANY (%(workflows)s) ORDER BY requested_at, interrupt_id, item
"""


async def page(conn: Connection, filters: Mapping[str, Any]) -> list[Params]:
    """One page of threads with their newest runs."""
    newest = filters["sort"] == "created_at" and not filters["up"] and filters["ids"] is None
    params = {**filters, "metadata": Jsonb(filters["metadata"]), "newest": newest,
              "most": filters["limit"] + filters["offset"] if newest else None}  # fmt: skip
    statement = WAITING if filters["statuses"] == ["waiting"] and filters["sort"].endswith("_at") else PAGE
    return await (await conn.execute(statement, params)).fetchall()


async def count(conn: Connection, filters: Mapping[str, Any]) -> int:
    """How many threads there are with these filters."""
    row = await (await conn.execute(COUNT, {**filters, "metadata": Jsonb(filters["metadata"])})).fetchone()
    return int(row["found"]) if row else 0


async def patch(
    conn: Connection, namespace: str, thread_key: str, metadata: Mapping[str, object], now: datetime | None
) -> None:
    """Add to a thread's metadata."""
    row = {"namespace": namespace, "thread_key": thread_key, "metadata": Jsonb(dict(metadata)), "now": now}
    await conn.execute(PATCH, row)


async def put_away(conn: Connection, namespace: str, thread_key: str, now: datetime | None) -> None:
    """Show a thread no more."""
    await conn.execute(PUT_AWAY, {"namespace": namespace, "thread_key": thread_key, "now": now})


async def copy_state(conn: Connection, origin: str, copy: str) -> None:
    """Give the thread `copy` the stored states of another one."""
    await conn.execute(COPY_CHECKPOINTS, {"from": origin, "to": copy})
    await conn.execute(COPY_BLOBS, {"from": origin, "to": copy})


async def asked(conn: Connection, namespace: str, workflow_ids: Sequence[str]) -> list[Params]:
    """All approvals of these workflows, in the order they were asked."""
    if not workflow_ids:
        return []
    return await (await conn.execute(ASKED, {"namespace": namespace, "workflows": list(workflow_ids)})).fetchall()
