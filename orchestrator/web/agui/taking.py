"""What a graph is given of a client's request: what its input schema names, and of that what is new. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from ag_ui.core.types import RunAgentInput
from pydantic import BaseModel

from orchestrator.core.canonical import MASK, canonical_json
from orchestrator.core.errors import InvalidInput
from orchestrator.web.agui.conversation import last_words, new_messages

Json = Mapping[str, object]
_MESSAGES: Final = "messages"
# What a request carries besides, where a graph has a field for it.
_ENVELOPE: Final = {"tools": "tools", "context": "context", "forwardedProps": "forwarded_props"}


@dataclass(frozen=True, slots=True)
class Takes:
    """The fields of a graph's input and what is known of each."""

    fields: Mapping[str, Json]
    required: frozenset[str]

    @property
    def text_field(self) -> str | None:
        """The one field that is a text, where the graph takes no messages: the person's last words go there."""
        texts = [name for name, schema in self.fields.items() if schema.get("type") == "string"]
        needed = [name for name in texts if name in self.required]
        found = needed if len(needed) == 1 else texts
        return found[0] if len(found) == 1 and _MESSAGES not in self.fields else None


def takes_of(offer: Mapping[str, Any]) -> Takes:
    """What the newest version of a graph takes: its schema's fields, or those it told where the schema lists none."""
    schema = cast("Json", offer["input_schema"])
    fields = cast("Mapping[str, Json]", schema.get("properties") or {})
    traits = cast("Json", offer["traits"])
    told = cast("Sequence[str]", traits.get("fields") or ())
    # Of a schema that says nothing it is still known which field takes what a person says.
    hinted = {name: {"type": "string"} if name == traits.get("says") != _MESSAGES else {} for name in told}
    return Takes(fields or hinted, frozenset(cast("Sequence[str]", schema.get("required") or ())))


def graph_input(body: RunAgentInput, takes: Takes, values: Json, known: Collection[str]) -> dict[str, object]:
    """The input of a run. `values` is the thread's state as its clients see it, `known` the messages it has."""
    given = {**_changed(body.state, takes, values), **_envelope(body, takes)}
    if _MESSAGES in takes.fields:
        if said := new_messages(body.messages, known):
            given[_MESSAGES] = said
    elif takes.text_field and (words := last_words(body.messages)) is not None:
        given[takes.text_field] = words
    return given


def _changed(state: object, takes: Takes, values: Json) -> dict[str, object]:
    """The fields that the client has changed. It sends all of its state back, and what a graph adds up would double."""
    if state is None:
        return {}
    if not isinstance(state, Mapping):
        detail = "state: an object is expected, as a graph's state has fields"
        raise InvalidInput(detail)
    changed: dict[str, object] = {}
    for name, value in cast("Json", state).items():
        if name not in takes.fields or name == _MESSAGES or (name in values and values[name] == value):
            continue
        if MASK in canonical_json(value):
            detail = (
                f"state.{name} holds a value that was hidden ({MASK}); send the field with its real value or not at all"
            )
            raise InvalidInput(detail)
        changed[name] = value
    return changed


def _envelope(body: RunAgentInput, takes: Takes) -> dict[str, object]:
    given: dict[str, object] = {}
    for name, attribute in _ENVELOPE.items():
        value: object = getattr(body, attribute)
        for field in {name, attribute} & set(takes.fields):
            if value is not None:
                given[field] = _plain(value)
    return given


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [_plain(one) for one in cast("list[object]", value)]
    return value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value


def brings_nothing(given: Json, running: Json) -> bool:
    """Whether a request that came again asks for nothing besides what runs already."""
    return all(name in running and running[name] == value for name, value in given.items())
