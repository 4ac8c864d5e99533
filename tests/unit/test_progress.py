"""How far a task is, as a pure function: percentages keep their bounds and order, what is left is true or not told."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.plan import Plan, PlannedPart, PlannedStep, plan_of, timeout_of
from orchestrator.core.progress import Milestone, Progress, Standing, Told, assess, history

T0 = datetime(2026, 1, 1, tzinfo=UTC)
RUNNING = Standing("running", None, None)
WEIGHTS = st.floats(0.1, 50, allow_nan=False)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@dataclass
class Play:
    """A run of a task, told event by event at seconds after its begin."""

    plan: Plan
    milestones: list[Milestone] = field(default_factory=list)
    told: dict[str, Told] = field(default_factory=dict)
    seq: int = 0

    def event(self, seconds: float, kind: str, node: str = "", request: str = "") -> None:
        self.seq += 1
        self.milestones.append(Milestone(self.seq, at(seconds), kind, node, request))

    def tell(self, when: float, node: str, percent: float | None = None, **more: Any) -> None:
        self.seq += 1
        self.told[node] = Told(self.seq, at(when), node, percent=percent, **more)

    def now(self, seconds: float, standing: Standing = RUNNING) -> Progress:
        return assess(self.plan, standing, self.milestones, self.told, at(seconds))


def plan(*weights: float) -> Plan:
    return Plan(tuple(PlannedStep(f"s{n}", weight=weight) for n, weight in enumerate(weights)), whole=True)


@given(
    weights=st.lists(WEIGHTS, min_size=1, max_size=6),
    place=st.integers(0, 5),
    shares=st.lists(st.floats(0, 100), min_size=2, max_size=2),
)
def test_percent_is_the_weighted_share_and_never_100_before_the_end(
    weights: list[float], place: int, shares: list[float]
) -> None:
    place = min(place, len(weights) - 1)
    play = Play(plan(*weights))
    play.event(0, "workflow-started")
    for number in range(place):
        play.event(number, "step-started", f"s{number}")
        play.event(number + 1, "step-finished", f"s{number}")
    play.event(place, "step-started", f"s{place}")
    seen: list[float] = []
    for share in sorted(shares):
        play.tell(place + 1, f"s{place}", share, seconds=1.0)
        percent = play.now(place + 2).percent
        assert percent is not None
        exact = 100 * (sum(weights[:place]) + weights[place] * share / 100) / sum(weights)
        assert 0 <= percent <= exact + 1e-6
        assert exact - percent < 0.3
        seen.append(percent)
    assert seen == sorted(seen)
    play.event(place + 3, "step-finished", f"s{place}")
    done = play.now(place + 3).percent
    assert done is not None
    assert done >= seen[-1]
    assert play.now(place + 3, Standing("completed", None, at(place + 3))).percent == 100.0


@given(weights=st.lists(WEIGHTS, min_size=1, max_size=5), shares=st.lists(st.floats(-20, 200), min_size=1, max_size=5))
def test_a_step_is_as_far_as_its_sub_steps_by_their_weights(weights: list[float], shares: list[float]) -> None:
    parts = tuple(PlannedPart(f"p{n}", weight=weight) for n, weight in enumerate(weights))
    play = Play(Plan((PlannedStep("s0", substeps=parts),), whole=True))
    play.event(0, "workflow-started")
    play.event(0, "step-started", "s0")
    told = {f"p{n}": min(100.0, max(0.0, share)) for n, share in enumerate(shares)}
    play.tell(1, "s0", substeps=told)
    (step,) = play.now(2).steps
    exact = sum(weight * told.get(f"p{n}", 0.0) for n, weight in enumerate(weights)) / sum(weights)
    assert step.percent is not None
    assert step.percent == pytest.approx(exact, abs=0.11)
    assert {part.name for part in step.substeps} == {part.name for part in parts} | set(told)


@given(
    weights=st.lists(st.integers(1, 20), min_size=2, max_size=6),
    pace=st.floats(0.5, 30),
    moment=st.floats(0.02, 0.98),
    wait=st.floats(0, 10_000),
)
def test_what_is_left_of_steady_work_is_exactly_what_is_left_whoever_it_waited_for(
    weights: list[int], pace: float, moment: float, wait: float
) -> None:
    whole = sum(weights) * pace
    now = moment * whole
    play = Play(plan(*weights))
    play.event(0, "workflow-started")
    # A person was waited for within the first step, half way through.
    ends = list(itertools.accumulate(weight * pace for weight in weights))
    half = ends[0] / 2

    def real(work: float) -> float:
        return work if work <= half else work + wait

    begin = 0.0
    for number, end in enumerate(ends):
        if begin > now:
            break
        play.event(real(begin), "step-started", f"s{number}")
        if number == 0 and now > half:
            play.event(half, "confirmation-required", "s0", "ap-1")
            play.event(half + wait, "confirmation-resolved", "s0", "ap-1")
        if end <= now:
            play.event(real(end), "step-finished", f"s{number}")
        elif now - begin > 0.01 * (end - begin):
            share = (now - begin) / (end - begin)
            play.tell(real(now), f"s{number}", 100 * share, seconds=now - begin)
        begin = end
    left = play.now(real(now)).remaining_seconds
    if left is None:
        assert not play.told
    else:
        assert left == pytest.approx(whole - now, rel=1e-3, abs=1e-3)


def test_what_is_left_counts_down_between_news_and_is_not_told_once_that_is_late() -> None:
    play = Play(plan(1))
    play.event(0, "workflow-started")
    play.event(0, "step-started", "s0")
    assert play.now(5).remaining_seconds is None
    play.tell(10, "s0", 25.0, seconds=10.0)
    assert play.now(10).remaining_seconds == 30.0
    assert play.now(25).remaining_seconds == 15.0
    assert play.now(40.5).remaining_seconds == 0.0
    assert play.now(42).remaining_seconds is None


def test_a_silent_step_is_told_by_the_pace_of_the_others_until_it_takes_longer() -> None:
    play = Play(plan(1, 2, 1))
    play.event(0, "workflow-started")
    play.event(0, "step-started", "s0")
    play.event(10, "step-finished", "s0")
    play.event(10, "step-started", "s1")
    assert play.now(12).remaining_seconds == 28.0
    assert play.now(12).steps[1].percent is None
    assert play.now(12).percent == 25.0
    assert play.now(32).remaining_seconds is None


def test_nothing_is_promised_while_it_waits_stands_in_the_queue_or_has_failed() -> None:
    play = Play(plan(1, 1))
    assert play.now(5, Standing("ready", None, None)).remaining_seconds is None
    play.event(0, "workflow-started")
    play.event(0, "step-started", "s0")
    play.tell(10, "s0", 50.0, seconds=10.0)
    for status in ("ready", "waiting"):
        assert play.now(11, Standing(status, None, None)).remaining_seconds is None
    for status in ("failed", "cancelled", "timed_out", "rejected", "expired"):
        assert play.now(99, Standing(status, None, at(12))).remaining_seconds is None
        assert play.now(99, Standing(status, None, at(12))).elapsed_seconds == 12.0
    assert play.now(99, Standing("completed", None, at(12))).remaining_seconds == 0.0


@pytest.mark.parametrize(
    ("status", "reason", "states"),
    [
        ("running", None, ["completed", "running", "pending"]),
        ("ready", None, ["completed", "pending", "pending"]),
        ("waiting", None, ["completed", "waiting", "pending"]),
        ("completed", None, ["completed", "completed", "skipped"]),
        ("failed", "node_error", ["completed", "failed", "pending"]),
        ("failed", "step_timed_out", ["completed", "timed_out", "pending"]),
        ("cancelled", None, ["completed", "cancelled", "cancelled"]),
        ("rejected", None, ["completed", "cancelled", "cancelled"]),
        ("timed_out", "deadline", ["completed", "timed_out", "cancelled"]),
        ("expired", None, ["completed", "timed_out", "cancelled"]),
    ],
)
def test_the_states_of_steps_follow_from_the_workflows(status: str, reason: str | None, states: list[str]) -> None:
    play = Play(plan(1, 1, 1))
    play.event(0, "workflow-started")
    play.event(0, "step-started", "s0")
    play.event(1, "step-finished", "s0")
    play.event(1, "step-started", "s1")
    assert [step.state for step in play.now(2, Standing(status, reason, None)).steps] == states


def test_what_a_step_told_before_its_worker_was_lost_is_void() -> None:
    play = Play(plan(1, 1))
    play.event(0, "workflow-started")
    play.event(0, "step-started", "s0")
    play.tell(50, "s0", 90.0, seconds=50.0, message="nearly there")
    assert play.now(51).percent == 45.0
    play.event(60, "workflow-started")
    again = play.now(61)
    assert (again.percent, again.message, again.remaining_seconds) == (0.0, "", None)
    play.tell(70, "s0", 10.0, seconds=10.0)
    play.event(160, "step-finished", "s0")
    play.event(160, "step-started", "s1")
    assert play.now(160).remaining_seconds == 100.0


def test_the_time_between_a_failure_and_its_retry_is_no_work() -> None:
    past = history(
        [
            Milestone(1, at(0), "workflow-started"),
            Milestone(2, at(0), "step-started", "a"),
            Milestone(3, at(10), "workflow-failed"),
            Milestone(4, at(1000), "workflow-retried"),
            Milestone(5, at(1010), "step-finished", "a"),
        ],
        at(2000),
    )
    assert past.at_work(at(0), at(1010)) == 20.0


def test_two_waits_at_once_count_once() -> None:
    past = history(
        [
            Milestone(1, at(10), "confirmation-required", "a", "x"),
            Milestone(2, at(20), "confirmation-required", "a", "y"),
            Milestone(3, at(30), "confirmation-resolved", "a", "x"),
        ],
        at(50),
    )
    assert past.idle == ((at(10), at(50)),)
    assert past.at_work(at(0), at(50)) == 10.0


def test_a_plan_is_what_the_graph_tells_else_its_line_else_what_was_seen() -> None:
    traits = {"plan": {"timeout": 9, "steps": [{"name": "a", "weight": 3, "attempts": 2, "substeps": [{"name": "x"}]}]}}
    found = plan_of(traits, {}, [])
    assert found == Plan((PlannedStep("a", "", 3.0, (PlannedPart("x"),), 2),), whole=True, timeout=9)
    assert timeout_of(traits) == 9.0
    assert timeout_of({}) is None
    nodes = [{"id": name} for name in ("__start__", "a", "b", "__end__")]
    pairs = [("__start__", "a"), ("a", "b"), ("b", "__end__")]
    edges = [{"source": source, "target": target, "conditional": False} for source, target in pairs]
    assert plan_of({}, {"nodes": nodes, "edges": edges}, []) == plan_named("a", "b", whole=True)
    forked = [*edges[:2], {"source": "b", "target": "__end__", "conditional": True}]
    assert plan_of({}, {"nodes": nodes, "edges": forked}, ["a", "a"]) == plan_named("a", whole=False)
    around = [*edges, {"source": "b", "target": "a", "conditional": False}]
    assert not plan_of({}, {"nodes": nodes, "edges": around}, []).whole
    assert not plan_of({}, {}, []).whole


def plan_named(*names: str, whole: bool) -> Plan:
    return Plan(tuple(PlannedStep(name) for name in names), whole=whole)


def test_without_a_plan_no_percentage_is_made_up() -> None:
    play = Play(plan_named("a", whole=False))
    play.event(0, "workflow-started")
    play.event(0, "step-started", "a")
    play.tell(1, "a", 50.0, seconds=1.0, message="half")
    found = play.now(2)
    assert (found.percent, found.remaining_seconds, found.message) == (None, None, "half")
    assert found.steps[0].percent == 50.0
    assert play.now(2, Standing("completed", None, at(2))).percent == 100.0
