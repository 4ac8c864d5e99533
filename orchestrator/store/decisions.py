"""One decision: what it is judged on, read under the locks, and all that follows from it, written by one statement.

The lock order is the workflow, then its approvals by id, then votes; only whoever holds the workflow casts one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.store import events
from orchestrator.store.db import Connection, Params
from orchestrator.store.events import Event
from orchestrator.store.parts import as_parts

# The workflow, locked.
LOCK = """
SELECT workflow_id, status, coalesce(%(now)s::timestamptz, now()) AS now FROM keyturn.workflows
 WHERE namespace = %(namespace)s AND workflow_id = %(workflow)s FOR UPDATE
"""

# Its approvals, locked in the order everybody locks them, each with its standing votes in the order they were cast, and
# with the roles that all voters and some more people hold at this instant.
LOCK_APPROVALS = """
SELECT approval_id, workflow_id, kind, state, revision, digest, node, description, question, allowed, on_reject,
       requester, on_behalf_of, launched_by, last_editor, requirement, expires_at, resolved_by, resolved_at,
       ARRAY(SELECT json_build_object('voter', v.voter, 'acting_for', v.acting_for, 'verdict', v.verdict,
                    'revision', v.revision, 'at', v.at, 'justification', v.justification)
               FROM keyturn.votes v
              WHERE v.approval_id = a.approval_id AND NOT v.superseded ORDER BY v.vote_id) AS votes,
       (SELECT json_object_agg(person, roles)
          FROM (SELECT person, json_agg(role) AS roles FROM keyturn.role_bindings
                 WHERE namespace = %(namespace)s
                   AND (person = ANY(%(people)s)
                        OR person IN (SELECT coalesce(v.acting_for, v.voter)
                                        FROM keyturn.votes v JOIN keyturn.approvals USING (approval_id)
                                       WHERE workflow_id = %(workflow)s))
                 GROUP BY person) AS held) AS roles
  FROM keyturn.approvals a WHERE namespace = %(namespace)s AND workflow_id = %(workflow)s
 ORDER BY approval_id FOR UPDATE OF a
"""

WRITE = "SELECT keyturn.decide(%(workflow)s, %(now)s, %(parts)s::json)"


@dataclass(frozen=True, slots=True)
class Locked:
    """A workflow and its approvals, locked, each with its standing `votes`; the `roles` of all who count, by person."""

    workflow: Params
    approvals: list[Params]
    roles: Mapping[str, frozenset[str]]


@dataclass(slots=True)
class Written:
    """What one decision writes. `vote` and `resolution` are columns of the approval's vote and of itself; `transition`
    those of its workflow, where that goes on or ends; `cancel` ends what else the workflow asks.
    """

    approval_id: str
    vote: Params | None = None
    resolution: Params | None = None
    transition: Params | None = None
    cancel: bool = False
    events: list[Event] = field(default_factory=list[Event])


async def lock(
    conn: Connection, namespace: str, workflow_id: str, people: Sequence[str], now: datetime | None
) -> Locked | None:
    """Lock a workflow, then its approvals by id, and read what a decision is judged on; None when it is not there.

    In a pipeline the two statements are one round trip. The second sees what was committed when the workflow's lock
    was had.
    """
    key = {"namespace": namespace, "workflow": workflow_id}
    locked = await conn.execute(LOCK, {**key, "now": now})
    asked = await conn.execute(LOCK_APPROVALS, {**key, "people": list(people)})
    workflow = await locked.fetchone()
    if workflow is None:
        return None
    rows = await asked.fetchall()
    held: Mapping[str, Sequence[str]] = (rows[0]["roles"] if rows else None) or {}
    return Locked(workflow, rows, {person: frozenset(roles) for person, roles in held.items()})


async def write(conn: Connection, workflow_id: str, written: Written, now: datetime | None) -> None:
    """Write a decision on what `lock` has locked; nothing is read back."""
    parts: Params = {
        "approval": written.approval_id, "vote": written.vote is not None, **(written.vote or {}),
        **(written.resolution or {}), **(written.transition or {}), "cancel": written.cancel,
        **events.columns(written.events),
    }  # fmt: skip
    await conn.execute(WRITE, {"workflow": workflow_id, "now": now, "parts": as_parts(parts)})
