"""Deadlines: where they come from, and that the instant itself has passed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.deadlines import Deadlines, deadlines, lapses_at, passed
from orchestrator.core.model import Requirement, Route, Routing
from orchestrator.core.policy import Escalation, Terms

T0 = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def terms(**options: Any) -> Terms:
    return Terms("p", 1, Requirement(()), **options)


def routing(due_hours: int) -> Routing:
    return Routing(Route.FULL, False, due_hours, None)


def test_the_defaults_are_a_day_to_answer_and_an_hour_to_run() -> None:
    assert deadlines(terms(), routing(24), T0) == Deadlines(T0 + 24 * HOUR, T0 + 24 * HOUR, None)
    assert lapses_at(terms(), T0) == T0 + HOUR


def test_each_time_counts_from_the_request() -> None:
    found = deadlines(terms(request_ttl=4 * HOUR, escalation=Escalation(HOUR / 2)), routing(4), T0)
    assert found == Deadlines(due_at=T0 + 4 * HOUR, expires_at=T0 + 4 * HOUR, escalate_at=T0 + HOUR / 2)
    assert lapses_at(terms(approval_ttl=HOUR / 2), T0 + 3 * HOUR) == T0 + 3.5 * HOUR


@pytest.mark.parametrize("after", [4 * HOUR, 5 * HOUR])
def test_an_escalation_that_would_come_too_late_is_dropped(after: timedelta) -> None:
    assert deadlines(terms(request_ttl=4 * HOUR, escalation=Escalation(after)), routing(4), T0).escalate_at is None


def test_deadlines_are_exclusive() -> None:
    tick = timedelta(microseconds=1)
    assert not passed(T0, T0 - tick)
    assert passed(T0, T0)
    assert passed(T0, T0 + tick)
    assert not passed(None, T0)
