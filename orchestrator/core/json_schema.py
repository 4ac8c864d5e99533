"""JSON Schema checks whose findings name the place and read as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

_LONGEST = 300


def problems(schema: Mapping[str, object], value: object, where: str, most: int = 10) -> list[str]:
    """What keeps `value` from fitting `schema`, outermost first: `where/path: what is wrong`. Empty when it fits."""
    validator = cast("Any", Draft202012Validator(schema))
    found = cast("list[ValidationError]", list(validator.iter_errors(value)))
    found.sort(key=lambda one: len(one.absolute_path))
    return [f"{'/'.join([where, *map(str, one.absolute_path)])}: {one.message[:_LONGEST]}" for one in found[:most]]
