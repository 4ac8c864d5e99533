"""The workflow row: submit, claim, renew, and every guarded transition.

A worker's statements follow `hold`, which proves and locks its lease; everybody else's follow `lock`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.types.json import Json

from orchestrator.store.db import Connection, Params
from orchestrator.store.events import Event, columns
from orchestrator.store.parts import as_json

# New workflows, ready at once, each with the first event of its chain.
INSERT = """
WITH asked AS MATERIALIZED (
    SELECT r.*, keyturn.event_hash('', 1, r.at, r.type, r.actor, r.body) AS hash
      FROM json_to_recordset(%(rows)s::json) AS given (
           now timestamptz, workflow_id text, namespace text, graph text, graph_version text, title text, case_id text,
           mode text, input json, requester text, on_behalf_of text, launched_by text, priority smallint,
           deadline double precision, thread_key text, continues boolean, capture boolean, task boolean, type text,
           actor text, body text)
     CROSS JOIN LATERAL (SELECT given.*, coalesce(given.now, now()) AS at) AS r
), first AS (
    INSERT INTO keyturn.events (workflow_id, seq, namespace, at, type, actor, body, hash)
    SELECT workflow_id, 1, namespace, at, type, actor, body::json, hash FROM asked
)
INSERT INTO keyturn.workflows (workflow_id, namespace, graph, graph_version, title, case_id, mode, status, input,
    requester, on_behalf_of, launched_by, priority, created_at, updated_at, run_at, deadline_at, thread_key, continues,
    capture, task, last_seq, last_hash)
SELECT workflow_id, namespace, graph, graph_version, title, case_id, mode, 'ready', input, requester, on_behalf_of,
    launched_by, priority, at, at, at, at + make_interval(secs => deadline), thread_key,
    coalesce(continues, false), coalesce(capture, false), coalesce(task, false), 1, hash
  FROM asked
"""

# Claims without progress that make a workflow one that may be what kills workers.
SUSPECT_AFTER: Final = 2

# Claim what is due: ready, or running under a lease that ran out; of those that may be what kills workers, a worker has
# one at a time. A row is locked as it is now, but its decisions are read as of the beginning of the statement: where
# anything happened to it in between, which its epoch or its events tell, it is left for the next claim. Read are the
# decisions that no commit contains yet, and the approvals behind which nothing has run; what may have run under an
# approval while that was good is looked at however late.
CLAIM = """
WITH clock AS (SELECT coalesce(%(now)s::timestamptz, now()) AS now),
ready AS (
    SELECT workflow_id, priority, run_at, owner, epoch, last_seq FROM keyturn.workflows
     WHERE status = 'ready' AND run_at <= (SELECT now FROM clock) AND attempts < %(suspect_after)s
       AND graph = ANY(%(graphs)s)
     ORDER BY priority DESC, run_at LIMIT %(free)s FOR UPDATE SKIP LOCKED
), stranded AS (
    SELECT workflow_id, priority, run_at, owner, epoch, last_seq FROM keyturn.workflows
     WHERE status = 'running' AND lease_until < (SELECT now FROM clock) AND attempts < %(suspect_after)s
       AND graph = ANY(%(graphs)s)
     ORDER BY lease_until LIMIT %(free)s FOR UPDATE SKIP LOCKED
), ready_suspect AS (
    SELECT workflow_id, priority, run_at, owner, epoch, last_seq FROM keyturn.workflows
     WHERE status = 'ready' AND run_at <= (SELECT now FROM clock) AND attempts >= %(suspect_after)s
       AND graph = ANY(%(graphs)s)
     ORDER BY priority DESC, run_at LIMIT %(suspects)s FOR UPDATE SKIP LOCKED
), stranded_suspect AS (
    SELECT workflow_id, priority, run_at, owner, epoch, last_seq FROM keyturn.workflows
     WHERE status = 'running' AND lease_until < (SELECT now FROM clock) AND attempts >= %(suspect_after)s
       AND graph = ANY(%(graphs)s)
     ORDER BY lease_until LIMIT %(suspects)s FOR UPDATE SKIP LOCKED
), suspect AS (
    SELECT * FROM (SELECT * FROM ready_suspect UNION ALL SELECT * FROM stranded_suspect) s
     ORDER BY run_at LIMIT %(suspects)s
), chosen AS (
    SELECT workflow_id, owner, epoch, last_seq
      FROM (SELECT * FROM stranded UNION ALL SELECT * FROM suspect UNION ALL SELECT * FROM ready) d
     ORDER BY priority DESC, run_at LIMIT %(free)s
)
UPDATE keyturn.workflows w
   SET status = 'running', owner = %(owner)s, lease_until = clock.now + make_interval(secs => %(lease)s),
       epoch = w.epoch + 1, attempts = w.attempts + 1, reason = NULL, updated_at = clock.now
  FROM chosen, clock
 WHERE w.workflow_id = chosen.workflow_id AND (w.epoch, w.last_seq) = (chosen.epoch, chosen.last_seq)
