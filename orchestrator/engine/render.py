"""Whatever a graph keeps in its state, as JSON for people and rules. One way only: nothing is read back from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from enum import Enum
from typing import Any, cast

from pydantic import BaseModel

_DEEPEST = 50


def to_json(value: object, depth: int = 0) -> object:  # noqa: C901, PLR0911, PLR0912 one case a kind of value
    """`value` as plain JSON values; what JSON cannot say becomes text. Never raises."""
    match value:
        case _ if depth > _DEEPEST:
            return str(type(value).__name__)
        case Enum():
            return to_json(value.value, depth + 1)
        case None | bool():
            return value
        case str():
            return value.replace("\0", "").encode(errors="replace").decode()
        case int():
            return value if abs(value) < 2**63 else str(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case datetime() | date():
            return value.isoformat()
        case BaseModel():
            return to_json(value.model_dump(), depth + 1)
        case Mapping():
            items = cast("Mapping[object, object]", value)
            return {str(to_json(str(key))): to_json(item, depth + 1) for key, item in items.items()}
        case list() | tuple():
            return [to_json(item, depth + 1) for item in cast("Sequence[object]", value)]
        case AbstractSet():
            return sorted((to_json(item, depth + 1) for item in cast("AbstractSet[object]", value)), key=repr)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields: dict[str, Any] = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return to_json(fields, depth + 1)
        case _:
            return to_json(str(value), depth + 1)


def to_object(value: object) -> dict[str, object]:
    """The same for a graph's state, which may be a mapping, a model or, rarely, a bare value."""
    rendered = to_json(value)
    return cast("dict[str, object]", rendered) if isinstance(rendered, dict) else {"value": rendered}
