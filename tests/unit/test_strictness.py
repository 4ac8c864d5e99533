"""Rule 8: what several versions of a policy come to together never asks for less than any of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.freezes import Span
from orchestrator.core.model import Requirement, Slot
from orchestrator.core.policy import BreakGlass, Escalation, Terms, stricter
from orchestrator.core.strictness import stricter_requirement

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROLES = ("a", "b", "c")


def slot(text: str) -> Slot:
    roles, _, count = text.partition("*")
    return Slot(frozenset(roles.split("|")), int(count or 1))


def need(*stages: str, **more: Any) -> Requirement:
    return Requirement(tuple(tuple(slot(one) for one in stage.split()) for stage in stages), **more)


def satisfied(requirement: Requirement, people: list[frozenset[str]]) -> bool:
    """By trying every assignment: the slow truth."""
    seats = [one.roles for stage in requirement.stages for one in stage for _ in range(one.count)]

    def place(left: list[frozenset[str]], free: list[frozenset[str]]) -> bool:
        if not left:
            return True
        return any(roles & left[0] and place(left[1:], free[:at] + free[at + 1 :]) for at, roles in enumerate(free))

    return place(seats, people)


slots = st.builds(Slot, st.frozensets(st.sampled_from(ROLES), min_size=1), st.integers(1, 2))
stages = st.lists(slots, min_size=1, max_size=3).map(tuple)
requirements = st.builds(Requirement, st.lists(stages, max_size=2).map(tuple), st.integers(1, 3), st.booleans())
crowds = st.lists(st.frozensets(st.sampled_from(ROLES)), max_size=7)


@given(st.lists(requirements, min_size=2, max_size=4), crowds)
def test_whoever_satisfies_the_merged_one_satisfies_each(
    versions: list[Requirement], crowd: list[frozenset[str]]
) -> None:
    merged = versions[0]
    for version in versions[1:]:
        merged = stricter_requirement(merged, version)
    if satisfied(merged, crowd):
        assert all(satisfied(version, crowd) for version in versions)
    assert merged.deny_threshold == min(version.deny_threshold for version in versions)
    assert merged.justification_on_decision is any(version.justification_on_decision for version in versions)


@given(requirements, requirements)
def test_merging_again_changes_nothing(one: Requirement, other: Requirement) -> None:
    assert stricter_requirement(one, one) == one
    merged = stricter_requirement(one, other)
    assert stricter_requirement(merged, merged) == merged
    for again in (stricter_requirement(merged, one), stricter_requirement(merged, other)):
        assert sizes(again) == sizes(merged)


@given(requirements, requirements)
def test_which_one_came_first_makes_no_difference_to_the_slots(one: Requirement, other: Requirement) -> None:
    assert sizes(stricter_requirement(one, other)) == sizes(stricter_requirement(other, one))


def sizes(requirement: Requirement) -> list[dict[frozenset[str], int]]:
    found: list[dict[frozenset[str], int]] = []
    for stage in requirement.stages:
        counts: dict[frozenset[str], int] = {}
        for one in stage:
            counts[one.roles] = counts.get(one.roles, 0) + one.count
        found.append(counts)
    return found


@pytest.mark.parametrize(
    ("one", "other", "merged"),
    [
        (need("sre"), need("sre security"), need("security sre")),
        (need("sre security"), need(), need("sre security")),
        (need("sre*2"), need("sre"), need("sre*2")),
        (need("sre"), need("security"), need("security sre")),
        (need("sre|security"), need("sre"), need("sre")),
        (need("sre|security*2"), need("sre"), need("sre security|sre")),
        (need("sre"), need("sre", "cto"), need("sre", "cto")),
        (need("sre", "cto"), need("cto"), need("cto sre", "cto")),
    ],
)
def test_slot_by_slot_the_maximum(one: Requirement, other: Requirement, merged: Requirement) -> None:
    assert sizes(stricter_requirement(one, other)) == sizes(merged)


def test_what_an_escalation_did_to_a_slot_stays() -> None:
    open_to = Slot(frozenset({"sre"}), 1, frozenset({"cto"}), T0)
    pending = Requirement(((open_to,),))
    found = stricter_requirement(pending, need("sre*2 security"))
    assert found.stages == ((Slot(frozenset({"security"})), replace(open_to, count=2)),)
    assert stricter_requirement(pending, need("sre")).stages == pending.stages


def terms(**more: Any) -> Terms:
    return Terms("p", more.pop("version", 1), more.pop("requirement", need("sre")), **more)


def test_times_and_flags_become_the_stricter() -> None:
    freeze = Span(T0, T0 + HOUR)
    one = terms(
        request_ttl=8 * HOUR, approval_ttl=2 * HOUR, on_timeout="approve", reminders=(HOUR,),
        volatile_fields=("metadata.x",), escalation=Escalation(HOUR, frozenset({"cto"})),
        break_glass=BreakGlass("cto", 4 * HOUR), fallback_role="dba", freeze=(freeze,), notify=False,
    )  # fmt: skip
    other = terms(
        version=2, request_ttl=4 * HOUR, approval_ttl=3 * HOUR, on_timeout="expire", reminders=(HOUR / 2,),
        recheck_at_execution=True, volatile_fields=("metadata.y",), justification_on_request=True,
        escalation=Escalation(2 * HOUR, frozenset({"cto", "tech_lead"}), "replace"),
        break_glass=BreakGlass("commander", 5 * HOUR), freeze=(freeze, Span(T0, T0 + 2 * HOUR)),
    )  # fmt: skip
    assert stricter(one, other) == terms(
        version=2, request_ttl=4 * HOUR, approval_ttl=2 * HOUR, on_timeout="expire", reminders=(HOUR / 2, HOUR),
        recheck_at_execution=True, volatile_fields=("metadata.x",), justification_on_request=True,
        escalation=Escalation(2 * HOUR, frozenset({"cto"}), "replace"), fallback_role="dba",
        break_glass=BreakGlass("commander", 4 * HOUR), freeze=other.freeze,
    )  # fmt: skip


def test_what_makes_deciding_easier_stays_only_where_both_have_it() -> None:
    easy = terms(break_glass=BreakGlass("cto", HOUR), escalation=Escalation(HOUR), auto_approve=True)
    for found in (stricter(easy, terms()), stricter(terms(), easy)):
        assert (found.break_glass, found.escalation, found.auto_approve) == (None, None, False)


def test_a_later_version_that_asks_for_nobody_adds_nobody() -> None:
    nobody = terms(version=3, requirement=need("team_lead"), auto_approve=True)
    found = stricter(terms(requirement=need("sre security")), nobody)
    assert (found.requirement, found.version, found.auto_approve) == (need("sre security"), 3, False)
