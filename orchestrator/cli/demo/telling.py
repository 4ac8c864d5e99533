"""How the demo speaks: scenes, what is seen, and each expectation with a mark; coloured on a terminal, plain in a pipe.

Questions to the person at the terminal are put here too. What is shown, and when, is decided by the scenes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from rich.padding import Padding
from rich.text import Text

from orchestrator.cli.output import Column, Output, safe
from orchestrator.wire import EventRecord

_YES: Final = frozenset({"", "a", "approve", "y", "yes"})
_NO: Final = frozenset({"r", "reject", "n", "no"})
_LONGEST_NOTE: Final = 90
_INDENT: Final = 3
# What of an event's data helps to read a timeline, in this order.
_NOTED: Final = (
    "node", "attempt", "risk_level", "route", "verdict", "justification", "answer", "to", "state", "code", "detail",
    "reason",
)  # fmt: skip


class Choice(NamedTuple):
    """What a person decided, and their words."""

    verdict: Literal["approve", "reject"]
    words: str


class Teller:
    """Speaks, keeps what was expected and whether it held, and asks when `asks` is true."""

    def __init__(self, *, asks: bool) -> None:
        self.asks = asks
        self.checks: list[tuple[str, bool]] = []
        self._output = Output(as_json=False)
        self._scenes = 0

    @property
    def failed(self) -> list[str]:
        """What was expected and did not hold."""
        return [expectation for expectation, held in self.checks if not held]

    def scene(self, title: str) -> None:
        """Begin a scene."""
        self._scenes += 1
        self.heading(f"{self._scenes}. {title}")

    def heading(self, title: str) -> None:
        """A title on a line of its own."""
        self._output.line()
        self._say(title, "bold cyan")

    def line(self, text: str, style: str = "") -> None:
        """Something that is seen."""
        self._say(text, style, _INDENT)

    def check(self, expectation: str, *, held: bool) -> bool:
        """Show and keep whether what was expected holds."""
        self.checks.append((expectation, held))
        self.mark(expectation, held=held)
        return held

    def mark(self, text: str, *, held: bool) -> None:
        """A line with a mark before it."""
        self._say(f"{'✓' if held else '✗'} {text}", "green" if held else "bold red", _INDENT - 2)

    def choose(self, who: str, suggested: str) -> Choice:
        """What `who` decides: asked for on a terminal, else approved with the words that are `suggested`."""
        if not self.asks:
            return Choice("approve", suggested)
        verdict = self._ask(f"You are {who}. [a]pprove or [r]eject? (Enter approves) ", _YES | _NO)
        words = input("   Your justification: ").strip()
        if verdict in _YES:
            return Choice("approve", words or suggested)
        return Choice("reject", words or "No reason given.")

    def answer(self, who: str, question: str, suggested: str) -> str:
        """What `who` answers to a question."""
        if not self.asks:
            return suggested
        return input(f"   You are {who}. {question} (Enter answers {suggested}) ").strip() or suggested

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table on a terminal, aligned lines in a pipe; the last column may be long."""
        if self._output.terminal:
            headings = [Column(name, fold=name == columns[-1]) for name in columns]
            self._output.rows(headings, rows, "")
            return
        cells = [[safe(cell) for cell in row] for row in rows]
        widths = [max((len(row[index]) for row in cells), default=0) for index in range(len(columns))]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._output.line(f"   {'  '.join(padded)}".rstrip())

    def _ask(self, prompt: str, allowed: frozenset[str]) -> str:
        while True:
            said = input(f"   {prompt}").strip().lower()
            if said in allowed:
                return said

    def _say(self, text: str, style: str, indent: int = 0) -> None:
        if self._output.terminal:
            self._output.console.print(Padding(Text(safe(text), style=style), (0, 0, 0, indent)))
        else:
            self._output.line(f"{' ' * indent}{safe(text)}")


def can_ask() -> bool:
    """Whether somebody sits at a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def timeline(events: Sequence[EventRecord], name_of: Callable[[str], str]) -> list[tuple[str, str, str, str]]:
    """Rows of a timeline: when, what, who, and what helps to understand it."""
    return [
        (event.at.astimezone().strftime("%H:%M:%S.%f")[:-3], event.type, name_of(event.actor), _note(event))
        for event in events
    ]


def _note(event: EventRecord) -> str:
    told = [f"{name}={event.data[name]}" for name in _NOTED if event.data.get(name) not in (None, "")]
    note = safe(" ".join(told))
    return note if len(note) <= _LONGEST_NOTE else f"{note[: _LONGEST_NOTE - 1]}…"
