"""Approvals and votes: asked, decided, delivered, executed. The workflow's row is locked before any of these rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Json

from orchestrator.store.db import Connection, Params
from orchestrator.store.workflows import LOCK

# How often these interrupts were asked before, and whether their last round still waits.
ASKED = """
SELECT interrupt_id, max(round) AS round, bool_or(state = 'pending') AS pending FROM keyturn.approvals
 WHERE workflow_id = %(workflow)s AND interrupt_id = ANY(%(interrupts)s) GROUP BY interrupt_id
"""

# All of a workflow's approvals, oldest first.
OF_WORKFLOW = """
SELECT a.*, w.graph, w.title FROM keyturn.approvals a JOIN keyturn.workflows w USING (workflow_id)
 WHERE a.namespace = %(namespace)s AND a.workflow_id = %(workflow)s ORDER BY a.requested_at, a.interrupt_id, a.item
"""

# The same, locked in the order everybody locks them.
LOCK_OF_WORKFLOW = """
SELECT * FROM keyturn.approvals WHERE namespace = %(namespace)s AND workflow_id = %(workflow)s
 ORDER BY approval_id FOR UPDATE
"""

# Which workflow an approval belongs to: the workflow's row is locked first.
WORKFLOW_OF = "SELECT workflow_id FROM keyturn.approvals WHERE namespace = %(namespace)s AND approval_id = %(approval)s"

# One approval, for showing.
GET = """
SELECT a.*, w.graph, w.title FROM keyturn.approvals a JOIN keyturn.workflows w USING (workflow_id)
 WHERE a.namespace = %(namespace)s AND a.approval_id = %(approval)s
"""

# The queue: urgent first, then by due time. Filters that are null do not apply.
PENDING = """
SELECT a.*, w.graph, w.title, coalesce(%(now)s::timestamptz, now()) AS now
  FROM keyturn.approvals a JOIN keyturn.workflows w USING (workflow_id)
 WHERE a.namespace = %(namespace)s AND a.state = 'pending'
   AND (%(risk)s::text IS NULL OR a.risk_level = %(risk)s)
   AND (%(route)s::text IS NULL OR a.route = %(route)s)
   AND (%(roles)s::text[] IS NULL OR a.roles && %(roles)s OR (a.roles = '{}' AND %(not_self)s::text IS NOT NULL))
   AND (%(not_self)s::text IS NULL OR a.kind = 'question'
        OR %(not_self)s <> ALL (array_remove(ARRAY[a.requester, a.on_behalf_of, a.launched_by, a.last_editor], NULL)))
 ORDER BY a.urgent DESC, a.due_at, a.approval_id LIMIT %(limit)s
"""

# The votes of some approvals, in the order they were cast.
VOTES = """
SELECT approval_id, revision, voter, acting_for, via, verdict, roles, justification, at, void_reason, superseded
  FROM keyturn.votes WHERE approval_id = ANY(%(approvals)s) ORDER BY vote_id
"""

# All votes on what a workflow asked, and the roles that their voters and some more people hold at this instant.
VOTES_OF_WORKFLOW = """
SELECT v.approval_id, v.revision, v.voter, v.acting_for, v.via, v.verdict, v.roles, v.justification, v.at,
       v.void_reason, v.superseded
  FROM keyturn.votes v JOIN keyturn.approvals a USING (approval_id)
 WHERE a.workflow_id = %(workflow)s ORDER BY v.vote_id
"""
ROLES_OF_VOTERS = """
SELECT person, role FROM keyturn.role_bindings
 WHERE namespace = %(namespace)s
   AND (person = ANY(%(people)s)
        OR person IN (SELECT coalesce(v.acting_for, v.voter)
                        FROM keyturn.votes v JOIN keyturn.approvals a USING (approval_id)
                       WHERE a.workflow_id = %(workflow)s))
"""

# A changed mind: the earlier vote of the same person on the same revision no longer counts.
SUPERSEDE = """
UPDATE keyturn.votes SET superseded = true
 WHERE approval_id = %(approval_id)s AND revision = %(revision)s AND voter = %(voter)s AND NOT superseded
"""

INSERT_VOTE = """
INSERT INTO keyturn.votes (namespace, approval_id, revision, voter, via, verdict, roles, justification, at)
VALUES (%(namespace)s, %(approval_id)s, %(revision)s, %(voter)s, %(via)s, %(verdict)s, %(roles)s, %(justification)s,
        coalesce(%(now)s::timestamptz, now()))
"""

# The one transition of a request.
RESOLVE = """
UPDATE keyturn.approvals
   SET state = %(state)s, decision = %(decision)s, resolved_by = %(by)s,
       resolved_at = coalesce(%(now)s::timestamptz, now()),
       lapses_at = CASE WHEN %(state)s = 'approved'
                        THEN coalesce(%(now)s::timestamptz, now()) + approval_ttl END
 WHERE approval_id = %(approval)s AND state = 'pending'
"""

# Their workflow ended: nothing of it can be decided any more.
CANCEL_PENDING = """
UPDATE keyturn.approvals SET state = 'cancelled',
       resolved_by = CASE WHEN state = 'pending' THEN %(by)s ELSE resolved_by END,
       resolved_at = CASE WHEN state = 'pending' THEN coalesce(%(now)s::timestamptz, now()) ELSE resolved_at END
 WHERE workflow_id = %(workflow)s AND (state = 'pending' OR state = 'approved' AND delivered_at IS NULL)
