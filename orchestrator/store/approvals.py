"""Approvals and votes: asked, shown, changed. The workflow's row is locked before any of these rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from orchestrator.core.actions import action_from
from orchestrator.core.model import Action
from orchestrator.store.db import Connection, Params
from orchestrator.store.parts import as_json

# How often these interrupts were asked before, and whether their last round still waits.
ASKED = """
SELECT interrupt_id, max(round) AS round, bool_or(state = 'pending') AS pending FROM keyturn.approvals
 WHERE workflow_id = %(workflow)s AND interrupt_id = ANY(%(interrupts)s) GROUP BY interrupt_id
"""

# All of a workflow's approvals, oldest first. `behind`: time, or a policy published meanwhile, has changed something of
# it that nobody has written down yet.
OF_WORKFLOW = """
SELECT a.*, w.graph, w.title,
       (a.state = 'pending' OR w.status NOT IN ('running', 'waiting'))
       AND a.wake_at <= coalesce(%(now)s::timestamptz, now())
       OR a.state = 'pending' AND a.kind = 'approval' AND a.policy_seen < n.policy_version AS behind
  FROM keyturn.approvals a JOIN keyturn.workflows w USING (workflow_id)
  LEFT JOIN keyturn.namespaces n ON n.namespace = a.namespace
 WHERE a.namespace = %(namespace)s AND a.workflow_id = %(workflow)s ORDER BY a.requested_at, a.interrupt_id, a.item
"""

# Which workflow an approval belongs to: the workflow's row is locked first.
WORKFLOW_OF = "SELECT workflow_id FROM keyturn.approvals WHERE namespace = %(namespace)s AND approval_id = %(approval)s"

# One approval, for showing; `behind` as above.
GET = """
SELECT a.*, w.graph, w.title, w.case_id,
       (a.state = 'pending' OR w.status NOT IN ('running', 'waiting'))
       AND a.wake_at <= coalesce(%(now)s::timestamptz, now())
       OR a.state = 'pending' AND a.kind = 'approval' AND a.policy_seen < n.policy_version AS behind
  FROM keyturn.approvals a JOIN keyturn.workflows w USING (workflow_id)
  LEFT JOIN keyturn.namespaces n ON n.namespace = a.namespace
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

# What waits in a case: urgent first, then by due time.
OF_CASE = """
SELECT a.*, w.graph, w.title, w.case_id, coalesce(%(now)s::timestamptz, now()) AS now
  FROM keyturn.workflows w JOIN keyturn.approvals a USING (workflow_id)
 WHERE w.namespace = %(namespace)s AND w.case_id = %(case)s AND a.state = 'pending'
 ORDER BY a.urgent DESC, a.due_at, a.approval_id LIMIT %(limit)s
"""

# The votes of some approvals, in the order they were cast.
VOTES = """
SELECT approval_id, revision, voter, acting_for, via, verdict, roles, justification, at, void_reason, superseded
  FROM keyturn.votes WHERE approval_id = ANY(%(approvals)s) ORDER BY vote_id
"""

# Their workflow ended: nothing of it can be decided any more. What they were until now is seen as of before.
CANCEL_PENDING = """
SELECT approval_id, a.state AS was
  FROM keyturn.cancel_approvals(%(workflow)s, %(by)s, coalesce(%(now)s::timestamptz, now())) AS c (approval_id)
  JOIN keyturn.approvals a USING (approval_id)
"""

# Workflows of which time has changed something that nobody has written down yet; an index probe when there is none. An
# approval lapses once no worker has its workflow and nothing else that it asks still waits: both end by themselves, so
# whatever is due is done with one day.
DUE = """
SELECT a.namespace, a.workflow_id FROM keyturn.approvals a JOIN keyturn.workflows w USING (workflow_id)
 WHERE a.wake_at <= coalesce(%(now)s::timestamptz, now())
   AND (a.state = 'pending' OR w.status NOT IN ('running', 'waiting'))
   AND a.workflow_id <> ALL (%(besides)s::text[])
 ORDER BY a.wake_at LIMIT %(limit)s
"""

