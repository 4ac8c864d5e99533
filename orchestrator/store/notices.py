"""Notices and deliveries: what is to be told, each message that came of it, and how its attempts went.

A notice is queued by `keyturn.queue_notices` in the transaction that causes it. Whoever records what came of an attempt
holds the workflow's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.store.db import Connection, Params
from orchestrator.store.parts import as_json

# Queue notices, with the chore that looks after them.
QUEUE = "SELECT keyturn.queue_notices(%(workflow)s, %(namespace)s, %(now)s::timestamptz, %(notices)s::json)"

# A workflow's notices that nothing came of yet, in order and locked, with who has voted.
WAITING = """
SELECT n.notice_id, n.namespace, n.workflow_id, n.kind, n.data, coalesce(%(now)s::timestamptz, now()) AS now,
       a.kind AS asks, a.action, a.risk_level, a.requester, a.on_behalf_of, a.launched_by, a.last_editor, a.roles,
       a.resolved_by, w.requester AS submitter,
       ARRAY(SELECT voter FROM keyturn.votes v
              WHERE v.approval_id = a.approval_id AND v.revision = a.revision AND NOT v.superseded) AS voted
  FROM keyturn.notices n
  JOIN keyturn.workflows w USING (workflow_id)
  LEFT JOIN keyturn.approvals a ON a.approval_id = n.approval_id
 WHERE n.workflow_id = %(workflow)s AND n.fanned_at IS NULL
 ORDER BY n.notice_id FOR UPDATE OF n
"""

# What came of a notice, with a chore for each delivery.
QUEUE_DELIVERIES = "SELECT keyturn.queue_deliveries(%(notice)s, %(now)s::timestamptz, %(deliveries)s::json)"

# The addresses of some people; those without one are left out.
ADDRESSES = """
SELECT person, email FROM keyturn.people
 WHERE namespace = %(namespace)s AND person = ANY(%(people)s) AND email <> ''
"""

# Who may administer a namespace.
ADMINS = """
SELECT DISTINCT person FROM keyturn.api_keys
 WHERE namespace = %(namespace)s AND 'admin' = ANY(permissions) AND revoked_at IS NULL
"""

# Who stands in for whom at this instant.
DELEGATIONS = """
SELECT from_person, to_person FROM keyturn.delegations
 WHERE namespace = %(namespace)s AND from_person = ANY(%(people)s) AND revoked_at IS NULL
   AND starts_at <= coalesce(%(now)s::timestamptz, now()) AND ends_at > coalesce(%(now)s::timestamptz, now())
"""

# Begin an attempt: nobody else begins one before `lease`, and what was queued before it in the same place goes first.
CLAIM = """
UPDATE keyturn.deliveries d
   SET attempts = d.attempts + 1, next_at = coalesce(%(now)s::timestamptz, now()) + %(lease)s
 WHERE d.delivery_id = %(delivery)s AND d.state = 'queued' AND d.next_at <= coalesce(%(now)s::timestamptz, now())
   AND NOT EXISTS (SELECT FROM keyturn.deliveries e
                    WHERE e.approval_id = d.approval_id AND e.channel = d.channel AND e.recipient = d.recipient
                      AND e.notice_id < d.notice_id AND e.state = 'queued')
RETURNING d.delivery_id, d.notice_id, d.namespace, d.workflow_id, d.channel, d.recipient, d.people, d.attempts,
    d.queued_at, d.external_id, coalesce(%(now)s::timestamptz, now()) AS now
"""

# When to look at a delivery again that cannot be sent now: not before those that go first; no row when it has ended.
AGAIN = """
SELECT greatest(d.next_at, coalesce(%(now)s::timestamptz, now()) + %(pause)s,
                (SELECT max(e.next_at) FROM keyturn.deliveries e
                  WHERE e.approval_id = d.approval_id AND e.channel = d.channel AND e.recipient = d.recipient
                    AND e.notice_id < d.notice_id AND e.state = 'queued')) AS at
  FROM keyturn.deliveries d WHERE d.delivery_id = %(delivery)s AND d.state = 'queued'
