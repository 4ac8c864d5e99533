"""Threads: conversations that several workflows run on, one after the other. Their state is LangGraph's.

Who begins a run of a thread or lets a failed one go on locks the thread first and then the workflow. A run ends without
that: it can only make room for the next.
"""

from __future__ import annotations

from datetime import datetime

from psycopg.types.json import Json

from orchestrator.store.db import Connection, Params

# A new thread, unless there is one of this id.
INSERT = """
INSERT INTO keyturn.threads (thread_key, namespace, thread_id, kind, graph, person, mode, title, case_id, metadata,
                             idle_seconds, created_at, updated_at)
SELECT %(thread_key)s, %(namespace)s, %(thread_id)s, %(kind)s, %(graph)s, %(person)s, %(mode)s, %(title)s, %(case_id)s,
       %(metadata)s, %(idle_seconds)s, at, at
  FROM coalesce(%(now)s::timestamptz, now()) AS at
ON CONFLICT (namespace, thread_id) DO NOTHING
"""

# The thread by the id that clients know, with its newest run.
FIND = """
SELECT t.*, r.workflow_id, r.status FROM keyturn.threads t
  LEFT JOIN LATERAL (SELECT workflow_id, status FROM keyturn.workflows w
                      WHERE w.thread_key = t.thread_key ORDER BY created_at DESC, workflow_id DESC LIMIT 1) AS r ON true
 WHERE t.namespace = %(namespace)s AND t.thread_id = %(thread_id)s
"""

# A workflow that is a thread of its own, as one.
BARE = """
SELECT workflow_id AS thread_key, namespace, workflow_id AS thread_id, 'workflow' AS kind, graph, requester AS person,
       mode, title, case_id, '{}'::jsonb AS metadata, NULL::double precision AS idle_seconds,
       NULL::timestamptz AS ended_at, NULL AS ended_reason, created_at, updated_at, workflow_id, status
  FROM keyturn.workflows
 WHERE namespace = %(namespace)s AND workflow_id = %(thread_id)s AND thread_key IS NULL
"""

# Make a workflow that was a thread of its own the first run of one that others may follow on.
ADOPT = """
WITH kept AS (
    INSERT INTO keyturn.threads (thread_key, namespace, thread_id, kind, graph, person, mode, title, case_id,
                                 created_at, updated_at)
    SELECT workflow_id, namespace, workflow_id, 'thread', graph, requester, mode, title, case_id, created_at, updated_at
      FROM keyturn.workflows WHERE namespace = %(namespace)s AND workflow_id = %(workflow)s AND thread_key IS NULL
    ON CONFLICT DO NOTHING RETURNING thread_key
)
UPDATE keyturn.workflows w SET thread_key = kept.thread_key FROM kept WHERE w.workflow_id = kept.thread_key
"""

# The thread, locked.
LOCK = "SELECT * FROM keyturn.threads WHERE namespace = %(namespace)s AND thread_key = %(thread_key)s FOR UPDATE"

# The newest run of a thread.
NEWEST_RUN = """
SELECT workflow_id, graph, status, created_at, updated_at FROM keyturn.workflows
 WHERE thread_key = %(thread_key)s ORDER BY created_at DESC, workflow_id DESC LIMIT 1
"""

# A run begins: the thread is its graph's from the first one on.
MOVED = """
UPDATE keyturn.threads SET updated_at = coalesce(%(now)s::timestamptz, now()), graph = coalesce(graph, %(graph)s)
 WHERE thread_key = %(thread_key)s
"""


async def insert(conn: Connection, row: Params) -> bool:
    """Whether the thread was new."""
    return (await conn.execute(INSERT, {**row, "metadata": Json(row["metadata"])})).rowcount == 1


async def find(conn: Connection, namespace: str, thread_id: str) -> Params | None:
    """The thread of this id, or the workflow of this id where that is a thread of its own."""
    named = {"namespace": namespace, "thread_id": thread_id}
    found = await (await conn.execute(FIND, named)).fetchone()
    return found or await (await conn.execute(BARE, named)).fetchone()


async def adopt(conn: Connection, namespace: str, workflow_id: str) -> None:
    """Let other runs follow on a workflow that is a thread of its own; nothing where that was done already."""
    await conn.execute(ADOPT, {"namespace": namespace, "workflow": workflow_id})


async def lock(conn: Connection, namespace: str, thread_key: str) -> Params | None:
    """The thread, locked for the rest of the transaction."""
    return await (await conn.execute(LOCK, {"namespace": namespace, "thread_key": thread_key})).fetchone()


async def newest_run(conn: Connection, thread_key: str) -> Params | None:
    """The newest workflow of a thread."""
    return await (await conn.execute(NEWEST_RUN, {"thread_key": thread_key})).fetchone()


async def moved(conn: Connection, thread_key: str, graph: str, now: datetime | None) -> None:
    """Note that a run of `graph` begins."""
    await conn.execute(MOVED, {"thread_key": thread_key, "graph": graph, "now": now})
