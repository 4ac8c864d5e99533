"""Runs as the LangGraph API counts them: one for each input and one for each resume of a thread.

A run is a stretch of its workflow's events: those behind `after_seq`, up to where the next one begins.
"""

from __future__ import annotations

from psycopg.types.json import Json

from orchestrator.store.db import Connection, Params

INSERT = """
INSERT INTO keyturn.runs (run_id, namespace, thread_key, workflow_id, after_seq, created_at, metadata, kwargs)
VALUES (%(run_id)s, %(namespace)s, %(thread_key)s, %(workflow_id)s, %(after_seq)s,
        coalesce(%(now)s::timestamptz, now()), %(metadata)s, %(kwargs)s)
"""

# The runs of a thread, newest first. A workflow that was begun otherwise is one run, under its own name.
OF_THREAD = """
SELECT coalesce(r.run_id, w.workflow_id) AS run_id, w.workflow_id, w.graph, w.status, w.reason, w.error,
       coalesce(r.after_seq, 0) AS after_seq, coalesce(r.created_at, w.created_at) AS created_at, w.updated_at,
       coalesce(r.metadata, '{}') AS metadata, coalesce(r.kwargs, '{}') AS kwargs,
       (SELECT min(n.after_seq) FROM keyturn.runs n
         WHERE n.workflow_id = w.workflow_id AND n.after_seq > coalesce(r.after_seq, 0)) AS until_seq
  FROM (SELECT * FROM keyturn.workflows WHERE namespace = %(namespace)s AND thread_key = %(thread_key)s
        UNION ALL
        SELECT * FROM keyturn.workflows
         WHERE namespace = %(namespace)s AND workflow_id = %(thread_key)s AND thread_key IS NULL) AS w
  LEFT JOIN keyturn.runs r ON r.workflow_id = w.workflow_id
 WHERE %(run_id)s::text IS NULL OR coalesce(r.run_id, w.workflow_id) = %(run_id)s
 ORDER BY coalesce(r.created_at, w.created_at) DESC, coalesce(r.after_seq, 0) DESC
"""


async def insert(conn: Connection, row: Params) -> None:
    """A new run."""
    await conn.execute(INSERT, {**row, "metadata": Json(row["metadata"]), "kwargs": Json(row["kwargs"])})


async def of_thread(conn: Connection, namespace: str, thread_key: str, run_id: str | None = None) -> list[Params]:
    """The runs of a thread, newest first, or the one of this id."""
    wanted = {"namespace": namespace, "thread_key": thread_key, "run_id": run_id}
    return await (await conn.execute(OF_THREAD, wanted)).fetchall()
