"""Sessions: the rows of `threads` of that kind, each with its newest run, and what was said in them.

A session's row is locked before the rows of its workflows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from orchestrator.store.db import Connection, Params

# One person's sessions are counted and begun by one transaction at a time.
TURN = "SELECT pg_advisory_xact_lock(hashtextextended('keyturn.sessions ' || %(namespace)s || ' ' || %(person)s, 0))"

# A new session; nobody needs to look whether it is idle before its time.
INSERT = """
INSERT INTO keyturn.threads (thread_key, namespace, thread_id, kind, graph, person, mode, title, case_id, idle_seconds,
                             idle_at, created_at, updated_at)
SELECT %(thread_key)s, %(namespace)s, %(session)s, 'session', %(graph)s, %(person)s, %(mode)s, %(title)s, %(case_id)s,
       %(idle)s, now + make_interval(secs => %(idle)s), now, now
  FROM (SELECT coalesce(%(now)s::timestamptz, now()) AS now) c
"""

# A session and its newest run.
_WITH_RUN = """
SELECT t.thread_key, t.namespace, t.thread_id, t.graph, t.person, t.mode, t.title, t.case_id, t.idle_seconds,
       t.ended_at, t.ended_reason, t.created_at, t.updated_at, r.workflow_id, r.status, r.run_at, r.error,
       coalesce(%(now)s::timestamptz, now()) AS now
  FROM keyturn.threads t LEFT JOIN LATERAL (
       SELECT workflow_id, status, updated_at AS run_at, error FROM keyturn.workflows
        WHERE thread_key = t.thread_key ORDER BY created_at DESC, workflow_id DESC LIMIT 1) r ON true
"""

# One session.
GET = f"{_WITH_RUN} WHERE t.namespace = %(namespace)s AND t.thread_id = %(session)s AND t.kind = 'session'"

# The same, locked; its runs are read by the next statement, as they are once nobody can begin another.
LOCK = """
SELECT thread_key FROM keyturn.threads
 WHERE namespace = %(namespace)s AND thread_id = %(session)s AND kind = 'session' FOR UPDATE
"""

# A person's sessions that nobody has ended, oldest first.
OPEN = f"""{_WITH_RUN}
 WHERE t.namespace = %(namespace)s AND t.person = %(person)s AND t.kind = 'session' AND t.ended_at IS NULL
 ORDER BY t.created_at, t.thread_key
"""

# A person's ended sessions, newest first.
ENDED = f"""{_WITH_RUN}
 WHERE t.namespace = %(namespace)s AND t.person = %(person)s AND t.kind = 'session' AND t.ended_at IS NOT NULL
   AND (%(before_at)s::timestamptz IS NULL
        OR (t.created_at, t.thread_key) < (%(before_at)s::timestamptz, %(before_key)s::text))
 ORDER BY t.created_at DESC, t.thread_key DESC LIMIT %(limit)s
"""

# Sessions that may be idle by now, locked; an index probe when there is none. Others' locked rows are skipped: who has
# one is doing something in it.
DUE = f"""{_WITH_RUN}
 WHERE t.kind = 'session' AND t.ended_at IS NULL AND t.idle_at <= coalesce(%(now)s::timestamptz, now())
 ORDER BY t.idle_at LIMIT %(limit)s FOR UPDATE OF t SKIP LOCKED
"""

# They end at that instant, or are looked at again then.
SETTLE = """
UPDATE keyturn.threads t
   SET ended_at = p.ended_at, ended_reason = CASE WHEN p.ended_at IS NOT NULL THEN %(reason)s END,
       idle_at = coalesce(p.look_at, t.idle_at)
  FROM unnest(%(keys)s::text[], %(ended)s::timestamptz[], %(looks)s::timestamptz[]) AS p (thread_key, ended_at, look_at)
 WHERE t.thread_key = p.thread_key AND t.ended_at IS NULL
