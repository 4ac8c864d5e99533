"""Reading the strict subset of YAML that configuration files use, keeping the line of every path.

Works on the parser's events, so an alias bomb or a deep nest is refused before anything is built from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
)

Path: TypeAlias = tuple[str | int, ...]
Mistake: TypeAlias = tuple[int, Path, str]
MAX_NODES = 10_000
MAX_DEPTH = 64
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, object] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


class _TooMuchError(Exception):
    """Reading stops here: going on would only cost time."""


def read_yaml(text: str) -> tuple[object, dict[Path, int], list[Mistake]]:
    """The plain value of `text`, the line of every path, and what is not allowed in it (the value is None then)."""
    reader = _Reader()
    try:
        value = reader.document(yaml.parse(text, Loader=yaml.SafeLoader))
    except _TooMuchError:
        value = None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        value = reader.wrong(mark.line + 1 if mark else 1, (), f"is not YAML: {what}")
    except yaml.YAMLError as error:
        value = reader.wrong(1, (), f"is not YAML: {' '.join(str(error).split())}")
    return (None if reader.mistakes else value), reader.lines, reader.mistakes


class _Reader:
    """Builds the value from events; `mistakes` collects what is wrong, so one reading names everything."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.mistakes: list[Mistake] = []
        self._nodes = 0
        self._events: Iterator[Event] = iter(())

    def wrong(self, line: int, path: Path, what: str) -> None:
        self.mistakes.append((line, path, what))

    def document(self, events: Iterator[Event]) -> object:
        self._events = events
        documents, value = 0, None
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.wrong(_line(event), (), "holds several documents; allowed: one, without a second ---")
                    break
            elif isinstance(event, NodeEvent):
                value = self._node(event, ())
        if not documents:
            self.wrong(1, (), "is empty")
        return value

    def _node(self, event: Event, path: Path) -> object:
        line = _line(event)
        self.lines.setdefault(path, line)
        self._count(line, path)
        if isinstance(event, AliasEvent):
            return self.wrong(line, path, "an alias (*name) is not allowed; write the value out")
        self._plainness(event, line, path)
        if isinstance(event, ScalarEvent):
            return self._scalar(event, line, path)
        if len(path) >= MAX_DEPTH:
            self.wrong(line, path[:4], f"is nested too deep; allowed: {MAX_DEPTH} levels")
            raise _TooMuchError
        return self._mapping(path) if isinstance(event, MappingStartEvent) else self._sequence(path)

    def _count(self, line: int, path: Path) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self.wrong(line, path, f"the file holds too much; allowed: {MAX_NODES} keys, values and lists")
            raise _TooMuchError

    def _plainness(self, event: Event, line: int, path: Path) -> None:
        if isinstance(event, ScalarEvent | CollectionStartEvent):
            if event.anchor:
                self.wrong(line, path, "an anchor (&name) is not allowed; write the value out")
            if event.tag is not None:
                self.wrong(line, path, f"a tag ({event.tag}) is not allowed")

    def _sequence(self, path: Path) -> list[object]:
        items: list[object] = []
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                break
            items.append(self._node(event, (*path, len(items))))
        return items

    def _mapping(self, path: Path) -> dict[str, object]:
        items: dict[str, object] = {}
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                break
            key = self._key(event, path)
            if key in items:
                self.wrong(_line(event), (*path, key), f"is written twice (first in line {self.lines[*path, key]})")
            self.lines.setdefault((*path, key), _line(event))
            items[key] = self._node(next(self._events), (*path, key))
        return items

    def _key(self, event: Event, path: Path) -> str:
        line = _line(event)
        self._count(line, path)
        if isinstance(event, ScalarEvent):
            self._plainness(event, line, path)
            key = self._scalar(event, line, path)
            if isinstance(key, str):
                return key
            self.wrong(line, path, f"the key {event.value!r} is not text; put it in quotes")
            return str(event.value)
        self.wrong(line, path, "a key must be text, not an alias, a list or a mapping")
        raise _TooMuchError

    def _scalar(self, event: ScalarEvent, line: int, path: Path) -> object:
        text = event.value
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            return self.wrong(line, path, "holds a character that text may not hold (NUL or half a surrogate pair)")
        if event.style is not None:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            return self._number(int(text) if len(text) < 20 else 2**64, text, line, path)  # noqa: PLR2004 64 bits
        return self._number(float(text), text, line, path) if _FLOAT.fullmatch(text) else text

    def _number(self, value: float, text: str, line: int, path: Path) -> float | None:
        if not -(2**63) <= value < 2**63:
            return self.wrong(line, path, f"the number {text[:40]} is too large; put it in quotes if it is text")
        return value


def _line(event: Event) -> int:
    mark = event.start_mark
    return mark.line + 1 if mark else 1