RETURNING w.workflow_id, w.namespace, w.graph, w.graph_version, w.epoch, w.attempts, w.input, w.checkpointed, w.mode,
    w.thread_key, w.continues, w.title, w.case_id, w.requester, w.on_behalf_of, w.launched_by,
    chosen.owner AS taken_from, clock.now AS claimed_at,
    (SELECT json_build_array(n.policy_version, n.people_version) FROM keyturn.namespaces n
      WHERE n.namespace = w.namespace) AS known,
    ARRAY(SELECT role FROM keyturn.role_bindings r WHERE r.namespace = w.namespace AND r.person = w.requester) AS roles,
    (SELECT json_agg(json_build_object('approval_id', a.approval_id, 'interrupt_id', a.interrupt_id, 'item', a.item,
                'node', a.node, 'nth', a.round,
                'of', (SELECT count(*) FROM keyturn.approvals b WHERE b.workflow_id = a.workflow_id
                          AND b.interrupt_id = a.interrupt_id AND b.round = a.round),
                'kind', a.kind, 'dialect', a.dialect, 'payload', a.payload, 'allowed', a.allowed,
                'action', a.action, 'digest', a.digest, 'asked_digest', a.asked_digest, 'revision', a.revision,
                'volatile_fields', a.volatile_fields, 'decision', a.decision, 'state', a.state,
                'lapsed', a.state = 'approved' AND a.lapses_at <= clock.now
                          AND NOT EXISTS (SELECT FROM keyturn.effects e
                                           WHERE e.approval_id = a.approval_id AND e.state = 'started'),
                'policy', a.policy, 'flags', a.flags, 'freeze', a.terms -> 'freeze',
                'recheck', (a.terms ->> 'recheck_at_execution')::boolean
                           AND NOT EXISTS (SELECT FROM keyturn.effects e
                                            WHERE e.approval_id = a.approval_id AND e.state = 'started'),
                'delivered', a.delivered_at IS NOT NULL)
              ORDER BY a.interrupt_id, a.item)
       FROM keyturn.approvals a
      WHERE a.workflow_id = w.workflow_id
        AND (a.delivered_at IS NULL AND a.state IN ('approved', 'executed', 'rejected', 'answered')
             OR a.delivered_at IS NOT NULL AND a.kind = 'approval' AND a.state IN ('approved', 'lapsed', 'stale')
                AND a.begun_at IS NULL
                AND NOT EXISTS (SELECT FROM keyturn.effects e WHERE e.approval_id = a.approval_id))) AS decided
"""

# One claimer at a time for graphs with a limit on running workflows, so that counting and claiming are one step. Nobody
# waits for another one: it may have been stopped in the middle.
LOCK_LIMITED = "SELECT pg_try_advisory_xact_lock(hashtextextended('keyturn.limited', 0)) AS free"

# How many of a graph's workflows run now, everywhere.
COUNT_RUNNING = """
SELECT graph, count(*)::int AS running FROM keyturn.workflows
 WHERE status = 'running' AND graph = ANY(%(graphs)s) AND lease_until >= coalesce(%(now)s::timestamptz, now())
 GROUP BY graph
