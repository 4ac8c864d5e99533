"""One decision: what it is judged on, read as of one moment, and all that follows from it, written by one statement.

The lock order is the workflow, then its approvals by id, then votes; only whoever holds the workflow casts one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.core.model import ApprovalState, ApprovalView, Kind, Requester, Requirement, Verdict, Vote
from orchestrator.store import events
from orchestrator.store.db import Connection, Params
from orchestrator.store.events import Event
from orchestrator.store.parts import as_json, as_parts

# Asks for people to be told: `{kind, approval_id, data}`.
Notice = Mapping[str, object]

# The workflow, locked, and then the people and policies of its namespace as they are.
LOCK = "SELECT FROM keyturn.workflows WHERE namespace = %(namespace)s AND workflow_id = %(workflow)s FOR UPDATE"
LOCK_PEOPLE = "SELECT FROM keyturn.namespaces WHERE namespace = %(namespace)s FOR SHARE"

# Workflows, each with the version of its row, and their approvals, each with its standing votes in the order they were
# cast, and with the roles that all voters and some more people hold at this instant, and for whom these may vote. One
# row for a workflow that asks nothing. What is asked for is read only where somebody says something of it. (For the
# arrays' SELECTs see `checkpoints.NEWEST`.)
READ = """
SELECT one.nth, w.workflow_id, w.status, w.xmin::text AS version, coalesce(one.now, now()) AS now, a.approval_id,
       a.kind, a.state, a.revision, a.digest, a.node, a.description, a.question, a.allowed, a.on_reject, a.requester,
       a.on_behalf_of, a.launched_by, a.last_editor, a.requirement, a.expires_at, a.resolved_by, a.resolved_at,
       a.wake_at, (a.terms ->> 'notify') IS DISTINCT FROM 'false' AS notify, a.policy_seen,
       CASE WHEN one.spoken THEN a.action END AS action,
       CASE WHEN one.spoken THEN a.payload END AS payload,
       n.policy_version, n.people_version,
       ARRAY(SELECT json_build_object('voter', v.voter, 'acting_for', v.acting_for, 'verdict', v.verdict,
                    'revision', v.revision, 'at', v.at, 'since', v.since, 'justification', v.justification)
               FROM keyturn.votes v
              WHERE v.approval_id = a.approval_id AND NOT v.superseded ORDER BY v.vote_id) AS votes,
       (SELECT json_object_agg(person, roles)
          FROM (SELECT person, ARRAY(SELECT role FROM keyturn.role_bindings r
                                      WHERE r.namespace = p.namespace AND r.person = p.person) AS roles
                  FROM keyturn.people p
                 WHERE namespace = w.namespace
                   AND person = ANY(ARRAY(SELECT json_array_elements_text(one.people::json))
                                    || ARRAY(SELECT coalesce(v.acting_for, v.voter)
                                               FROM keyturn.approvals b JOIN keyturn.votes v USING (approval_id)
                                              WHERE b.workflow_id = w.workflow_id))) AS known) AS roles,
       (SELECT json_agg(json_build_array(d.from_person, d.to_person))
          FROM keyturn.delegations d
         WHERE d.namespace = w.namespace AND d.to_person = ANY(ARRAY(SELECT json_array_elements_text(one.people::json)))
           AND d.ends_at > coalesce(one.now, now()) AND d.starts_at <= coalesce(one.now, now())
           AND d.revoked_at IS NULL) AS delegations
  FROM unnest((SELECT %(namespaces)s::text[]), (SELECT %(workflows)s::text[]), (SELECT %(people)s::text[]),
              (SELECT %(nows)s::timestamptz[]), (SELECT %(spoken)s::bool[]))
       WITH ORDINALITY AS one (namespace, workflow, people, now, spoken, nth)
  JOIN keyturn.workflows w ON w.workflow_id = one.workflow AND w.namespace = one.namespace
  LEFT JOIN keyturn.namespaces n ON n.namespace = w.namespace
  LEFT JOIN keyturn.approvals a ON a.workflow_id = w.workflow_id
 ORDER BY one.nth, a.approval_id
"""

# Each by itself, unless the workflow's row is no longer the version that was read.
WRITE = """
SELECT keyturn.decide(one.workflow, one.version::xid, one.now, one.parts::json, %(wait)s) AS written
  FROM unnest(%(workflows)s::text[], %(versions)s::text[], %(nows)s::timestamptz[], %(parts)b::text[])
       AS one (workflow, version, now, parts)
