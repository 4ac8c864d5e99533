"""Confidence and route: the bands, their edges, urgency and due times."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.confidence import adjusted, route
from orchestrator.core.model import Level, Route, Routing

LOW, MEDIUM, HIGH, CRITICAL = Level
AUTO, QUICK, FULL, DENIED = Route
NAN = float("nan")
SCORES = st.floats(0, 100) | st.none() | st.floats()


@pytest.mark.parametrize(
    ("risks", "confidence", "options", "expected"),
    [
        ([LOW], 85, {}, (AUTO, False, 72)),
        ([LOW], 84.99, {}, (QUICK, False, 72)),
        ([LOW], 60, {}, (QUICK, False, 72)),
        ([LOW], 59.99, {}, (FULL, False, 72)),
        ([LOW], 30, {}, (FULL, False, 72)),
        ([LOW], 29.99, {}, (FULL, True, 4)),
        ([LOW], 90, {"adjustments": [-10]}, (QUICK, False, 72)),
        ([LOW], 95, {"adjustments": [20, -10]}, (AUTO, False, 72, 100)),  # summed first, clamped once
        ([LOW], 95, {"adjustments": [20, -20]}, (AUTO, False, 72, 95)),
        ([LOW], 5, {"adjustments": [-10]}, (FULL, True, 4, 0)),
        ([MEDIUM], 92, {}, (QUICK, False, 24)),
        ([LOW, HIGH], 92, {}, (QUICK, True, 4)),
        ([CRITICAL], 99, {}, (FULL, True, 4)),
        ([LOW], None, {}, (FULL, True, 4)),
        ([LOW], NAN, {}, (FULL, True, 4)),
        ([LOW, CRITICAL], 99, {}, (FULL, True, 4)),  # a rule that errors counts as critical
        ([LOW], 99, {"frozen": True}, (QUICK, False, 72)),
        ([LOW], 99, {"forbidden": True}, (DENIED,)),
        ([MEDIUM], 20, {}, (FULL, True, 4)),
        ([LOW], math.inf, {}, (FULL, True, 4)),
        ([LOW], 95, {"adjustments": [NAN]}, (FULL, True, 4, 0)),
        ([LOW], 70, {"auto_threshold": 70, "quick_threshold": 50}, (AUTO, False, 72)),
        ([LOW], 69, {"auto_threshold": 70, "quick_threshold": 50}, (QUICK, False, 72)),
    ],
)
def test_a_request_of_an_agent(
    risks: list[Level], confidence: float | None, options: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    level = Level.highest(risks)
    found = route(level, level is LOW, confidence, True, **options)
    assert (found.route, found.urgent, found.due_hours, found.score)[: len(expected)] == expected


@pytest.mark.parametrize(
    ("level", "auto_approve", "options", "expected"),
    [
        (LOW, True, {}, Routing(AUTO, False, 72, None)),
        (LOW, False, {}, Routing(FULL, False, 72, None)),
        (LOW, True, {"frozen": True}, Routing(QUICK, False, 72, None)),
        (MEDIUM, False, {}, Routing(FULL, False, 24, None)),
        (MEDIUM, True, {}, Routing(AUTO, False, 24, None)),
        (HIGH, False, {}, Routing(FULL, True, 4, None)),
        (CRITICAL, False, {}, Routing(FULL, True, 4, None)),
        (CRITICAL, True, {}, Routing(FULL, True, 4, None)),
        (LOW, True, {"forbidden": True}, Routing(DENIED, False, 72, None)),
    ],
)
def test_a_request_of_a_person_is_routed_by_risk_alone(
    level: Level, auto_approve: bool, options: dict[str, Any], expected: Routing
) -> None:
    for ignored in (None, 0.0, 99.0, NAN):
        assert route(level, auto_approve, ignored, False, **options) == expected


@pytest.mark.parametrize(("quick", "auto"), [(90, 85), (-1, 85), (60, 101), (NAN, 85)])
def test_thresholds_out_of_order_are_refused(quick: float, auto: float) -> None:
    with pytest.raises(ValueError, match="thresholds"):
        route(LOW, True, 50, True, quick_threshold=quick, auto_threshold=auto)


@given(SCORES, st.lists(st.floats(), max_size=4))
def test_a_score_is_always_between_0_and_100(base: float | None, changes: list[float]) -> None:
    assert 0 <= adjusted(base, changes) <= 100


@given(st.sampled_from(Level), st.booleans(), SCORES, st.booleans(), st.booleans())
def test_auto_is_never_reached_without_the_levels_leave_nor_for_critical_nor_in_a_freeze(
    level: Level, auto_approve: bool, score: float | None, applicable: bool, frozen: bool
) -> None:
    found = route(level, auto_approve, score, applicable, frozen=frozen)
    if found.route is AUTO:
        assert auto_approve
        assert level is not CRITICAL
        assert not frozen
        assert not applicable or (score is not None and score >= 85)


@given(st.floats(0, 100), st.floats(0, 100), st.sampled_from(Level), st.booleans())
def test_less_confidence_never_needs_fewer_people(one: float, two: float, level: Level, auto_approve: bool) -> None:
    ease = {AUTO: 2, QUICK: 1, FULL: 0}
    lower, higher = (route(level, auto_approve, score, True).route for score in sorted((one, two)))
    assert ease[lower] <= ease[higher]
