"""Approvals and votes: asked, shown, expired. The workflow's row is locked before any of these rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from orchestrator.store.db import Connection, Params

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

# Their workflow ended: nothing of it can be decided any more.
CANCEL_PENDING = """
SELECT approval_id
  FROM keyturn.cancel_approvals(%(workflow)s, %(by)s, coalesce(%(now)s::timestamptz, now())) AS c (approval_id)
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


async def cancel_pending(conn: Connection, workflow_id: str, by: str, now: datetime | None) -> list[str]:
    """Cancel what a workflow still asks; returns the ids."""
    found = await conn.execute(CANCEL_PENDING, {"workflow": workflow_id, "by": by, "now": now})
    return [row["approval_id"] for row in await found.fetchall()]


async def expired(conn: Connection, limit: int, now: datetime | None) -> list[Params]:
    """Namespace and id of workflows with a pending request whose time has passed."""
    return await (await conn.execute(EXPIRED, {"limit": limit, "now": now})).fetchall()


async def expire(conn: Connection, workflow_id: str, now: datetime | None) -> list[str]:
    """End a workflow's requests whose time has passed; returns their ids."""
    found = await conn.execute(EXPIRE, {"workflow": workflow_id, "now": now})
    return [row["approval_id"] for row in await found.fetchall()]
