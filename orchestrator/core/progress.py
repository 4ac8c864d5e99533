"""How far a long task is: its steps' states, the percentage, and what is left, told only where it can be told.

Pure: from the plan, what happened when, and the newest each step told. Nothing here reads a clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from orchestrator.core.plan import Plan, PlannedPart, PlannedStep

State = Literal["pending", "running", "waiting", "completed", "failed", "cancelled", "timed_out", "skipped"]

# The code of a workflow that failed because a step took too long.
STEP_TIMED_OUT: Final = "step_timed_out"
# The workflow's own word for how it ended or stands, as a task's.
_STATES: Final[Mapping[str, State]] = {
    "ready": "pending",
    "running": "running",
    "waiting": "waiting",
    "completed": "completed",
    "failed": "failed",
    "rejected": "cancelled",
    "cancelled": "cancelled",
    "expired": "timed_out",
    "timed_out": "timed_out",
}
# From these events on a step that has not finished is run anew, so what it told before is void.
_BEGINNINGS: Final = frozenset({"workflow-started", "workflow-retried"})
# So long a step may be over its time before that counts as not knowing.
_GRACE_SECONDS: Final = 1.0
MILESTONES: Final = (
    "workflow-started",
    "workflow-failed",
    "workflow-retried",
    "step-started",
    "step-finished",
    "confirmation-required",
    "confirmation-resolved",
)


@dataclass(frozen=True, slots=True)
class Milestone:
    """One of the events of MILESTONES. `request_id` is that of a confirmation."""

    seq: int
    at: datetime
    type: str
    node: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """The newest that a step has told of itself: `seconds` it had been at work, in this attempt, when it did."""

    seq: int
    at: datetime
    node: str
    seconds: float = 0.0
    attempt: int = 1
    percent: float | None = None
    message: str = ""
    done: float | None = None
    total: float | None = None
    substeps: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The workflow's row, as far as it matters here."""

    status: str
    reason: str | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class PartProgress:
    """A sub-step."""

    name: str
    title: str
    weight: float
    state: State
    percent: float