"""

# What was said and decided on a thread, and what came of it: its runs in their order, of each the events that tell of
# that. Of a conversation only what the run has added to it is read: what comes after the user's own message.
HISTORY = """
SELECT w.workflow_id, w.graph, e.seq, e.at, e.type, e.actor, e.body,
       a.kind, a.decision, a.action, a.payload, a.revision,
       CASE WHEN e.type = 'workflow-submitted' THEN w.input END AS input,
       CASE WHEN e.type = 'workflow-completed' AND NOT c.talks THEN w.result END AS result,
       CASE WHEN e.type = 'workflow-completed' AND c.talks THEN w.result::jsonb - 'messages' END AS besides,
       CASE WHEN e.type = 'workflow-completed' AND c.talks THEN (
           SELECT json_agg(m.value ORDER BY m.n) FILTER (WHERE m.value ->> 'type' <> 'human' AND m.n > m.begins)
             FROM (SELECT value, n, coalesce(
                          max(n) FILTER (WHERE value ->> 'id' = w.input -> 'messages' -> -1 ->> 'id') OVER (),
                          max(n) FILTER (WHERE value ->> 'type' = 'human') OVER (), 0) AS begins
                     FROM json_array_elements(w.result -> 'messages') WITH ORDINALITY AS v (value, n)
                    WHERE json_typeof(value) = 'object') m) END AS replies
  FROM keyturn.workflows w
 CROSS JOIN LATERAL (
       SELECT seq, at, type, actor, body FROM keyturn.events
        WHERE workflow_id = w.workflow_id AND type = ANY (%(types)s)
          AND seq > CASE WHEN w.workflow_id = %(after_run)s THEN %(after_seq)s ELSE 0 END
        ORDER BY seq LIMIT %(limit)s) e
 CROSS JOIN LATERAL (SELECT coalesce(json_typeof(w.result -> 'messages') = 'array', false) AS talks) c
  LEFT JOIN keyturn.approvals a ON e.type = 'confirmation-resolved' AND a.approval_id = e.body ->> 'request_id'
 WHERE w.thread_key = %(thread)s
   AND (%(after_run)s::text IS NULL OR (w.created_at, w.workflow_id) >= (
        SELECT created_at, workflow_id FROM keyturn.workflows WHERE workflow_id = %(after_run)s))
 ORDER BY w.created_at, w.workflow_id, e.seq LIMIT %(limit)s
"""

# Whether a workflow is a run of this thread.
IS_RUN = """
SELECT EXISTS (SELECT FROM keyturn.workflows WHERE workflow_id = %(workflow)s AND thread_key = %(thread)s) AS found
"""


async def take_turn(conn: Connection, namespace: str, person: str) -> None:
    """Wait until nobody else begins a session for this person; nobody will until the transaction ends."""
    await conn.execute(TURN, {"namespace": namespace, "person": person})


async def insert(conn: Connection, row: Params) -> None:
    """A new session."""
    await conn.execute(INSERT, row)


async def get(conn: Connection, namespace: str, session_id: str, now: datetime | None) -> Params | None:
    """A session with its newest run and the present time as `now`; None when there is none in the namespace."""
    row = {"namespace": namespace, "session": session_id, "now": now}
    return await (await conn.execute(GET, row)).fetchone()


async def lock(conn: Connection, namespace: str, session_id: str, now: datetime | None) -> Params | None:
    """The same, and nobody else begins a run in it or ends it until the transaction ends."""
    found = await conn.execute(LOCK, {"namespace": namespace, "session": session_id})
    return await get(conn, namespace, session_id, now) if await found.fetchone() is not None else None


async def still_open(conn: Connection, namespace: str, person: str, now: datetime | None) -> list[Params]:
    """A person's sessions that are not marked as ended, oldest first."""
    return await (await conn.execute(OPEN, {"namespace": namespace, "person": person, "now": now})).fetchall()


async def ended(conn: Connection, filters: Params) -> list[Params]:
    """A page of a person's ended sessions."""
    return await (await conn.execute(ENDED, filters)).fetchall()


async def due(conn: Connection, limit: int, now: datetime | None) -> list[Params]:
    """Sessions that may be idle by now, locked."""
    return await (await conn.execute(DUE, {"limit": limit, "now": now})).fetchall()


async def settle(conn: Connection, found: Sequence[tuple[str, datetime | None, datetime | None]], reason: str) -> None:
    """Of each key: end it at the first instant, or look again at the second."""
    if found:
        keys, ends, looks = (list(one) for one in zip(*found, strict=True))
        await conn.execute(SETTLE, {"keys": keys, "ended": ends, "looks": looks, "reason": reason})


async def history(conn: Connection, filters: Params) -> list[Params]:
    """What was said on a thread, in order."""
    return await (await conn.execute(HISTORY, filters)).fetchall()


async def is_run(conn: Connection, workflow_id: str, thread_key: str) -> bool:
    """Whether a workflow is a run of this thread."""
    row = await (await conn.execute(IS_RUN, {"workflow": workflow_id, "thread": thread_key})).fetchone()
    return bool(row and row["found"])
