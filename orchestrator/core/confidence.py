"""Confidence and route: where a request goes, how urgent it is, and when it is due.

Pure arithmetic over a level and a score; which rules gave the level is decided in `risk`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.core.model import Level, Route, Routing

AUTO_THRESHOLD = 85.0
QUICK_THRESHOLD = 60.0
URGENT_BELOW = 30.0
URGENT_HOURS = 4
_DUE_HOURS = {Level.LOW: 72, Level.MEDIUM: 24, Level.HIGH: 4, Level.CRITICAL: 4}


def adjusted(confidence: float | None, adjustments: Sequence[float] = ()) -> float:
    """The score, 0 to 100: the base plus the sum of `adjustments`, clamped once at the end.

    A base that is missing, NaN or infinite counts as 0, and so does a score whose adjustments are no numbers.
    """
    base = confidence if confidence is not None and math.isfinite(confidence) else 0.0
    score = base + sum(adjustments)
    return min(100.0, max(0.0, score)) if math.isfinite(score) else 0.0


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