@dataclass(frozen=True, slots=True)
class StepProgress:
    """A step. `percent` is None where it has told nothing yet."""

    name: str
    title: str
    weight: float
    state: State
    percent: float | None
    started_at: datetime | None
    finished_at: datetime | None
    elapsed_seconds: float
    attempt: int
    attempts: int
    message: str
    done: float | None
    total: float | None
    substeps: tuple[PartProgress, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """A task. `percent` is None where its steps are not all known, `remaining_seconds` where nobody can tell."""

    state: State
    percent: float | None
    message: str
    started_at: datetime | None
    elapsed_seconds: float
    remaining_seconds: float | None
    steps: tuple[StepProgress, ...]


# What happened


@dataclass(slots=True)
class _Run:
    """What happened to one step: when it began and ended last, and the number of the event since which it runs."""

    started: datetime | None = None
    finished: datetime | None = None
    since: int = 0
    base: datetime | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What happened, put in order: of each step, and when the workflow stood still."""

    runs: Mapping[str, _Run]
    idle: tuple[tuple[datetime, datetime], ...]
    started_at: datetime | None

    def at_work(self, begin: datetime, end: datetime) -> float:
        """The seconds between two instants in which the workflow did not stand still."""
        still = sum(max(0.0, (min(end, b) - max(begin, a)).total_seconds()) for a, b in self.idle)
        return max(0.0, (end - begin).total_seconds() - still)


def history(milestones: Iterable[Milestone], now: datetime) -> History:
    """Put the milestones, which come in order, together."""
    runs: dict[str, _Run] = {}
    open_since: dict[str, datetime] = {}
    idle: list[tuple[datetime, datetime]] = []
    started: datetime | None = None
    for one in milestones:
        if one.type == "step-started":
            runs[one.node] = _Run(one.at, None, one.seq, one.at)
        elif one.type == "step-finished":
            run = runs.setdefault(one.node, _Run(one.at, None, one.seq, one.at))
            run.finished = one.at
        elif one.type in ("confirmation-required", "workflow-failed"):
            open_since.setdefault(one.request_id, one.at)
        elif (since := open_since.pop(one.request_id, None)) is not None:
            idle.append((since, one.at))
        if one.type in _BEGINNINGS:
            started = started or one.at
            for run in runs.values():
                if run.finished is None:
                    run.since, run.base = one.seq, one.at
    idle += [(since, now) for since in open_since.values()]
    return History(runs, _joined(idle), started)


def _joined(spans: Iterable[tuple[datetime, datetime]]) -> tuple[tuple[datetime, datetime], ...]:
    """The spans without overlaps."""
    found: list[tuple[datetime, datetime]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return tuple(found)


# How far it is


def assess(
    plan: Plan, standing: Standing, milestones: Sequence[Milestone], told: Mapping[str, Told], now: datetime
) -> Progress:
    """The task's progress at `now`; `told` is the newest of each step."""
    end = standing.finished_at or now
    past = history(milestones, end)
    valid = {name: one for name, one in told.items() if name in past.runs and one.seq > past.runs[name].since}
    steps = tuple(
        _step_progress(step, standing, past.runs.get(step.name), valid.get(step.name), end) for step in plan.steps
    )
    state = _STATES[standing.status]
    return Progress(
        state=state,
        percent=_percent(plan, steps, state),
        message=_message(steps, valid),
        started_at=past.started_at,
        elapsed_seconds=0.0 if past.started_at is None else max(0.0, (end - past.started_at).total_seconds()),
        remaining_seconds=_remaining(plan, steps, past, valid, state, now),
        steps=steps,
    )


def _step_progress(
    step: PlannedStep, standing: Standing, run: _Run | None, told: Told | None, end: datetime
) -> StepProgress:
    state = _step_state(standing, run)
    share = 1.0 if state == "completed" else _share(step, told)
    last = (run.finished or end) if run else end
    return StepProgress(
        name=step.name,
        title=step.title,
        weight=step.weight,
        state=state,
        percent=None if share is None and state != "pending" else _shown(share or 0.0),
        started_at=run.started if run else None,
        finished_at=run.finished if run else None,
        elapsed_seconds=max(0.0, (last - run.started).total_seconds()) if run and run.started else 0.0,
        attempt=told.attempt if told else 1,
        attempts=step.attempts,
        message=told.message if told else "",
        done=told.done if told else None,
        total=told.total if told else None,
        substeps=_parts(step, state, told),
    )


def _step_state(standing: Standing, run: _Run | None) -> State:
    state = _STATES[standing.status]
    if run is not None and run.finished is not None:
        return "completed"
    if run is None:
        unbegun: dict[State, State] = {"completed": "skipped", "cancelled": "cancelled", "timed_out": "cancelled"}
        return unbegun.get(state, "pending")
    if state == "failed" and standing.reason == STEP_TIMED_OUT:
        return "timed_out"
    # A node that ended without a word of it, as the last one of a graph may, has completed with its workflow.
    return state


def _share(step: PlannedStep, told: Told | None) -> float | None:
    """How much of the step is done, from 0 to 1; None where it has not told."""
    if told is None:
        return None
    if told.percent is not None:
        return min(1.0, max(0.0, told.percent / 100))
    if step.substeps and told.substeps:
        done = sum(part.weight * min(100.0, told.substeps.get(part.name, 0.0)) / 100 for part in step.substeps)
        return done / sum(part.weight for part in step.substeps)
    return None


def _parts(step: PlannedStep, state: State, told: Told | None) -> tuple[PartProgress, ...]:
    """The planned sub-steps, and those it told of besides."""
    shares = (told.substeps if told else None) or {}
    planned = {part.name: part for part in step.substeps}
    named = [*step.substeps, *(PlannedPart(name) for name in shares if name not in planned)]
    found: list[PartProgress] = []
    for part in named:
        share = 1.0 if state == "completed" else shares.get(part.name, 0.0) / 100
        begun = part.name in shares
        part_state: State = "completed" if share >= 1 else state if begun else "pending"
        found.append(PartProgress(part.name, part.title, part.weight, part_state, _shown(share)))
    return tuple(found)


def _percent(plan: Plan, steps: Sequence[StepProgress], state: State) -> float | None:
    if state == "completed":
        return 100.0
    if not plan.whole or not steps:
        return None
    done = sum(step.weight * (step.percent or 0.0) for step in steps)
    return _floor(done / sum(step.weight for step in steps))


def _shown(share: float) -> float:
    return _floor(100 * min(1.0, share))


def _floor(percent: float) -> float:
    """To a tenth, downwards: what is not done never shows as 100."""
    return min(100.0, math.floor(percent * 10 + 1e-6) / 10)


def _message(steps: Sequence[StepProgress], valid: Mapping[str, Told]) -> str:
    """What the step that told last says, of those under way if there is one."""
    open_now = {step.name for step in steps if step.state in ("running", "waiting")}
    said = [one for one in valid.values() if one.message]
    if not said:
        return ""
    return max(said, key=lambda one: (one.node in open_now, one.seq)).message


# What is left


def _remaining(
    plan: Plan, steps: Sequence[StepProgress], past: History, valid: Mapping[str, Told], state: State, now: datetime
) -> float | None:
    """The seconds that are left, by the pace so far; None where that says nothing.

    A step under way goes on at its own pace, once it has told how far it is; any other at that of all the work done, by
    weight. A step that takes longer than it was to take makes the rest unknown until it tells more.
    """
    if state == "completed":
        return 0.0
    if state != "running" or not plan.whole:
        return None
    pace = _pace(plan, steps, past, valid)
    left = 0.0
    for planned, step in zip(plan.steps, steps, strict=True):
        if step.state == "completed":
            continue
        expected = _left(planned, past.runs.get(step.name), past, valid.get(step.name), pace, now)
        if expected is None or expected < -_GRACE_SECONDS:
            return None
        left += max(0.0, expected)
    return left


def _left(
    step: PlannedStep, run: _Run | None, past: History, told: Told | None, pace: float | None, now: datetime
) -> float | None:
    share = _share(step, told)
    if told is not None and share:
        return told.seconds * (1 - share) / share - past.at_work(told.at, now)
    if pace is None:
        return None
    if run is None or run.base is None:
        return pace * step.weight
    spent = past.at_work(run.base, now) if told is None else told.seconds + past.at_work(told.at, now)
    return pace * step.weight - spent


def _pace(plan: Plan, steps: Sequence[StepProgress], past: History, valid: Mapping[str, Told]) -> float | None:
    """Seconds of work for one unit of weight, over all that is done; None where nothing is."""
    seconds = weight = 0.0
    for planned, step in zip(plan.steps, steps, strict=True):
        run, told = past.runs.get(step.name), valid.get(step.name)
        if step.state == "completed" and run is not None and run.base is not None and run.finished is not None:
            seconds += past.at_work(run.base, run.finished)
            weight += planned.weight
        elif told is not None and (share := _share(planned, told)):
            seconds += told.seconds
            weight += planned.weight * share
    return seconds / weight if weight > 0 else None
