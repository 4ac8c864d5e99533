"""JSON Schema checks whose findings name the place and read as sentences. A schema never makes us fetch anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from orchestrator.core.canonical import redact

_LONGEST = 300


def problems(schema: Mapping[str, object], value: object, where: str, most: int = 10) -> list[str]:
    """What keeps `value` from fitting `schema`, outermost first: `where/path: what is wrong`. Empty when it fits.

    A schema that refers to something outside of itself fits nothing.
    """
    validator = cast("Any", Draft202012Validator(schema, registry=Registry()))
    try:
        found = cast("list[ValidationError]", list(validator.iter_errors(value)))
    except Unresolvable as error:
        return [f"{where}: its schema refers to what is not in it: {error}"]
    except RecursionError:
        return [f"{where}: its schema refers to itself without end"]
    found.sort(key=lambda one: len(one.absolute_path))
    # The library's messages quote what they refuse; a secret among it is not repeated (rule 25).
    whole = {where: value}
    return [
        f"{'/'.join([where, *map(str, one.absolute_path)])}: {redact.hide(one.message, whole)[:_LONGEST]}"
        for one in found[:most]
    ]