"""

# What a message tells, as it is now.
SUBJECT = """
SELECT n.kind, n.data, n.at, n.approval_id, a.kind AS asks, a.state, a.action, a.question, a.description, a.payload,
       a.risk_level, a.reasons, coalesce(a.requester, w.requester) AS requester, a.on_behalf_of, a.urgent, a.due_at,
       a.expires_at, a.roles, a.revision, a.digest, a.resolved_by, a.decision, w.graph, w.title
  FROM keyturn.notices n
  JOIN keyturn.workflows w USING (workflow_id)
  LEFT JOIN keyturn.approvals a ON a.approval_id = n.approval_id
 WHERE n.notice_id = %(notice)s
"""

# The message was taken. An attempt that was given up for dead may also say so.
SENT = """
UPDATE keyturn.deliveries
   SET state = 'sent', sent_at = coalesce(%(now)s::timestamptz, now()), next_at = NULL, last_error = NULL,
       external_id = coalesce(%(external)s, external_id)
 WHERE delivery_id = %(delivery)s AND state <> 'sent'
RETURNING delivery_id
"""

# The attempt failed: the next one waits longer, by some chance, unless it was the last.
FAILED = """
UPDATE keyturn.deliveries
   SET last_error = %(error)s, state = CASE WHEN %(last)s THEN 'dead' ELSE 'queued' END,
       next_at = CASE WHEN NOT %(last)s THEN coalesce(%(now)s::timestamptz, now()) + make_interval(secs =>
           least(%(longest)s::float8,
                 greatest(%(first)s * power(2, least(attempts - 1, 30)) * (0.75 + random() / 2), %(asked)s::float8)))
       END
 WHERE delivery_id = %(delivery)s AND state = 'queued' AND attempts = %(attempts)s
RETURNING next_at
"""

# What waited behind a delivery that has ended may go on at once.
WAKE_NEXT = """
SELECT keyturn.defer_chores('keyturn:deliver',
           ARRAY[jsonb_build_object('delivery_id', n.delivery_id, 'channel', n.channel)])
  FROM (SELECT e.delivery_id, e.channel
          FROM keyturn.deliveries d
          JOIN keyturn.deliveries e ON e.approval_id = d.approval_id AND e.channel = d.channel
                                   AND e.recipient = d.recipient AND e.notice_id > d.notice_id AND e.state = 'queued'
         WHERE d.delivery_id = %(delivery)s
         ORDER BY e.notice_id LIMIT 1) AS n
"""

# Notices and deliveries that something should have looked at long ago: their chores were lost.
LATE_NOTICES = """
SELECT DISTINCT workflow_id FROM (
    SELECT workflow_id FROM keyturn.notices
     WHERE fanned_at IS NULL AND at < coalesce(%(now)s::timestamptz, now()) - %(late)s ORDER BY at LIMIT 100) AS n
"""
LATE_DELIVERIES = """
SELECT delivery_id, channel FROM keyturn.deliveries
 WHERE state = 'queued' AND next_at < coalesce(%(now)s::timestamptz, now()) - %(late)s ORDER BY next_at LIMIT 100
"""

# All messages about one approval, oldest first.
OF_APPROVAL = """
SELECT d.delivery_id, n.kind, d.channel, d.recipient, d.people, d.state, d.attempts, d.queued_at, d.next_at,
       d.last_error, d.external_id, d.sent_at
  FROM keyturn.deliveries d JOIN keyturn.notices n USING (notice_id)
 WHERE d.namespace = %(namespace)s AND d.approval_id = %(approval)s
 ORDER BY d.notice_id, d.channel, d.recipient
"""


@dataclass(frozen=True, slots=True)
class Backoff:
    """When a failed delivery is tried again: `first` seconds later, then twice as long each time up to `longest`, and
    at most `attempts` times.
    """

    attempts: int = 30
    first: float = 5.0
    longest: float = 3600.0


async def queue(
    conn: Connection, namespace: str, workflow_id: str, notices: Sequence[Params], now: datetime | None
) -> None:
    """Queue notices (`kind`, `approval_id`, `data`) in the caller's transaction."""
    given = {"workflow": workflow_id, "namespace": namespace, "now": now, "notices": as_json(list(notices))}
    await conn.execute(QUEUE, given)


async def waiting(conn: Connection, workflow_id: str, now: datetime | None) -> list[Params]:
    """A workflow's notices that nothing came of yet, in order, locked."""
    return await (await conn.execute(WAITING, {"workflow": workflow_id, "now": now})).fetchall()


