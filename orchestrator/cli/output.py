"""How answers are shown: JSON, a table on a terminal, or plain lines in a pipe. Nothing is asked for or sent here.

Text from a server is foreign: characters that drive a terminal, or that cannot be seen, are shown as escapes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, cast

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

_LEVEL_STYLES: Final[Mapping[str, str]] = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "green"}
_STATUS_STYLES: Final[Mapping[str, str]] = {
    "completed": "green",
    "waiting": "yellow",
    "running": "cyan",
    "ready": "cyan",
    "failed": "bold red",
    "rejected": "red",
    "expired": "red",
    "cancelled": "magenta",
    "timed_out": "red",
}
_STYLES: Final = {**_LEVEL_STYLES, **_STATUS_STYLES}
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400


def safe(value: object) -> str:
    """`value` as one visible line: control, bidi and zero-width characters become escapes."""
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, and whether its cells may be folded into several lines."""

    name: str
    fold: bool = False


class Output:
    """Shows answers on standard output, in the way that fits who reads it."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.terminal = sys.stdout.isatty() and not as_json
        self.console = Console(highlight=False, emoji=False, markup=False, soft_wrap=not self.terminal)

    def json(self, value: BaseModel | Sequence[BaseModel] | Mapping[str, object]) -> None:
        """The answer as the server gave it."""
        plain = [_plain(item) for item in value] if isinstance(value, Sequence) else _plain(value)
        print(json.dumps(plain, indent=2 if sys.stdout.isatty() else None), flush=True)  # noqa: T201 - this is the output

    def rows(self, columns: Sequence[Column], rows: Iterable[Sequence[object]], empty: str) -> None:
        """A table on a terminal; in a pipe one line a row, its cells parted by tabs."""
        cells = [[safe(cell) for cell in row] for row in rows]
        if not self.terminal:
            for row in cells:
                self.line("\t".join(row))
        elif not cells:
            self.line(empty)
        else:
            self.console.print(_table(columns, cells))

    def facts(self, facts: Iterable[tuple[str, object]]) -> None:
        """Names and values, one a line; what has no value is left out."""
        told = [(name, safe(value)) for name, value in facts if value not in (None, "", [])]
        width = max((len(name) for name, _ in told), default=0) if self.terminal else 0
        for name, value in told:
            if self.terminal:
                self.console.print(Text(f"{name:<{width}}  ", style="dim"), styled(value), sep="")
            else:
                self.line(f"{name}\t{value}")

    def line(self, text: str = "") -> None:
        """One line that is safe already, or ours."""
        print(text, flush=True)  # noqa: T201 - this is the output

    def text(self, text: str) -> None:
        """Text of several lines, each made visible."""
        for line in text.splitlines():
            self.line(safe(line))


def complain(message: str) -> None:
    """Say on standard error what was wrong."""
    console = Console(stderr=True, highlight=False, emoji=False, markup=False, soft_wrap=True)
    for number, line in enumerate(message.splitlines() or [""]):
        console.print(Text("keyturn: " if number == 0 else "         ", style="red"), safe(line), sep="")


def styled(value: str) -> Text:
    """`value`, coloured when it is a risk level or a status."""
    return Text(value, style=_STYLES.get(value, ""))


def needed(stage: Sequence[Mapping[str, object]]) -> str:
    """The slots of one stage, as in `2 of sre or dba and 1 of cto`."""
    return " and ".join(f"{slot.get('count', 1)} of {_roles(slot)}" for slot in stage)


def _roles(slot: Mapping[str, object]) -> str:
    own = " or ".join(cast("Sequence[str]", slot["any_of"]))
    added = " or ".join(cast("Sequence[str]", slot.get("escalated") or ()))
    if slot.get("closed_at"):
        return f"{added} in place of {own}"
    return f"{own}, escalated to {added}" if added else own


def needs(stages: Sequence[Sequence[Mapping[str, object]]]) -> list[tuple[str, str]]:
    """Whom a request needs, a line for each stage."""
    one = len(stages) == 1
    return [("needs" if one else f"stage {number} needs", needed(stage)) for number, stage in enumerate(stages, 1)]


def ago(at: datetime, now: datetime | None = None) -> str:
    """How long ago, or in how long, in the largest unit that fits."""
    distance = (now or datetime.now(UTC)) - at
    return f"{span(distance)} ago" if distance >= timedelta() else f"in {span(-distance)}"


def span(distance: timedelta) -> str:
    """A length of time in one or two units."""
    seconds = int(distance.total_seconds())
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min"
    if seconds < _DAY:
        return f"{seconds // _HOUR} h {seconds % _HOUR // _MINUTE} min"
    return f"{seconds // _DAY} d {seconds % _DAY // _HOUR} h"


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column.name, no_wrap=not column.fold, overflow="fold")
    for row in rows:
        table.add_row(*(styled(cell) for cell in row))
    return table


def _plain(value: BaseModel | Mapping[str, object]) -> object:
    return value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else dict(value)
