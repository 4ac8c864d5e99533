"""A tool function's arguments and result as JSON, and back: what an approver sees is what the function gets.

Arguments that LangGraph injects (state, store, runtime, call id) are nobody's to approve and are left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolArg
from langgraph.prebuilt import ToolRuntime
from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, SchemaError

from orchestrator.core.canonical import canonical_json
from orchestrator.core.errors import InvalidInput
from orchestrator.core.plain import plain_json

T = TypeVar("T")
_Adapter = TypeAdapter[object]
_DIRECT = (ToolRuntime, RunnableConfig)


@dataclass
class Shape:
    """The parameters and the result of one function. TypeError when it is none that can be approved."""

    function: Callable[..., object]

    def __post_init__(self) -> None:
        self.name = getattr(self.function, "__name__", "tool")
        if not inspect.iscoroutinefunction(self.function):
            raise TypeError(f"{self.name} must be an async function")
        self.signature = inspect.signature(self.function)
        for parameter in self.signature.parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                given = str(parameter).partition(":")[0]
                raise TypeError(f"{self.name} takes {given}: name every parameter, so that an approver can see it")

    @cached_property
    def hints(self) -> Mapping[str, Any]:
        """The types, resolved. TypeError, naming what is wrong, when they cannot be."""
        try:
            return get_type_hints(self.function, include_extras=True)
        except NameError as error:
            raise TypeError(f"a type of {self.name} cannot be found: {error}") from error

    @cached_property
    def adapters(self) -> Mapping[str, _Adapter]:
        """Each shown parameter's, in order."""
        shown = [name for name in self.signature.parameters if not _is_injected(self.hints.get(name))]
        return {name: self._adapter(name, self.hints.get(name, Any)) for name in shown}

    @cached_property
    def result(self) -> _Adapter:
        """The result's."""
        return self._adapter("its result", self.hints.get("return", Any))

    def _adapter(self, name: str, hint: Any) -> _Adapter:
        try:
            return cast("_Adapter", TypeAdapter(hint))
        except (PydanticUserError, SchemaError) as error:
            told = str(error).splitlines()[0]
            raise TypeError(f"{self.name}: the type of {name} cannot be written as JSON: {told}") from error

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> inspect.BoundArguments:
        """A call's arguments with the defaults filled in."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound

    def call(self, function: Callable[..., T], bound: inspect.BoundArguments) -> T:
        """Call `function` with a call's arguments, by name wherever they have one to be called by."""
        only = [one.name for one in self.signature.parameters.values() if one.kind is one.POSITIONAL_ONLY]
        named = {name: value for name, value in bound.arguments.items() if name not in only}
        return function(*(bound.arguments[name] for name in only), **named)

    def to_json(self, bound: inspect.BoundArguments) -> dict[str, object]:
        """The shown arguments. InvalidInput for one that does not fit its type or that JSON cannot hold."""
        found: dict[str, object] = {}
        for name, adapter in self.adapters.items():
            try:
                adapter.validate_python(bound.arguments[name])
                value = adapter.dump_python(bound.arguments[name], mode="json", warnings="error")
                found[name] = plain_json(value, name)
            except ValidationError as error:
                detail = f"{self.name} was called with a `{name}` that does not fit: {error.errors()[0]['msg']}"
                raise InvalidInput(detail, argument=name) from None
            except (PydanticSerializationError, ValueError) as error:
                detail = f"{self.name} was called with a `{name}` that does not fit its type, or that JSON cannot hold"
                raise InvalidInput(detail, argument=name) from error
        return found

    def with_edits(self, bound: inspect.BoundArguments, given: Mapping[str, object]) -> inspect.BoundArguments:
        """The call with the shown arguments replaced by `given`. InvalidInput, naming all that does not fit."""
        problems = [f"{name}: there is no such argument" for name in given if name not in self.adapters]
        edited = self.signature.bind(*bound.args, **bound.kwargs)
        for name, adapter in self.adapters.items():
            if name not in given:
                problems.append(f"{name}: is missing")
                continue
            try:
                edited.arguments[name] = adapter.validate_json(canonical_json(given[name]), strict=True)
            except ValidationError as error:
                # Without the value itself, which may be a secret.
                problems += [f"{'.'.join(map(str, (name, *one['loc'])))}: {one['msg']}" for one in error.errors()]
        if problems:
            raise InvalidInput("; ".join(problems), problems=problems)
        return edited

    def schema(self) -> dict[str, object]:
        """The JSON Schema of the shown arguments."""
        properties = {name: adapter.json_schema() for name, adapter in self.adapters.items()}
        return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}

    def result_json(self, value: object) -> object:
        """A result for the ledger. It has happened by now, so what JSON cannot hold is kept as text."""
        try:
            return plain_json(self.result.dump_python(value, mode="json", warnings=False), "the result")
        except (PydanticSerializationError, ValueError):
            return repr(value).replace("\0", "\ufffd").encode(errors="replace").decode()

    def result_from(self, recorded: object) -> object:
        """A result from the ledger, in the type that the function declares."""
        try:
            return self.result.validate_json(canonical_json(recorded))
        except ValidationError:
            return recorded


def _is_injected(hint: object) -> bool:
    if get_origin(hint) is Annotated:
        return any(
            isinstance(one, InjectedToolArg) or (isinstance(one, type) and issubclass(one, InjectedToolArg))
            for one in get_args(hint)[1:]
        )
    return (get_origin(hint) or hint) in _DIRECT