"""

# Renew every lease a worker holds; a row that does not come back is lost.
RENEW = """
UPDATE keyturn.workflows w
   SET lease_until = coalesce(%(now)s::timestamptz, now()) + make_interval(secs => %(lease)s)
  FROM unnest(%(ids)s::text[], %(epochs)s::bigint[]) AS held (id, epoch)
 WHERE w.workflow_id = held.id AND w.epoch = held.epoch AND w.status = 'running'
RETURNING w.workflow_id
"""

# Prove the lease and hold the row for the rest of the transaction.
HOLD = "SELECT keyturn.hold_lease(%(workflow)s, %(epoch)s)"

# The row, locked, for a transition from outside.
LOCK = """
SELECT *, coalesce(%(now)s::timestamptz, now()) AS now FROM keyturn.workflows
 WHERE namespace = %(namespace)s AND workflow_id = %(workflow)s FOR UPDATE
"""

# Which version the row is, as whoever holds it has left it.
VERSION = "SELECT xmin::text AS version FROM keyturn.workflows WHERE workflow_id = %(workflow)s"

# A transition from outside; the epoch rises, so whoever held the row is fenced out.
MOVE = """
UPDATE keyturn.workflows
   SET status = %(status)s, reason = %(reason)s, error = %(error)s, epoch = epoch + 1, attempts = 0,
       owner = NULL, lease_until = NULL,
       run_at = coalesce(%(now)s::timestamptz, now()), updated_at = coalesce(%(now)s::timestamptz, now()),
       finished_at = CASE WHEN %(finished)s THEN coalesce(%(now)s::timestamptz, now()) END
 WHERE workflow_id = %(workflow)s
"""

# The row, for showing.
GET = "SELECT * FROM keyturn.workflows WHERE namespace = %(namespace)s AND workflow_id = %(workflow)s"

# One page, newest first; filters that are null do not apply.
PAGE = """
SELECT workflow_id, graph, title, status, reason, risk_level, node, case_id, requester, created_at, updated_at,
       finished_at
  FROM keyturn.workflows
 WHERE namespace = %(namespace)s
   AND (%(status)s::text IS NULL OR status = %(status)s)
   AND (%(graph)s::text IS NULL OR graph = %(graph)s)
   AND (%(case_id)s::text IS NULL OR case_id = %(case_id)s)
   AND (%(risk)s::text IS NULL OR risk_level = %(risk)s)
   AND (%(q)s::text IS NULL OR strpos(lower(title), lower(%(q)s)) > 0 OR workflow_id = %(q)s)
   AND (%(before_at)s::timestamptz IS NULL
        OR (created_at, workflow_id) < (%(before_at)s::timestamptz, %(before_id)s::text))
 ORDER BY created_at DESC, workflow_id DESC LIMIT %(limit)s
"""

# Workflows whose total time-out has passed.
OVERDUE = """
SELECT workflow_id, namespace FROM keyturn.workflows
 WHERE deadline_at IS NOT NULL AND status IN ('ready', 'running', 'waiting')
   AND deadline_at <= coalesce(%(now)s::timestamptz, now())
 ORDER BY deadline_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""

# One index probe a second: whether any total time-out has passed.
ANY_OVERDUE = """
SELECT EXISTS (SELECT 1 FROM keyturn.workflows
                WHERE deadline_at IS NOT NULL AND status IN ('ready', 'running', 'waiting')
                  AND deadline_at <= coalesce(%(now)s::timestamptz, now())) AS found
"""


@dataclass(frozen=True, slots=True)
class NewWorkflow:
    """A workflow to be inserted, and the first event of its chain. Its `deadline` is seconds or None."""

    row: Params
    first: Event