RETURNING approval_id
"""

# Requests of one pause run together, so the life of each approval begins when the last of them is decided.
BEGIN_LIVES = """
UPDATE keyturn.approvals SET lapses_at = coalesce(%(now)s::timestamptz, now()) + approval_ttl
 WHERE workflow_id = %(workflow)s AND state = 'approved' AND delivered_at IS NULL
"""

# Workflows with a pending request whose time has passed; an index probe when there is none.
EXPIRED = """
SELECT DISTINCT namespace, workflow_id FROM (
    SELECT namespace, workflow_id FROM keyturn.approvals
     WHERE state = 'pending' AND expires_at <= coalesce(%(now)s::timestamptz, now())
     ORDER BY expires_at LIMIT %(limit)s
) AS due
"""

# Their requests, ended. The workflow's row is locked.
EXPIRE = """
UPDATE keyturn.approvals SET state = 'expired', resolved_by = 'keyturn',
       resolved_at = coalesce(%(now)s::timestamptz, now())
 WHERE workflow_id = %(workflow)s AND state = 'pending' AND expires_at <= coalesce(%(now)s::timestamptz, now())
RETURNING approval_id
"""


async def asked(conn: Connection, workflow_id: str, interrupt_ids: Sequence[str]) -> list[Params]:
    """The last round of each of these interrupts that was asked before."""
    found = await conn.execute(ASKED, {"workflow": workflow_id, "interrupts": list(interrupt_ids)})
    return await found.fetchall()


async def of_workflow(conn: Connection, namespace: str, workflow_id: str) -> list[Params]:
    """All approvals of a workflow, oldest first."""
    return await (await conn.execute(OF_WORKFLOW, {"namespace": namespace, "workflow": workflow_id})).fetchall()


@dataclass(frozen=True, slots=True)
class Locked:
    """A workflow's row and its approvals, locked, with all their votes and the roles of those who count."""

    workflow: Params
    approvals: list[Params]
    votes: list[Params]
    roles: Mapping[str, frozenset[str]]


async def lock_for_decision(
    conn: Connection, namespace: str, workflow_id: str, people: Sequence[str], now: datetime | None
) -> Locked | None:
    """Lock a workflow, then its approvals by id, and read what a decision is judged on; None when it is not there.

    In a pipeline the four statements are one round trip. Each sees what was committed when its turn came, so the
    later ones see everything up to the lock.
    """
    key = {"namespace": namespace, "workflow": workflow_id}
    locked = await conn.execute(LOCK, {**key, "now": now})
    asked = await conn.execute(LOCK_OF_WORKFLOW, key)
    cast_so_far = await conn.execute(VOTES_OF_WORKFLOW, key)
    held = await conn.execute(ROLES_OF_VOTERS, {**key, "people": list(people)})
    workflow = await locked.fetchone()
    if workflow is None:
        return None
    roles: dict[str, set[str]] = {}
    for row in await held.fetchall():
        roles.setdefault(row["person"], set()).add(row["role"])
    return Locked(
        workflow,
        await asked.fetchall(),
        await cast_so_far.fetchall(),
        {person: frozenset(names) for person, names in roles.items()},
    )


async def workflow_of(conn: Connection, namespace: str, approval_id: str) -> str | None:
    """The workflow an approval belongs to; None when there is none in the namespace."""
    found = await (await conn.execute(WORKFLOW_OF, {"namespace": namespace, "approval": approval_id})).fetchone()
    return None if found is None else str(found["workflow_id"])


async def get(conn: Connection, namespace: str, approval_id: str) -> Params | None:
    """One approval with its workflow's graph and title."""
    return await (await conn.execute(GET, {"namespace": namespace, "approval": approval_id})).fetchone()


async def pending(conn: Connection, filters: Params) -> list[Params]:
    """The queue."""
    return await (await conn.execute(PENDING, filters)).fetchall()


async def votes(conn: Connection, approval_ids: Sequence[str]) -> list[Params]:
    """The votes of these approvals, superseded ones included."""
    return await (await conn.execute(VOTES, {"approvals": list(approval_ids)})).fetchall()


async def insert_vote(conn: Connection, row: Params, *, replaces: bool) -> None:
    """Record a vote; `replaces` says that the same person has voted on this revision before."""
    if replaces:
        await conn.execute(SUPERSEDE, row)
    await conn.execute(INSERT_VOTE, row)


async def resolve(
    conn: Connection, approval_id: str, *, state: str, by: str, decision: object, now: datetime | None
) -> None:
    """End a pending request; what has ended already is left as it is."""
    await conn.execute(
        RESOLVE, {"approval": approval_id, "state": state, "by": by, "decision": Json(decision), "now": now}
    )


async def cancel_pending(conn: Connection, workflow_id: str, by: str, now: datetime | None) -> list[str]:
    """Cancel what a workflow still asks; returns the ids."""
    found = await conn.execute(CANCEL_PENDING, {"workflow": workflow_id, "by": by, "now": now})
    return [row["approval_id"] for row in await found.fetchall()]


async def begin_lives(conn: Connection, workflow_id: str, now: datetime | None) -> None:
    """Let the approvals that nothing was done with yet be good from now on."""
    await conn.execute(BEGIN_LIVES, {"workflow": workflow_id, "now": now})


async def expired(conn: Connection, limit: int, now: datetime | None) -> list[Params]:
    """Namespace and id of workflows with a pending request whose time has passed."""
    return await (await conn.execute(EXPIRED, {"limit": limit, "now": now})).fetchall()


async def expire(conn: Connection, workflow_id: str, now: datetime | None) -> list[str]:
    """End a workflow's requests whose time has passed; returns their ids."""
    found = await conn.execute(EXPIRE, {"workflow": workflow_id, "now": now})
    return [row["approval_id"] for row in await found.fetchall()]
