"""When a request is due, reminds, escalates, expires, and when its approval lapses.

Every instant is exclusive: at it, it has passed (rule 11). Nothing here reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.core.model import Routing
from orchestrator.core.policy import Terms


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The instants of one request. `due_at` only shows as overdue; `escalate_at` is None when nothing escalates.

    `remind_at` is the first reminder, None where there is none.
    """

    due_at: datetime
    expires_at: datetime
    escalate_at: datetime | None
    remind_at: datetime | None = None


def deadlines(terms: Terms, routing: Routing, requested_at: datetime) -> Deadlines:
    """The instants of a request made at `requested_at`. An escalation that would come with the expiry is dropped."""
    expires_at = requested_at + terms.request_ttl
    escalate_at = requested_at + terms.escalation.after if terms.escalation else None
    return Deadlines(
        due_at=requested_at + timedelta(hours=routing.due_hours),
        expires_at=expires_at,
        escalate_at=escalate_at if escalate_at and escalate_at < expires_at else None,
        remind_at=next_reminder(terms, requested_at, requested_at),
    )


def next_reminder(terms: Terms, requested_at: datetime, now: datetime) -> datetime | None:
    """The first reminder after `now` of a request made at `requested_at`; None when none comes before the expiry."""
    instants = (requested_at + after for after in terms.reminders if after < terms.request_ttl)
    return min((instant for instant in instants if instant > now), default=None)


def lapses_at(terms: Terms, approved_at: datetime) -> datetime:
    """Until when an approval given at `approved_at` may be executed."""
    return approved_at + terms.approval_ttl


def passed(deadline: datetime | None, now: datetime) -> bool:
    """Whether `deadline` has passed at `now`; at the instant itself it has. None never passes."""
    return deadline is not None and now >= deadline
