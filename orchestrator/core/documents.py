"""Configuration files: YAML text to validated, frozen values, with every mistake named by file, line and path.

The YAML is a strict subset: no anchors, aliases, tags or repeated keys, and only `true` and `false` are booleans.
What a file means belongs to the models that use this module, not here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationError

from orchestrator.core.errors import InvalidDocument
from orchestrator.core.mistakes import explain
from orchestrator.core.yaml_subset import Path, read_yaml

MAX_TEXT = 1_000_000
_DURATION = re.compile(r"(?:\d+[smhdw])+")
_PART = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=3650)


class DocumentModel(BaseModel):
    """Base of every configuration model: frozen, no unknown keys, no conversion between kinds of values."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


ModelT = TypeVar("ModelT", bound=BaseModel)


def duration(text: object) -> timedelta:
    """A length of time written as `90s`, `30m`, `4h`, `1d`, `2w` or several together (`1h30m`).

    Raises ValueError for anything else, for zero, and for more than ten years.
    """
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration; allowed: a whole number and s, m, h, d or w, such as 30m or 4h")
    try:
        total = sum((timedelta(**{_UNITS[unit]: int(n)}) for n, unit in _PART.findall(text)), timedelta())
    except OverflowError:
        total = timedelta.max
    if not timedelta() < total <= _LONGEST:
        raise ValueError(f"{text!r} is out of range; allowed: more than nothing and at most ten years")
    return total


def _one_or_many(value: object) -> object:
    return tuple(cast("list[object]", value)) if isinstance(value, list) else (value,) if value else value


Duration = Annotated[timedelta, PlainValidator(duration)]
"""A field written as text such as `30m`."""

OneOrMany = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
"""A field written as one text or a list of them."""


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its plain value, and the line of every path in it (lines start at 1)."""

    file: str
    value: object
    lines: Mapping[Path, int]

    def line(self, path: Sequence[str | int]) -> int:
        """The line where `path`, or the nearest part of it that exists, stands."""
        for end in range(len(path), -1, -1):
            found = self.lines.get(tuple(path[:end]))
            if found is not None:
                return found
        return 1

    def problem(self, path: Sequence[str | int], what: str) -> str:
        """One line for an operator: `file:line: path.to.key: what is wrong; allowed: …`."""
        return f"{self.file}:{self.line(path)}: {path_text(path)}: {what}"

    def validate(self, model: type[ModelT]) -> ModelT:
        """The value as `model`. Raises InvalidDocument with every mistake."""
        try:
            # JSON mode: text becomes an enum and a list a tuple, while a number never becomes text.
            return model.model_validate_json(json.dumps(self.value))
        except ValidationError as error:
            details = cast("list[Mapping[str, object]]", error.errors(include_url=False))
            found = (explain(detail, self.value, model) for detail in details)
            placed = sorted({(self.line(path), self.problem(path, what)) for path, what in found})
            raise InvalidDocument(tuple(problem for _, problem in placed)) from error


def path_text(path: Sequence[str | int]) -> str:
    """`rules[2].when` for a path; `(the file)` for the top."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".") or "(the file)"


def parse(text: str, file: str) -> Document:
    """`text` as a Document. Raises InvalidDocument for what the YAML subset does not allow.

    Refused are aliases and anchors, tags, repeated keys, keys that are not text, more than 10,000 nodes, more than 64
    levels, several documents in one file, and text that is not YAML at all. `file` is only used in messages.
    """
    if len(text) > MAX_TEXT:
        raise InvalidDocument((f"{file}:1: (the file): is too long; allowed: {MAX_TEXT} characters",))
    value, lines, mistakes = read_yaml(text)
    if mistakes:
        raise InvalidDocument(tuple(f"{file}:{line}: {path_text(path)}: {what}" for line, path, what in mistakes))
    return Document(file, value, lines)


def load(text: str, file: str, model: type[ModelT]) -> ModelT:
    """`text` parsed and validated as `model`. Raises InvalidDocument with every mistake found."""
    return parse(text, file).validate(model)
