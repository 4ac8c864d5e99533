"""Reading an action from what a graph, a gate expression or a caller wrote.

Nothing is guessed: an unknown field or a value of the wrong kind is refused, because the digest covers every field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import cast

from orchestrator.core.errors import InvalidInput
from orchestrator.core.model import Action
from orchestrator.core.plain import plain_json

MAX_NAME = 200
TEXT_FIELDS = ("operation", "environment", "target", "resource_type")
ACTION_FIELDS = (*TEXT_FIELDS, "arguments", "estimated_cost", "security_findings", "metadata")


def action_from(value: Mapping[str, object], *, operation: str = "", environment: str = "") -> Action:
    """The action that `value` describes; `operation` and `environment` stand in where it names none.

    Raises InvalidInput, naming the field: unknown fields, no operation, a value of the wrong kind, or one that JSON
    cannot hold.
    """
    unknown = [str(key) for key in value if key not in ACTION_FIELDS]
    if unknown:
        raise InvalidInput(_unknown(unknown), field=unknown[0], allowed=list(ACTION_FIELDS))
    given = {key: _plain(key, item) for key, item in value.items() if item is not None}
    texts = {name: _text(name, given.get(name, "")) for name in TEXT_FIELDS}
    texts["operation"] = texts["operation"] or operation
    texts["environment"] = texts["environment"] or environment
    if not texts["operation"].strip():
        raise InvalidInput("an action needs an `operation`: what will be done, such as delete_project")
    return Action(
        **texts,
        arguments=_mapping("arguments", given.get("arguments", {})),
        estimated_cost=_cost(given.get("estimated_cost")),
        security_findings=_findings(given.get("security_findings", [])),
        metadata=_mapping("metadata", given.get("metadata", {})),
    )


def _unknown(names: Sequence[str]) -> str:
    close = get_close_matches(names[0], ACTION_FIELDS, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return (
        f"an action has no field {', '.join(names)}{hint} Allowed: {', '.join(ACTION_FIELDS)}."
        " Anything else belongs in `metadata`."
    )


def _plain(name: str, value: object) -> object:
    try:
        return plain_json(value, name)
    except ValueError as error:
        raise InvalidInput(f"the action's {error}", field=name) from error


def _wrong(name: str, wanted: str, value: object) -> InvalidInput:
    return InvalidInput(f"the action's `{name}` must be {wanted}, not {type(value).__name__}", field=name)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "text", value)
    if name != "target" and len(value) > MAX_NAME:
        raise InvalidInput(f"the action's `{name}` is longer than {MAX_NAME} characters", field=name)
    return value


def _mapping(name: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _wrong(name, "a mapping", value)
    return cast("dict[str, object]", value)


def _findings(value: object) -> tuple[Mapping[str, object], ...]:
    if not isinstance(value, list):
        raise _wrong("security_findings", "a list of mappings", value)
    return tuple(
        _mapping(f"security_findings[{index}]", item) for index, item in enumerate(cast("list[object]", value))
    )


def _cost(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong("estimated_cost", "a number", value)
    if value < 0:
        raise InvalidInput(f"the action's `estimated_cost` must not be negative: {value}", field="estimated_cost")
    return float(value)


def described(action: Action) -> str:
    """An action as one line for people."""
    where = f"in {action.environment}" if action.environment else ""
    return " ".join(part for part in (action.operation, action.target, where) if part)
