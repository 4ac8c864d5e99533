"""Confidence and route: how sure an agent is, where a request goes, how urgent it is, and when it is due.

`confidence.yaml` is read here: weighted factors, adjustments written in CEL, and thresholds. All of it is arithmetic
over values; which rules gave the level is decided in `risk`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from orchestrator.core.cel import Condition, ExpressionError, Facts, Predicate, facts_of
from orchestrator.core.documents import Document, DocumentModel, parse
from orchestrator.core.errors import InvalidDocument, InvalidInput
from orchestrator.core.model import Action, Adjustment, Level, Requester, Route, Routing

AUTO_THRESHOLD = 85.0
QUICK_THRESHOLD = 60.0
URGENT_BELOW = 30.0
URGENT_HOURS = 4
_DUE_HOURS = {Level.LOW: 72, Level.MEDIUM: 24, Level.HIGH: 4, Level.CRITICAL: 4}
DEFAULT_WEIGHTS: Mapping[str, float] = {
    "intent_clarity": 0.4, "argument_completeness": 0.3, "past_success": 0.2, "context_quality": 0.1,
}  # fmt: skip
_HIGHEST = 100.0
_Points = Annotated[float, Field(ge=-_HIGHEST, le=_HIGHEST, allow_inf_nan=False)]
_Percent = Annotated[float, Field(ge=0, le=_HIGHEST, allow_inf_nan=False)]
_Weight = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where a score is AUTO, and from where QUICK."""

    auto: float = AUTO_THRESHOLD
    quick: float = QUICK_THRESHOLD


def adjusted(confidence: float | None, adjustments: Sequence[float] = ()) -> float:
    """The score, 0 to 100: the base plus the sum of `adjustments`, clamped once at the end.

    A base that is missing or no number from 0 to 100 counts as 0, and so does a score whose adjustments are no numbers.
    """
    # Of a base that is out of range nobody knows what was meant: 0.9 of 1, or 900 of 1000.
    base = confidence if confidence is not None and 0 <= confidence <= _HIGHEST else 0.0
    try:
        # Exact, so that the order of the adjustments never matters.
        score = math.fsum((base, *adjustments))
    except (OverflowError, ValueError):
        return 0.0
    return min(_HIGHEST, max(0.0, score)) if math.isfinite(score) else 0.0


def route(
    level: Level,
    auto_approve: bool,
    confidence: float | None,
    applicable: bool,
    adjustments: Sequence[float] = (),
    *,
    frozen: bool = False,
    forbidden: bool = False,
    auto_threshold: float = AUTO_THRESHOLD,
    quick_threshold: float = QUICK_THRESHOLD,
) -> Routing:
    """Where a request of `level` goes.

    `auto_approve` is the level's. `applicable` says whether an agent asks and a `confidence` (0 to 100) is needed;
    where it is not, the risk alone decides: AUTO when the level allows it, otherwise FULL. Critical is always FULL. In
    a freeze window (`frozen`) AUTO becomes QUICK; a forbidden action is DENIED whatever else holds. Bands are
    half-open: AUTO from `auto_threshold`, QUICK from `quick_threshold`, FULL below. Raises ValueError for thresholds
    that are not 0 <= quick <= auto <= 100.
    """
    if not 0 <= quick_threshold <= auto_threshold <= 100:  # noqa: PLR2004 a percentage
        raise ValueError(
            f"thresholds must be 0 <= quick <= auto <= 100: quick {quick_threshold}, auto {auto_threshold}"
        )
    score = adjusted(confidence, adjustments) if applicable else None
    urgent = level.rank >= Level.HIGH.rank or (score is not None and score < URGENT_BELOW)
    hours = min(_DUE_HOURS[level], URGENT_HOURS) if urgent else _DUE_HOURS[level]
    if forbidden:
        return Routing(Route.DENIED, urgent, hours, score)
    if level is Level.CRITICAL:
        return Routing(Route.FULL, urgent, hours, score)
    band = _band(score, auto_approve, auto_threshold, quick_threshold)
    if band is Route.AUTO and (frozen or not auto_approve):
        band = Route.QUICK
    return Routing(band, urgent, hours, score)


def _band(score: float | None, auto_approve: bool, auto_threshold: float, quick_threshold: float) -> Route:
    if score is None:
        return Route.AUTO if auto_approve else Route.FULL
    if score >= auto_threshold:
        return Route.AUTO
    return Route.QUICK if score >= quick_threshold else Route.FULL


class AdjustmentEntry(DocumentModel):
    """One of `adjustments` as written: `points` are added when `when` holds."""

    name: str = Field(min_length=1, max_length=100)
    points: _Points
    when: Condition


