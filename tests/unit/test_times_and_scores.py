"""Deadlines and confidence, whatever the numbers: instants keep their order, and points never work backwards."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.confidence import adjusted, route
from orchestrator.core.deadlines import deadlines, lapses_at, next_reminder, passed
from orchestrator.core.model import Level, Requirement, Route, Routing
from orchestrator.core.policy import Escalation, Terms

T0 = datetime(2026, 6, 1, 9, tzinfo=UTC)
SPANS = st.timedeltas(timedelta(seconds=1), timedelta(days=30))
ROUTINGS = st.builds(Routing, st.sampled_from(Route), st.booleans(), st.sampled_from([4, 24, 72]), st.none())
TERMS = st.builds(
    lambda request, approval, after, reminders: Terms(
        "p", 1, Requirement(()), request, approval,
        escalation=None if after is None else Escalation(after), reminders=tuple(reminders),
    ),
    SPANS, SPANS, st.none() | SPANS, st.lists(SPANS, max_size=5),
)  # fmt: skip
POINTS = st.lists(st.floats(-200, 200).map(lambda point: round(point, 2)), max_size=5)
ORDER = [Route.AUTO, Route.QUICK, Route.FULL]


@given(TERMS, ROUTINGS)
def test_what_happens_to_a_request_happens_before_it_expires(terms: Terms, routing: Routing) -> None:
    found = deadlines(terms, routing, T0)
    assert found.expires_at == T0 + terms.request_ttl
    for instant in (found.escalate_at, found.remind_at):
        assert instant is None or T0 < instant < found.expires_at
    if terms.escalation and terms.escalation.after < terms.request_ttl:
        assert found.escalate_at == T0 + terms.escalation.after


@given(TERMS)
def test_every_reminder_comes_once_and_in_order(terms: Terms) -> None:
    due = sorted({T0 + after for after in terms.reminders if after < terms.request_ttl})
    found: list[datetime] = []
    at = next_reminder(terms, T0, T0)
    while at is not None:
        found.append(at)
        at = next_reminder(terms, T0, at)
    assert found == due


@given(TERMS, st.timedeltas(timedelta(0), timedelta(days=60)))
def test_a_late_sweep_skips_to_the_next_reminder_and_repeats_none(terms: Terms, late: timedelta) -> None:
    at = next_reminder(terms, T0, T0 + late)
    assert at is None or (at > T0 + late and at < T0 + terms.request_ttl)


@given(st.timedeltas(timedelta(0), timedelta(days=80_000)).map(lambda later: T0 + later), SPANS)
def test_what_has_passed_stays_passed_and_the_instant_itself_has(deadline: datetime, later: timedelta) -> None:
    assert passed(deadline, deadline)
    assert not passed(deadline, deadline - timedelta(microseconds=1))
    assert not passed(None, deadline)
    assert passed(deadline, deadline + later)


@given(TERMS, TERMS)
def test_a_longer_life_never_lapses_sooner(one: Terms, other: Terms) -> None:
    assert (lapses_at(one, T0) <= lapses_at(other, T0)) is (one.approval_ttl <= other.approval_ttl)


@given(st.floats(0, 100), POINTS, st.randoms(use_true_random=False))
def test_the_order_of_adjustments_never_matters(base: float, points: list[float], random: object) -> None:
    mixed = list(points)
    random.shuffle(mixed)  # pyright: ignore[reportAttributeAccessIssue] hypothesis gives a Random
    assert math.isclose(adjusted(base, points), adjusted(base, mixed), abs_tol=1e-9)


@given(st.floats(0, 100), POINTS, st.floats(0, 100))
def test_a_bonus_never_lowers_a_score_and_a_penalty_never_raises_it(
    base: float, points: list[float], change: float
) -> None:
    assert adjusted(base, [*points, change]) >= adjusted(base, points) - 1e-9
    assert adjusted(base, [*points, -change]) <= adjusted(base, points) + 1e-9


@given(st.floats(0, 100), POINTS, st.sampled_from(Level), st.booleans(), st.booleans())
def test_the_score_that_is_told_is_the_one_that_was_routed(
    base: float, points: list[float], level: Level, auto_approve: bool, frozen: bool
) -> None:
    whole = route(level, auto_approve, base, True, points, frozen=frozen)
    assert whole.score is not None
    again = route(level, auto_approve, whole.score, True, frozen=frozen)
    assert whole == again
    assert not (whole.route is Route.AUTO and (frozen or not auto_approve or level is Level.CRITICAL))


@given(st.floats(0, 100), st.sampled_from(Level), st.sampled_from(Level), st.booleans())
def test_a_higher_risk_never_needs_less(score: float, one: Level, other: Level, auto_approve: bool) -> None:
    lower, higher = sorted((one, other), key=lambda level: level.rank)
    first = route(lower, auto_approve, score, True)
    second = route(higher, auto_approve, score, True)
    assert ORDER.index(second.route) >= ORDER.index(first.route)
    assert second.due_hours <= first.due_hours
    assert second.urgent or not first.urgent


@given(st.sampled_from(Level), st.booleans(), st.sampled_from([None, math.nan, math.inf, -math.inf]))
def test_an_agent_without_a_number_is_trusted_as_little_as_one_that_says_zero(
    level: Level, auto_approve: bool, confidence: float | None
) -> None:
    assert route(level, auto_approve, confidence, True) == route(level, auto_approve, 0.0, True)