"""


@dataclass(frozen=True, slots=True)
class Question:
    """Which workflow is decided about, and whose roles matter besides its voters'; `now` is for tests of time.

    `spoken`: the decision comes with a text, which must not repeat the secrets of what is asked for.
    """

    namespace: str
    workflow_id: str
    people: Sequence[str]
    now: datetime | None
    spoken: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A workflow and its approvals as of one moment, each with its standing `votes`; the `roles` of all who count, by
    person, of whom only those are there that the namespace has; and who may vote for whom, as (principal, delegate).
    """

    workflow: Params
    approvals: list[Params]
    roles: Mapping[str, frozenset[str]]
    delegations: frozenset[tuple[str, str]] = frozenset()

    def votes(self, row: Params) -> list[Vote]:
        """The standing votes on an approval, each with the roles that its voter, or whom they act for, holds now: a
        role that was taken away voids it (rule 5).
        """
        return [self._vote(one) for one in row["votes"]]

    def _vote(self, one: Params) -> Vote:
        roles = self.roles.get(one["acting_for"] or one["voter"], frozenset())
        at = datetime.fromisoformat(one["at"])
        since = datetime.fromisoformat(one["since"]) if one["since"] else None
        return Vote(one["voter"], Verdict(one["verdict"]), one["revision"], at, roles, one["acting_for"],
                    one["justification"], since)  # fmt: skip


@dataclass(slots=True)
class Written:
    """What one decision writes. `vote` and `resolution` are columns of the approval's vote and of itself; `transition`
    those of its workflow, where that goes on or ends; `cancel` ends what else the workflow asks; `notices` ask for
    people to be told.
    """

    approval_id: str
    vote: Params | None = None
    resolution: Params | None = None
    transition: Params | None = None
    tally: Mapping[str, object] | None = None
    cancel: bool = False
    events: list[Event] = field(default_factory=list[Event])
    notices: list[Notice] = field(default_factory=list[Notice])


def view_of(row: Params) -> ApprovalView:
    """As much of an approval as a decision needs."""
    return ApprovalView(
        approval_id=row["approval_id"],
        kind=Kind(row["kind"]),
        state=ApprovalState(row["state"]),
        revision=row["revision"],
        digest=row["digest"],
        requester=Requester(row["requester"], row["on_behalf_of"], row["launched_by"]),
        requirement=Requirement.from_json(row["requirement"]),
        expires_at=row["expires_at"],
        resolved_by=row["resolved_by"],
        resolved_at=row["resolved_at"],
        last_editor=row["last_editor"],
    )


async def lock(conn: Connection, namespace: str, workflow_id: str) -> None:
    """Keep everybody else from the workflow until the transaction ends; nothing is read back.

    In a pipeline this and `read` are one round trip. What is read then is as of when the lock was had.
    """
    await conn.execute(LOCK, {"namespace": namespace, "workflow": workflow_id})
    await conn.execute(LOCK_PEOPLE, {"namespace": namespace})


async def read(conn: Connection, questions: Sequence[Question], *, wait: bool = True) -> list[Asked | None]:
    """What each decision is judged on, all as of one moment; None for a workflow that is not in the namespace. There is
    nothing to `wait` for.
    """
    del wait
    found = await conn.execute(
        READ,
        {
            "namespaces": [one.namespace for one in questions], "workflows": [one.workflow_id for one in questions],
            "people": [as_json(one.people) for one in questions], "nows": [one.now for one in questions],
            "spoken": [one.spoken for one in questions],
        },
    )  # fmt: skip
    rows: dict[int, list[Params]] = {}
    for row in await found.fetchall():
        rows.setdefault(row["nth"], []).append(row)
    return [_asked(rows[nth]) if nth in rows else None for nth in range(1, len(questions) + 1)]


def _asked(rows: list[Params]) -> Asked:
    held: Mapping[str, Sequence[str]] = rows[0]["roles"] or {}
    approvals = rows if rows[0]["approval_id"] is not None else []
    pairs: Sequence[tuple[str, str]] = rows[0]["delegations"] or ()
    delegations = frozenset((principal, delegate) for principal, delegate in pairs)
    return Asked(rows[0], approvals, {person: frozenset(roles) for person, roles in held.items()}, delegations)


async def write(conn: Connection, decisions: Sequence[tuple[Asked, Written]], *, wait: bool) -> list[bool | None]:
    """Write each decision whose workflow has not changed since it was read: True where it was, else None, with nothing
    written. Unless it may `wait`, a row that another transaction holds counts as changed.
    """
    rows = [asked.workflow for asked, _ in decisions]
    found = await conn.execute(
        WRITE,
        {
            "workflows": [row["workflow_id"] for row in rows], "versions": [row["version"] for row in rows],
            "nows": [row["now"] for row in rows],
            "parts": [as_parts(_columns(asked.workflow, written)) for asked, written in decisions],
            "wait": wait,
        },
    )  # fmt: skip
    return [row["written"] or None for row in await found.fetchall()]


def _columns(workflow: Params, written: Written) -> Params:
    return {
        "policy_version": workflow["policy_version"], "people_version": workflow["people_version"],
        "approval": written.approval_id, "vote": written.vote is not None, **(written.vote or {}),
        **(written.resolution or {}), **(written.transition or {}), "tally": written.tally, "cancel": written.cancel,
        "notices": written.notices or None, **events.columns(written.events),
    }  # fmt: skip
