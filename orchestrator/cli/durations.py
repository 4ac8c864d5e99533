"""Lengths of time as people write them, `90s`, `30m`, `12h`, `7d`, and points in time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

_DURATION: Final = re.compile(r"(\d{1,9})\s*(s|m|min|h|d)?", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def parse_duration(text: str) -> timedelta:
    """The length of time that `text` names, seconds when it has no unit; raises typer.BadParameter."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a length of time; write 90s, 30m, 12h or 7d")
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2] or "s"])


def parse_time(text: str) -> datetime:
    """The time that `text` names: a date or a time, of this machine's clock where it says no zone, or a length of time
    from now; raises typer.BadParameter.
    """
    if _DURATION.fullmatch(text.strip()):
        return datetime.now(UTC) + parse_duration(text)
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except ValueError:
        detail = f"{text!r} is not a time; write 2026-12-23T18:00, 2026-12-23, or 7d for in seven days"
        raise typer.BadParameter(detail) from None