# Workflows that ask for something policies published since may change; an index probe a namespace when there is none.
BEHIND = """
SELECT a.namespace, a.workflow_id
  FROM keyturn.namespaces n CROSS JOIN LATERAL (
       SELECT namespace, workflow_id FROM keyturn.approvals
        WHERE namespace = n.namespace AND state = 'pending' AND kind = 'approval' AND policy_seen < n.policy_version
          AND workflow_id <> ALL (%(besides)s::text[])
        LIMIT %(limit)s) AS a
 WHERE n.policy_version > 0 ORDER BY n.namespace LIMIT %(limit)s
"""

# One approval whole, with what rules see of its workflow. The workflow's row is locked.
WHOLE = """
SELECT a.*, w.graph, w.title, w.case_id, w.mode, w.input
  FROM keyturn.approvals a JOIN keyturn.workflows w USING (workflow_id) WHERE a.approval_id = %(approval)s
"""

# What may change of an approval besides votes and decisions, from a row as it was read.
PUT = """
UPDATE keyturn.approvals a
   SET state = p.state, revision = p.revision, action = p.action, digest = p.digest, description = p.description,
       last_editor = p.last_editor, risk_level = p.risk_level, reasons = p.reasons, route = p.route,
       confidence = p.confidence, urgent = p.urgent, policy = p.policy, policy_versions = p.policy_versions,
       policy_seen = p.policy_seen, requirement = p.requirement, roles = p.roles, terms = p.terms,
       volatile_fields = p.volatile_fields, approval_ttl = p.approval_ttl, due_at = p.due_at,
       expires_at = p.expires_at, escalate_at = p.escalate_at, escalated_at = p.escalated_at, remind_at = p.remind_at,
       asked = p.asked, asked_digest = p.asked_digest, tally = p.tally, flags = p.flags, bypassed = p.bypassed,
       broken_by = p.broken_by, review_by = p.review_by, reviewed_by = p.reviewed_by,
       reviewed_at = p.reviewed_at, review_told_at = p.review_told_at, revised_at = p.revised_at
  FROM json_populate_record(NULL::keyturn.approvals, %(row)s::json) AS p
 WHERE a.approval_id = p.approval_id
"""

# Whether anything that was approved in a workflow has run.
EXECUTED = """
SELECT EXISTS (SELECT FROM keyturn.approvals WHERE workflow_id = %(workflow)s AND state = 'executed') AS found
"""

# Ask for people to be told, in the transaction that is the reason for it.
NOTICES = """
SELECT keyturn.queue_notices(%(workflow)s, %(namespace)s, coalesce(%(now)s::timestamptz, now()), %(notices)s::json)
"""

# Reviews of break-glass whose time has passed and that nobody was reminded of.
REVIEWS_DUE = """
SELECT namespace, workflow_id, approval_id FROM keyturn.approvals
 WHERE reviewed_at IS NULL AND review_by IS NOT NULL AND review_by <= coalesce(%(now)s::timestamptz, now())
   AND review_told_at IS NULL
 ORDER BY review_by LIMIT %(limit)s
"""

# Whether a person owes a review whose time has passed.
OWES = """
SELECT approval_id FROM keyturn.approvals
 WHERE reviewed_at IS NULL AND review_by IS NOT NULL AND review_by <= coalesce(%(now)s::timestamptz, now())
   AND namespace = %(namespace)s AND broken_by = %(person)s
 ORDER BY review_by LIMIT 1
"""


async def asked(conn: Connection, workflow_id: str, interrupt_ids: Sequence[str]) -> list[Params]:
    """The last round of each of these interrupts that was asked before."""
    found = await conn.execute(ASKED, {"workflow": workflow_id, "interrupts": list(interrupt_ids)})
    return await found.fetchall()


async def of_workflow(conn: Connection, namespace: str, workflow_id: str, now: datetime | None) -> list[Params]:
    """All approvals of a workflow, oldest first."""
    row = {"namespace": namespace, "workflow": workflow_id, "now": now}
    return await (await conn.execute(OF_WORKFLOW, row)).fetchall()


async def workflow_of(conn: Connection, namespace: str, approval_id: str) -> str | None:
    """The workflow an approval belongs to; None when there is none in the namespace."""
    found = await (await conn.execute(WORKFLOW_OF, {"namespace": namespace, "approval": approval_id})).fetchone()
    return None if found is None else str(found["workflow_id"])


