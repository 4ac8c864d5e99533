"""A freeze as written in a policy: a span of time, or days of the week with times of the day."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field

from orchestrator.core.documents import DocumentModel
from orchestrator.core.freezes import DAYS, Freeze, Span, Weekly
from orchestrator.core.yaml_subset import Path

_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|(24):(00)")
_LONGEST = timedelta(days=366)
_A_DATE = 10


class FreezeEntry(DocumentModel):
    """One of `freeze` as written. With `days` it comes every week, `from` and `to` being times of the day."""

    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] | None = None
    opens: str | None = Field(default=None, alias="from")
    closes: str | None = Field(default=None, alias="to")
    time_zone: str = "UTC"
    reason: str = ""


def freeze_of(entry: FreezeEntry) -> Freeze:
    """The freeze of an entry without mistakes."""
    if entry.days is None:
        return Span(_instant(entry.opens, entry.time_zone), _instant(entry.closes, entry.time_zone), entry.reason)
    days = frozenset(DAYS.index(day) for day in entry.days)
    opens, closes = _minute(entry.opens or "00:00"), _minute(entry.closes or "24:00")
    return Weekly(days, opens, closes, entry.time_zone, entry.reason)


def freeze_problems(entry: FreezeEntry, path: Path) -> Iterator[tuple[Path, str]]:
    """What is wrong with an entry at `path`."""
    if not _is_zone(entry.time_zone):
        what = f"{entry.time_zone!r} is not a time zone; allowed: an IANA name such as UTC or Europe/Berlin"
        yield (*path, "time_zone"), what
        return
    yield from (((*path, *inner), what) for inner, what in (_span if entry.days is None else _weekly)(entry))


def _weekly(entry: FreezeEntry) -> Iterator[tuple[Path, str]]:
    if not entry.days:
        yield ("days",), f"is empty; allowed: some of {', '.join(DAYS)}"
    for key, text in (("from", entry.opens), ("to", entry.closes)):
        if text is not None and not _TIME.fullmatch(text):
            yield (key,), f"{text!r} is not a time of the day; allowed: from 00:00 to 24:00, such as 18:00"
        elif (key, text) in (("from", "24:00"), ("to", "00:00")):
            yield (key,), f"{text!r} is not possible here; a day begins at 00:00 and ends at 24:00"


def _span(entry: FreezeEntry) -> Iterator[tuple[Path, str]]:
    wrong = False
    for key, text in (("from", entry.opens), ("to", entry.closes)):
        if text is None:
            wrong = True
            yield (key,), "is missing; a freeze needs `from` and `to` (it must end), or `days` to come every week"
        elif not _is_instant(text):
            wrong = True
            yield (key,), f"{text!r} is not a time; allowed: such as 2026-12-23T18:00, or `days` with times of the day"
    if wrong:
        return
    starts, ends = _instant(entry.opens, entry.time_zone), _instant(entry.closes, entry.time_zone)
    if ends <= starts:
        yield ("to",), "is not after `from`"
    elif ends - starts > _LONGEST:
        yield ("to",), f"is too far from `from`; allowed: {_LONGEST.days} days"


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _is_instant(text: str) -> bool:
    try:
        read = datetime.fromisoformat(text)
        read.astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    # A day alone leaves open whether it is the first or the last that is frozen.
    return len(text) > _A_DATE and 1 < read.year < 9999  # noqa: PLR2004 room for any time zone


def _instant(text: str | None, time_zone: str) -> datetime:
    read = datetime.fromisoformat(text or "")
    return (read if read.tzinfo else read.replace(tzinfo=ZoneInfo(time_zone))).astimezone(UTC)


def _minute(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)