class ThresholdsEntry(DocumentModel):
    """`thresholds` as written."""

    auto: _Percent = AUTO_THRESHOLD
    quick: _Percent = QUICK_THRESHOLD


class ConfidenceFile(DocumentModel):
    """The whole of `confidence.yaml`."""

    factors: dict[str, _Weight] = Field(min_length=1)
    adjustments: tuple[AdjustmentEntry, ...] = ()
    thresholds: ThresholdsEntry = ThresholdsEntry()


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure an agent is: `base` from its factors, what was added and why, and the `score`, 0 to 100."""

    base: float
    adjustments: tuple[Adjustment, ...]
    score: float


@dataclass(frozen=True, slots=True)
class _Rule:
    adjustment: Adjustment
    when: Predicate

    def applies(self, facts: Facts) -> bool:
        try:
            return self.when.matches(facts)
        except ExpressionError:
            # Nobody can say: a mistake may cost an agent points, never give it some.
            return self.adjustment.points < 0


@dataclass(frozen=True, slots=True)
class ConfidenceRules:
    """Weights, adjustments and thresholds of one `confidence.yaml`; without one, the weights and thresholds alone."""

    weights: Mapping[str, float]
    rules: tuple[_Rule, ...] = ()
    thresholds: Thresholds = Thresholds()

    @classmethod
    def load(cls, text: str, file: str) -> ConfidenceRules:
        """The rules of a file, compiled; `file` is its name for messages. InvalidDocument with every mistake."""
        document = parse(text, file)
        found = document.validate(ConfidenceFile)
        problems = tuple(_problems(document, found))
        if problems:
            raise InvalidDocument(problems)
        rules = tuple(_Rule(Adjustment(entry.name, entry.points), entry.when) for entry in found.adjustments)
        return cls(found.factors, rules, Thresholds(found.thresholds.auto, found.thresholds.quick))

    def base(self, factors: Mapping[str, float | None]) -> float:
        """The weighted sum of `factors`, 0 to 100. InvalidInput for a factor that the file does not name.

        One that is missing, or no finite number, counts as 0; one out of range counts as the end it is beyond.
        """
        unknown = sorted(set(factors) - set(self.weights))
        if unknown:
            allowed = ", ".join(self.weights)
            raise InvalidInput(f"there is no factor {', '.join(unknown)}; allowed: {allowed}", factors=unknown)
        # Rounded, so that four full factors are 100 and not a hair less.
        return round(math.fsum(weight * _percent(factors.get(name)) for name, weight in self.weights.items()), 6)

    def adjustments(
        self, action: Action, requester: Requester, workflow: Mapping[str, object], base: float
    ) -> tuple[Adjustment, ...]:
        """Those that apply to `action`, in the file's order. Never raises."""
        if not self.rules:
            return ()
        facts = facts_of(action, requester, workflow, base)
        return tuple(rule.adjustment for rule in self.rules if rule.applies(facts))


DEFAULT_RULES = ConfidenceRules(DEFAULT_WEIGHTS)
_NOBODY = Requester("")


def calculate_confidence(
    factors: Mapping[str, float | None],
    *,
    action: Action | None = None,
    requester: Requester = _NOBODY,
    workflow: Mapping[str, object] | None = None,
    config: ConfidenceRules = DEFAULT_RULES,
) -> Confidence:
    """The confidence of `factors` (each 0 to 100): their weighted sum plus every adjustment that applies.

    The sum is brought into 0 to 100 once, at the end. Missing and NaN factors count as 0. InvalidInput for a factor
    that `config` does not name. Adjustments judge `action`, `requester` and `workflow` as risk rules do.
    """
    base = config.base(factors)
    found = config.adjustments(action or Action(""), requester, workflow or {}, base)
    return Confidence(base, found, adjusted(base, [one.points for one in found]))


def _percent(value: float | None) -> float:
    if value is None or isinstance(value, bool) or not math.isfinite(value):
        return 0.0
    return min(_HIGHEST, max(0.0, value))


def _problems(document: Document, file: ConfidenceFile) -> Iterator[str]:
    total = math.fsum(file.factors.values())
    if not math.isclose(total, 1, abs_tol=1e-9):
        yield document.problem(("factors",), f"the weights sum to {total:g}; allowed: weights that sum to 1")
    if file.thresholds.quick > file.thresholds.auto:
        told = f"quick ({file.thresholds.quick:g}) is above auto ({file.thresholds.auto:g}); allowed: quick <= auto"
        yield document.problem(("thresholds", "quick"), told)
    yield from _repeated(document, [entry.name for entry in file.adjustments])


def _repeated(document: Document, names: Sequence[str]) -> Iterator[str]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield document.problem(("adjustments", index, "name"), f"the name {name} is used by an earlier adjustment")
