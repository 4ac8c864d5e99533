"""The times of scenario files: offsets from T0 like `239m59s`, durations, and absolute instants."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from tests.acceptance.malformed import MalformedError

# A Monday, in a month without a change of clocks anywhere.
ANY = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_UNITS = {
    "ms": timedelta(milliseconds=1), "s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1),
    "d": timedelta(days=1), "w": timedelta(weeks=1),
}  # fmt: skip


def span(value: object, place: str) -> timedelta:
    """A duration or an offset: `30m`, `1h30m`, `-2h`, `+5s`; a bare 0 has no unit to miss."""
    text = str(value).strip()
    sign = -1 if text.startswith("-") else 1
    body = text.lstrip("+-").strip()
    if body == "0":
        return timedelta(0)
    parts = list(_PART.finditer(body))
    if not parts or _PART.sub("", body).strip():
        raise MalformedError(f"{place}: {value!r} is no duration; write it like 90s, 30m, 4h, 1d or 1h30m")
    return sign * sum((float(part[1]) * _UNITS[part[2]] for part in parts), timedelta(0))


def instant(value: object, place: str) -> datetime | None:
    """An absolute time as YAML or a text gives it, in UTC where it names no zone; None for an offset."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    text = str(value).strip()
    if not re.match(r"\d{4}-\d\d-\d\d", text):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise MalformedError(f"{place}: {value!r} is no time; write it like 2026-06-01T09:00:00Z") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def at(value: object, t0: datetime, place: str) -> datetime:
    """An absolute time, or an offset from `t0`."""
    found = instant(value, place)
    return found if found is not None else t0 + span(value, place)


@dataclass
class Clock:
    """The clock that a scenario moves; the server, the worker and the database's functions all ask it."""

    now: datetime = field(default=ANY)

    def __call__(self) -> datetime:
        return self.now
