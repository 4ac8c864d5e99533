"""Freezes: times in which a decision may be made but nothing may run (rule 16).

A freeze is one span of time or comes every week. Every end is exclusive: at it, the freeze is over. Where clocks are
put forward or back, a time that does not exist or comes twice is read so that the freeze is the longer one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = timedelta(days=1)
# A chain of windows is followed this far; what is frozen still then is looked at again at that instant.
_MOST_WINDOWS = 1000
# Any Monday without a change of clocks near it: three weeks from it show what a week leaves open.
_SOME_WEEKS = (datetime(2026, 1, 12, tzinfo=UTC), datetime(2026, 2, 2, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Span:
    """One freeze, from an instant to another."""

    starts: datetime
    ends: datetime
    reason: str = ""

    def until(self, now: datetime) -> datetime | None:
        """When the freeze that `now` is in ends; None when it is in none."""
        return self.ends if self.starts <= now < self.ends else None

    def to_json(self) -> dict[str, object]:
        """The shape kept with the terms of an approval."""
        kept = {"starts": self.starts.isoformat(), "ends": self.ends.isoformat()}
        return {**kept, **({"reason": self.reason} if self.reason else {})}


@dataclass(frozen=True, slots=True)
class Weekly:
    """A freeze that begins on each of `days` (0 is Monday) and lasts from minute `opens` to minute `closes`.

    Minutes count from midnight by the clocks of `time_zone`; 1440 is the next midnight. One that closes no later than
    it opens closes on the next day.
    """

    days: frozenset[int]
    opens: int = 0
    closes: int = 1440
    time_zone: str = "UTC"
    reason: str = ""

    def until(self, now: datetime) -> datetime | None:
        """When the window that `now` is in ends; None when it is in none."""
        here = now.astimezone(ZoneInfo(self.time_zone)).date()
        windows = (self._window(here + shift * _DAY) for shift in (-2, -1, 0, 1))
        return max((end for start, end in windows if start <= now < end), default=None)

    def _window(self, day: date) -> tuple[datetime, datetime]:
        """The window that begins on `day`; one that ends when it begins where `day` is none of the days."""
        if day.weekday() not in self.days:
            return datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
        closes = self.closes if self.closes > self.opens else self.closes + 1440
        return min(self._readings(day, self.opens)), max(self._readings(day, closes))

    def _readings(self, day: date, minute: int) -> Sequence[datetime]:
        """The instants that a time on the clock can mean: two in the hour when clocks change, else twice the same."""
        days, rest = divmod(minute, 1440)
        local = datetime.combine(day + days * _DAY, time(rest // 60, rest % 60), ZoneInfo(self.time_zone))
        return [local.replace(fold=fold).astimezone(UTC) for fold in (0, 1)]

    def to_json(self) -> dict[str, object]:
        """The shape kept with the terms of an approval."""
        return {
            "days": [DAYS[day] for day in sorted(self.days)],
            "opens": self.opens,
            "closes": self.closes,
            "time_zone": self.time_zone,
            **({"reason": self.reason} if self.reason else {}),
        }


Freeze: TypeAlias = Span | Weekly


def freeze_from_json(kept: Mapping[str, Any]) -> Freeze:
    """What `to_json` gave."""
    reason = str(kept.get("reason", ""))
    if "days" not in kept:
        return Span(datetime.fromisoformat(kept["starts"]), datetime.fromisoformat(kept["ends"]), reason)
    days = frozenset(DAYS.index(day) for day in kept["days"])
    return Weekly(days, int(kept["opens"]), int(kept["closes"]), str(kept["time_zone"]), reason)


def frozen_until(freezes: Iterable[Freeze], now: datetime) -> datetime | None:
    """When nothing is frozen any more, also where one window follows another; None when `now` is in none."""
    known, until = tuple(freezes), None
    for _ in range(_MOST_WINDOWS):
        end = max((end for freeze in known if (end := freeze.until(until or now))), default=None)
        if end is None:
            break
        until = end
    return until


def never_opens(freezes: Iterable[Freeze]) -> bool:
    """Whether the weekly ones among `freezes` leave no time of any week open."""
    weekly = [freeze for freeze in freezes if isinstance(freeze, Weekly)]
    start, three_weeks_on = _SOME_WEEKS
    until = frozen_until(weekly, start)
    return until is not None and until >= three_weeks_on