async def insert(conn: Connection, asked: Sequence[NewWorkflow], *, wait: bool = True) -> list[bool | None]:
    """Insert workflows. There is nothing to `wait` for: nobody has their rows yet."""
    del wait
    rows = [
        {**one.row, "type": one.first.type, "actor": one.first.actor, "body": columns([one.first])["bodies"][0]}
        for one in asked
    ]
    await conn.execute(INSERT, {"rows": as_json(rows)})
    return [True] * len(rows)


async def claim(conn: Connection, params: Params) -> list[Params]:
    """Claim up to `free` workflows of `graphs` for `owner`, of those at most `suspects` doubtful ones."""
    return await (await conn.execute(CLAIM, {**params, "suspect_after": SUSPECT_AFTER})).fetchall()


async def lock_limited(conn: Connection) -> bool:
    """Whether no other worker is claiming graphs with a limit; none will until the transaction ends."""
    found = await (await conn.execute(LOCK_LIMITED)).fetchone()
    return bool(found and found["free"])


async def count_running(conn: Connection, graphs: Sequence[str], now: datetime | None) -> dict[str, int]:
    """How many workflows of each graph hold a live lease."""
    rows = await (await conn.execute(COUNT_RUNNING, {"graphs": list(graphs), "now": now})).fetchall()
    return {row["graph"]: row["running"] for row in rows}


async def renew(
    conn: Connection, held: Sequence[tuple[str, int]], lease_seconds: float, now: datetime | None
) -> set[str]:
    """Renew these (workflow, epoch) leases; returns the ids still held."""
    found = await conn.execute(
        RENEW,
        {"ids": [one[0] for one in held], "epochs": [one[1] for one in held], "lease": lease_seconds, "now": now},
    )
    return {row["workflow_id"] for row in await found.fetchall()}


async def hold(conn: Connection, workflow_id: str, epoch: int) -> None:
    """Prove and lock the lease; the transaction fails with LeaseLost when it is gone. Nothing is read back."""
    await conn.execute(HOLD, {"workflow": workflow_id, "epoch": epoch})


async def version(conn: Connection, workflow_id: str) -> str:
    """The version of a row that this transaction holds."""
    found = await (await conn.execute(VERSION, {"workflow": workflow_id})).fetchone()
    assert found is not None  # noqa: S101 the row is held
    return str(found["version"])


async def lock(conn: Connection, namespace: str, workflow_id: str, now: datetime | None) -> Params | None:
    """The row with the present time as `now`, locked; None when there is none in the namespace."""
    found = await conn.execute(LOCK, {"namespace": namespace, "workflow": workflow_id, "now": now})
    return await found.fetchone()


async def move(conn: Connection, row: Params) -> None:
    """Change the status from outside. Follows `lock`."""
    error = row.get("error")
    await conn.execute(MOVE, {**row, "error": None if error is None else Json(error)})


async def get(conn: Connection, namespace: str, workflow_id: str) -> Params | None:
    """The row; None when there is none in the namespace."""
    return await (await conn.execute(GET, {"namespace": namespace, "workflow": workflow_id})).fetchone()


async def page(conn: Connection, filters: Params) -> list[Params]:
    """One page of summaries."""
    return await (await conn.execute(PAGE, filters)).fetchall()


async def overdue(conn: Connection, limit: int, now: datetime | None) -> list[Params]:
    """Workflows past their total time-out, locked; others' locked rows are skipped."""
    return await (await conn.execute(OVERDUE, {"limit": limit, "now": now})).fetchall()


async def any_overdue(conn: Connection, now: datetime | None) -> bool:
    """Whether `overdue` would find anything."""
    found = await (await conn.execute(ANY_OVERDUE, {"now": now})).fetchone()
    return bool(found and found["found"])


PRESENT = "SELECT coalesce(%(now)s::timestamptz, now()) AS now"


async def present(conn: Connection, now: datetime | None) -> datetime:
    """The present time on the one clock."""
    found = await (await conn.execute(PRESENT, {"now": now})).fetchone()
    assert found is not None  # noqa: S101 a SELECT without a table gives one row
    return found["now"]