async def get(conn: Connection, namespace: str, approval_id: str, now: datetime | None) -> Params | None:
    """One approval with its workflow's graph and title."""
    row = {"namespace": namespace, "approval": approval_id, "now": now}
    return await (await conn.execute(GET, row)).fetchone()


async def pending(conn: Connection, filters: Params) -> list[Params]:
    """The queue."""
    return await (await conn.execute(PENDING, filters)).fetchall()


async def of_case(conn: Connection, namespace: str, case_id: str, now: datetime | None, limit: int) -> list[Params]:
    """What waits in a case, with its workflow's graph, title and case."""
    row = {"namespace": namespace, "case": case_id, "now": now, "limit": limit}
    return await (await conn.execute(OF_CASE, row)).fetchall()


async def votes(conn: Connection, approval_ids: Sequence[str]) -> list[Params]:
    """The votes of these approvals, superseded ones included."""
    return await (await conn.execute(VOTES, {"approvals": list(approval_ids)})).fetchall()


async def cancel_pending(conn: Connection, workflow_id: str, by: str, now: datetime | None) -> dict[str, str]:
    """Cancel what a workflow still asks; returns the ids, and the state that each was in."""
    found = await conn.execute(CANCEL_PENDING, {"workflow": workflow_id, "by": by, "now": now})
    return {str(row["approval_id"]): str(row["was"]) for row in await found.fetchall()}


async def due(conn: Connection, besides: Sequence[str], limit: int, now: datetime | None) -> list[Params]:
    """Namespace and id of workflows, besides some, that time has changed something of."""
    row = {"besides": list(besides), "limit": limit, "now": now}
    return await (await conn.execute(DUE, row)).fetchall()


async def behind(conn: Connection, besides: Sequence[str], limit: int) -> list[Params]:
    """Namespace and id of workflows, besides some, whose requests were not judged by the newest policies."""
    return await (await conn.execute(BEHIND, {"besides": list(besides), "limit": limit})).fetchall()


async def whole(conn: Connection, approval_id: str) -> Params:
    """One approval, all of it, and what rules see of its workflow."""
    found = await (await conn.execute(WHOLE, {"approval": approval_id})).fetchone()
    assert found is not None  # noqa: S101 its workflow is held and it was read before
    return found


def action_of(row: Params) -> Action:
    """The action an approval is for."""
    return action_from(row["action"])


def facts_of_workflow(row: Params) -> dict[str, object]:
    """What rules see as `workflow`, of a row that `whole` gave."""
    names = ("namespace", "graph", "node", "title", "case_id", "mode", "input")
    return {"id": row["workflow_id"], **{name: row[name] for name in names}}


async def put(conn: Connection, row: Params) -> None:
    """Write a row that `whole` gave and that was changed; its workflow is held, so nobody else has changed it."""
    unchanged = ("payload", "input", "question", "decision")
    await conn.execute(PUT, {"row": as_json({name: row[name] for name in row if name not in unchanged})})


async def queue_notices(
    conn: Connection, namespace: str, workflow_id: str, notices: Sequence[Mapping[str, object]], now: datetime | None
) -> None:
    """Ask for people to be told once this transaction has committed."""
    row = {"workflow": workflow_id, "namespace": namespace, "notices": as_json(list(notices)), "now": now}
    await conn.execute(NOTICES, row)


async def reviews_due(conn: Connection, limit: int, now: datetime | None) -> list[Params]:
    """Reviews that are outstanding past their time, and of which nobody was told."""
    return await (await conn.execute(REVIEWS_DUE, {"limit": limit, "now": now})).fetchall()


async def owes_review(conn: Connection, namespace: str, person: str, now: datetime | None) -> str | None:
    """The approval whose review this person owes past its time; None when there is none."""
    row = {"namespace": namespace, "person": person, "now": now}
    found = await (await conn.execute(OWES, row)).fetchone()
    return None if found is None else str(found["approval_id"])


async def any_executed(conn: Connection, workflow_id: str) -> bool:
    """Whether anything that was approved in a workflow has run."""
    row = await (await conn.execute(EXECUTED, {"workflow": workflow_id})).fetchone()
    return bool(row and row["found"])
