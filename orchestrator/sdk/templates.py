"""The `${name}` templates of runbooks: reading them, and putting values in without ever making text of them elsewhere.

`${name}` alone keeps the value's kind; inside other text it becomes text. `${name!filter}` says how SQL takes the
value. `$${` is a plain `${`. What a target does with the result (binding, quoting, argv) belongs to the executors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from orchestrator.core.errors import InvalidInput

Path: TypeAlias = tuple[str | int, ...]
_MARK = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?P<slot>[^{}]*)\}|(?P<broken>\$\{)")
_SLOT = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?)(?:!(?P<filter>[a-z]+))?")


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a value: `${name}` or `${name!filter}`; `name` is plain, or has a source before a dot."""

    name: str
    filter: str = ""

    @property
    def source(self) -> str:
        """`plan` of `plan.rows`; empty for a parameter."""
        return self.name.partition(".")[0] if "." in self.name else ""


def read(text: str) -> tuple[str | Slot, ...]:
    """`text` as plain pieces and slots, in order. ValueError for a `${` that is no template."""
    pieces: list[str | Slot] = []
    end = 0
    for mark in _MARK.finditer(text):
        pieces.append(text[end : mark.start()])
        end = mark.end()
        if mark["escaped"]:
            pieces.append("${")
            continue
        slot = _SLOT.fullmatch(mark["slot"] or "")
        if slot is None:
            raise ValueError(f"{mark[0]} is not a template; allowed: ${{name}}, or $${{ for a plain ${{")
        pieces.append(Slot(slot["name"], slot["filter"] or ""))
    pieces.append(text[end:])
    return tuple(piece for piece in pieces if piece != "")


def texts(value: object, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every text within a JSON value, with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[str, object]", value).items():
            yield from texts(item, (*path, key))
    elif isinstance(value, Sequence):
        for index, item in enumerate(cast("Sequence[object]", value)):
            yield from texts(item, (*path, index))


def value_of(slot: Slot, values: Mapping[str, object]) -> object:
    """The value for `slot`. InvalidInput where there is none."""
    if slot.name not in values:
        raise InvalidInput(f"there is no value for ${{{slot.name}}}")
    return values[slot.name]


def fill(value: object, values: Mapping[str, object]) -> object:
    """A copy of a JSON value with its templates filled; a text that is one slot becomes the value itself."""
    if isinstance(value, str):
        pieces = read(value)
        if len(pieces) == 1 and isinstance(pieces[0], Slot):
            return value_of(pieces[0], values)
        return text(value, values)
    if isinstance(value, Mapping):
        return {key: fill(item, values) for key, item in cast("Mapping[str, object]", value).items()}
    if isinstance(value, Sequence):
        return [fill(item, values) for item in cast("Sequence[object]", value)]
    return value


def text(template: str, values: Mapping[str, object], encode: Callable[[str], str] = str) -> str:
    """`template` filled as text; each value goes through `encode`. InvalidInput for a value that is not a scalar."""
    return "".join(
        piece if isinstance(piece, str) else encode(scalar_text(piece.name, value_of(piece, values)))
        for piece in read(template)
    )


def scalar_text(name: str, value: object) -> str:
    """A text, number or truth value as text. InvalidInput for null, lists and mappings, and for NUL characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        kind = "nothing" if value is None else "a list" if isinstance(value, list) else "a mapping"
        raise InvalidInput(f"{name} is {kind}, which cannot stand inside a text; allowed: text, a number, true, false")
    found = str(value)
    if "\0" in found:
        raise InvalidInput(f"{name} contains a NUL character")
    return found
