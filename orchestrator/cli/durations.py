"""Lengths of time as people write them: `90s`, `30m`, `12h`, `7d`."""

from __future__ import annotations

import re
from datetime import timedelta
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