async def queue_deliveries(
    conn: Connection, notice_id: int, deliveries: Sequence[Params], now: datetime | None
) -> None:
    """Write what came of a notice (`channel`, `recipient`, `people`); what is there already stays as it is."""
    given = {"notice": notice_id, "deliveries": as_json(list(deliveries)), "now": now}
    await conn.execute(QUEUE_DELIVERIES, given)


async def addresses(conn: Connection, namespace: str, people: Sequence[str]) -> dict[str, str]:
    """The mail addresses of people, of those who have one."""
    rows = await (await conn.execute(ADDRESSES, {"namespace": namespace, "people": list(people)})).fetchall()
    return {row["person"]: row["email"] for row in rows}


async def admins(conn: Connection, namespace: str) -> frozenset[str]:
    """Who may administer a namespace."""
    rows = await (await conn.execute(ADMINS, {"namespace": namespace})).fetchall()
    return frozenset(str(row["person"]) for row in rows)


async def delegations(
    conn: Connection, namespace: str, people: Sequence[str], now: datetime | None
) -> tuple[tuple[str, str], ...]:
    """Who of `people` is stood in for at this instant, and by whom."""
    found = await conn.execute(DELEGATIONS, {"namespace": namespace, "people": list(people), "now": now})
    return tuple((row["from_person"], row["to_person"]) for row in await found.fetchall())


async def claim(conn: Connection, delivery_id: str, lease: timedelta, now: datetime | None) -> Params | None:
    """Begin an attempt; None when it is not this delivery's turn."""
    return await (await conn.execute(CLAIM, {"delivery": delivery_id, "lease": lease, "now": now})).fetchone()


async def again(conn: Connection, delivery_id: str, pause: timedelta, now: datetime | None) -> datetime | None:
    """When to look at a delivery again, at least a `pause` from now; None when it has ended."""
    row = await (await conn.execute(AGAIN, {"delivery": delivery_id, "pause": pause, "now": now})).fetchone()
    return row["at"] if row else None


async def subject(conn: Connection, notice_id: int) -> Params | None:
    """What a notice is about, as it is now; None when its workflow is gone."""
    return await (await conn.execute(SUBJECT, {"notice": notice_id})).fetchone()


async def sent(conn: Connection, delivery_id: str, external_id: str | None, now: datetime | None) -> bool:
    """Record that a message was taken; False when that was recorded before."""
    given = {"delivery": delivery_id, "external": external_id, "now": now}
    if await (await conn.execute(SENT, given)).fetchone() is None:
        return False
    await conn.execute(WAKE_NEXT, {"delivery": delivery_id})
    return True


async def failed(
    conn: Connection, row: Params, error: str, backoff: Backoff, now: datetime | None, *,
    asked: float | None = None, final: bool = False,
) -> bool | None:  # fmt: skip
    """Record that the attempt claimed as `row` failed: True when it was the last one, None when another attempt has
    begun or ended since. `asked` is how many seconds the receiver wants to be left alone; `final` ends it at once.
    """
    last = final or row["attempts"] >= backoff.attempts
    found = await conn.execute(
        FAILED,
        {
            "delivery": row["delivery_id"], "attempts": row["attempts"], "error": error, "last": last,
            "first": backoff.first, "longest": backoff.longest, "asked": asked or 0.0, "now": now,
        },
    )  # fmt: skip
    if await found.fetchone() is None:
        return None
    if last:
        await conn.execute(WAKE_NEXT, {"delivery": row["delivery_id"]})
    return last


async def late(conn: Connection, allowed: timedelta, now: datetime | None) -> tuple[list[str], list[tuple[str, str]]]:
    """Workflows with notices, and deliveries with their channels, that were left alone for longer than is `allowed`."""
    given = {"late": allowed, "now": now}
    workflows = await (await conn.execute(LATE_NOTICES, given)).fetchall()
    deliveries = await (await conn.execute(LATE_DELIVERIES, given)).fetchall()
    return [row["workflow_id"] for row in workflows], [(row["delivery_id"], row["channel"]) for row in deliveries]


async def deliveries_of(conn: Connection, namespace: str, approval_id: str) -> list[Params]:
    """All messages about one approval and how they fare, oldest first."""
    return await (await conn.execute(OF_APPROVAL, {"namespace": namespace, "approval": approval_id})).fetchall()
