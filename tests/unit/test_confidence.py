"""Confidence: weighted factors, adjustments in CEL that fail closed, one clamp at the end, and the file's mistakes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import sdk
from orchestrator.config import load_confidence, load_governance
from orchestrator.core.confidence import (
    DEFAULT_RULES,
    DEFAULT_WEIGHTS,
    Confidence,
    ConfidenceRules,
    Thresholds,
    adjusted,
    calculate_confidence,
    route,
)
from orchestrator.core.errors import InvalidDocument, InvalidInput
from orchestrator.core.model import Action, Adjustment, Level, Requester, Route
from orchestrator.sdk.gate import confidence_payload

CONFIG = Path(__file__).resolve().parents[2] / "config"
SHIPPED = load_confidence(CONFIG)
FULL = dict.fromkeys(DEFAULT_WEIGHTS, 100.0)
ADMIN = Requester("ann", roles=frozenset({"admin"}))
NOBODY = Requester("bob")
POINTS = st.floats(-100, 100)
FACTORS = st.dictionaries(
    st.sampled_from(sorted(DEFAULT_WEIGHTS)), st.floats(0, 100) | st.none() | st.floats(), max_size=4
)


def rules(*adjustments: tuple[str, float, str]) -> ConfidenceRules:
    lines = "".join(f"  - {{name: {name}, points: {points}, when: {when!r}}}\n" for name, points, when in adjustments)
    return ConfidenceRules.load(f"factors: {{sure: 1}}\nadjustments:\n{lines or '  []'}\n", "confidence.yaml")


# Factors


@pytest.mark.parametrize(
    ("factors", "base"),
    [
        (FULL, 100),
        ({}, 0),
        ({"intent_clarity": 100}, 40),
        ({"argument_completeness": 100}, 30),
        ({"past_success": 100}, 20),
        ({"context_quality": 100}, 10),
        ({"intent_clarity": 90, "argument_completeness": 80, "past_success": 70, "context_quality": 60}, 80),
        ({**FULL, "intent_clarity": math.nan}, 60),
        ({**FULL, "intent_clarity": math.inf}, 60),
        ({**FULL, "intent_clarity": None}, 60),
        ({**FULL, "intent_clarity": 1000}, 100),
        ({**FULL, "intent_clarity": -1000}, 60),
    ],
)
def test_the_base_is_the_weighted_sum_of_the_factors_and_what_is_missing_counts_as_0(
    factors: dict[str, float | None], base: float
) -> None:
    assert calculate_confidence(factors) == Confidence(base, (), base)


def test_a_factor_nobody_defined_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="there is no factor intent; allowed: intent_clarity, argument_") as refused:
        calculate_confidence({"intent": 100})
    assert refused.value.facts["factors"] == ["intent"]


@given(FACTORS, st.lists(POINTS, max_size=6))
def test_the_score_is_the_sum_brought_into_0_to_100_once(factors: dict[str, float | None], points: list[float]) -> None:
    config = rules(*((f"a{number}", value, "true") for number, value in enumerate(points)))
    config = ConfidenceRules(DEFAULT_WEIGHTS, config.rules)
    found = calculate_confidence(factors, config=config)
    assert 0 <= found.base <= 100
    assert found.score == min(100, max(0, math.fsum([found.base, *points])))


@given(st.floats(0, 100), st.lists(POINTS, max_size=6).flatmap(lambda p: st.tuples(st.just(p), st.permutations(p))))
def test_the_order_of_adjustments_never_matters(base: float, orders: tuple[list[float], list[float]]) -> None:
    one, other = orders
    assert adjusted(base, one) == adjusted(base, other)


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_bands_are_half_open_wherever_the_thresholds_lie(score: float, one: float, two: float) -> None:
    quick, auto = sorted((one, two))
    found = route(Level.LOW, True, score, True, auto_threshold=auto, quick_threshold=quick).route
    assert (found is Route.AUTO) == (score >= auto)
    assert (found is Route.FULL) == (score < quick)
    assert route(Level.LOW, True, auto, True, auto_threshold=auto, quick_threshold=quick).route is Route.AUTO
    below = math.nextafter(auto, -1)
    assert (
        auto == 0
        or route(Level.LOW, True, below, True, auto_threshold=auto, quick_threshold=quick).route is not Route.AUTO
    )


# The shipped adjustments


@pytest.mark.parametrize(
    ("action", "requester", "namespace", "names"),
    [
        (Action("deploy"), NOBODY, "default", []),
        (Action("deploy"), ADMIN, "default", ["admin"]),
        (Action("deploy"), NOBODY, "verified", ["verified-workspace"]),
        (Action("deploy", estimated_cost=1000), NOBODY, "default", []),
        (Action("deploy", estimated_cost=1000.5), NOBODY, "default", ["amount-over-1000"]),
        (Action("approve_expense", arguments={"amount": 1000}), NOBODY, "default", []),
        (Action("approve_expense", arguments={"amount": 1001}), NOBODY, "default", ["amount-over-1000"]),
        (Action("approve_expense", arguments={"amount": "1001"}), NOBODY, "default", ["amount-over-1000"]),
        (Action("approve_expense", arguments={"amount": "a lot"}), NOBODY, "default", ["amount-over-1000"]),
        (Action("Bulk Export"), NOBODY, "default", ["bulk"]),
        (Action("notify", arguments={"recipients": ["a"]}), NOBODY, "default", []),
        (Action("notify", arguments={"recipients": ["a", "b"]}), NOBODY, "default", ["bulk"]),
        (Action("bulk", estimated_cost=2000), ADMIN, "verified", ["admin", "verified-workspace", "amount-over-1000",
                                                                  "bulk"]),
    ],
)  # fmt: skip
def test_the_shipped_adjustments(action: Action, requester: Requester, namespace: str, names: list[str]) -> None:
    workflow = {"namespace": namespace}
    found = calculate_confidence(FULL, action=action, requester=requester, workflow=workflow, config=SHIPPED)
    points = {"admin": 10.0, "verified-workspace": 5.0, "amount-over-1000": -15.0, "bulk": -10.0}
    assert found.adjustments == tuple(Adjustment(name, points[name]) for name in names)
    assert found.score == min(100, 100 + sum(points[name] for name in names))


def test_the_shipped_weights_and_thresholds_are_those_without_a_file(tmp_path: Path) -> None:
    assert (SHIPPED.weights, SHIPPED.thresholds) == (DEFAULT_WEIGHTS, Thresholds(85, 60))
    assert load_confidence(tmp_path) is DEFAULT_RULES
    assert load_governance(CONFIG).confidence == SHIPPED


def test_graph_authors_compute_with_the_installations_file_and_are_adjusted_once() -> None:
    found = sdk.calculate_confidence(FULL, action=Action("bulk_mail"), requester=ADMIN)
    assert found == Confidence(100, (Adjustment("admin", 10), Adjustment("bulk", -10)), 100)
    own = [{"name": "admin", "points": 10.0}, {"name": "bulk", "points": -10.0}]
    assert confidence_payload(found) == {"confidence": 100, "adjustments": own}
    assert [confidence_payload(one) for one in (None, 50, math.nan)] == [{}, {"confidence": 50}, {"confidence": 0}]


# Failing closed


@pytest.mark.parametrize("when", ["arguments.missing == 1", "arguments.text > 1", "arguments.none.deep == 2"])
def test_an_adjustment_that_cannot_be_evaluated_may_cost_points_and_never_gives_any(when: str) -> None:
    config = rules(("more", 10, f"action.{when}"), ("less", -15, f"action.{when}"))
    action = Action("x", arguments={"text": "a", "none": None})
    found = calculate_confidence({"sure": 50}, action=action, config=config)
    assert (found.adjustments, found.score) == ((Adjustment("less", -15),), 35)


# Mistakes in the file


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("factors: {a: 0.5, b: 0.4}\n", "f.yaml:1: factors: the weights sum to 0.9; allowed: weights that sum to 1"),
        ("thresholds: {auto: 85}\n", "f.yaml:1: factors: is missing and must be given"),
        ("factors: {a: 1}\nthresholds:\n  auto: 60\n  quick: 61\n",
         "f.yaml:4: thresholds.quick: quick (61) is above auto (60); allowed: quick <= auto"),
        ("factors: {a: 1}\nthresholds: {fast: 1}\n", "f.yaml:2: thresholds.fast: unknown key; allowed: auto, quick"),
        ("factors: {a: 1}\nadjustments:\n  - name: x\n    points: ten\n    when: 'true'\n",
         "f.yaml:4: adjustments[0].points: is text; allowed: a number"),
        ("factors: {a: 1}\nadjustments:\n" + "  - {name: x, points: 1, when: 'true'}\n" * 2,
         "f.yaml:4: adjustments[1].name: the name x is used by an earlier adjustment"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_line_and_path(text: str, told: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        ConfidenceRules.load(text, "f.yaml")
    assert refused.value.problems == (told,)


def test_an_adjustment_that_is_no_condition_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidDocument) as refused:
        ConfidenceRules.load("factors: {a: 1}\nadjustments:\n  - {name: x, points: 1, when: actoin.operation}\n", "f")
    (problem,) = refused.value.problems
    assert problem.startswith("f:3: adjustments[0].when: ")
    assert "undeclared reference" in problem


def test_the_example_in_the_documents_works_out_as_told() -> None:
    page = (CONFIG.parent / "docs" / "tools.md").read_text(encoding="utf-8")
    text = page.partition("## confidence.yaml")[2].partition("```yaml\n")[2].partition("```")[0]
    config = ConfidenceRules.load(text, "docs/tools.md")
    assert (config.weights, config.thresholds) == (SHIPPED.weights, SHIPPED.thresholds)
    assert [rule.adjustment for rule in config.rules] == [rule.adjustment for rule in SHIPPED.rules]
    factors = {"intent_clarity": 95, "argument_completeness": 90, "past_success": 80, "context_quality": 70}
    action = Action("refund", estimated_cost=1500)
    found = calculate_confidence(factors, action=action, requester=ADMIN, config=config)
    assert (found.base, found.score) == (88, 83)
    assert route(Level.LOW, True, found.score, True, auto_threshold=90, quick_threshold=50).route is Route.QUICK


@pytest.mark.parametrize("base", [1000.0, 100.5, -1.0, math.inf, -math.inf, math.nan, 1e300])
def test_a_base_that_is_no_percentage_counts_as_nothing(base: float) -> None:
    assert adjusted(base) == 0
    assert adjusted(base, [40.0, 2.5]) == 42.5
    assert route(Level.LOW, auto_approve=True, confidence=base, applicable=True).route is Route.FULL
