"""The CEL adapter: expressions typed when a file is loaded, evaluated in microseconds, and failing closed.

Nothing else in Keyturn talks to the CEL library. What a match means is decided in `risk`, what a gate is in `gates`.
Compiled expressions are immutable and may be used from any thread.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Annotated, TypeAlias, cast

from cel_expr_python import cel  # pyright: ignore[reportMissingTypeStubs] the module has a stub, its folder has none
from cel_expr_python.ext import ext_strings  # pyright: ignore[reportMissingTypeStubs] the same
from pydantic import PlainValidator

from orchestrator.core.model import Action, Level, Requester
from orchestrator.core.plain import plain_json

MAX_EXPRESSION = 4096
MAX_ENTRIES = 1000
_MAP = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
_TEXT, _TEXTS = cel.Type.STRING, cel.Type.List(cel.Type.STRING)
WORKFLOW_TEXTS = ("id", "graph", "node", "namespace", "case_id", "title", "mode")
RULE_VARIABLES: Mapping[str, cel.Type] = {
    **{f"action.{name}": _TEXT for name in ("operation", "environment", "target", "resource_type")},
    "action.arguments": _MAP,
    "action.estimated_cost": cel.Type.DOUBLE,
    "action.security_findings": cel.Type.List(_MAP),
    "action.metadata": _MAP,
    **{f"requester.{name}": _TEXT for name in ("person", "on_behalf_of", "launched_by")},
    "requester.roles": _TEXTS,
    **{f"workflow.{name}": _TEXT for name in WORKFLOW_TEXTS},
    "workflow.input": _MAP,
    "confidence": cel.Type.DOUBLE,
    "has_confidence": cel.Type.BOOL,
}
# Rules make the risk, so only policies may read it.
POLICY_VARIABLES: Mapping[str, cel.Type] = {**RULE_VARIABLES, "risk": _TEXT}
_MESSAGE = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")
_HAS_FIELD = re.compile(r"\bhas\(\s*(\w+\.\w+)\s*\)")
_STATE_FIELD = re.compile(r"\bstate\b(?:\s*\.\s*([A-Za-z_]\w*)|\s*\[\s*(?:'([^'\\]*)'|\"([^\"\\]*)\")\s*\])?")


class ExpressionError(ValueError):
    """An expression that cannot be compiled, or whose evaluation failed; the text is for an operator."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules see of one request, converted once for all of them.

    `unusable` says why a variable was left out because it cannot be judged: a rule that reads it fails. `given` are
    the converted values, from which `with_risk` builds what the policies see.
    """

    activation: cel.Activation = field(repr=False)
    unusable: Mapping[str, str] = field(default_factory=dict[str, str])
    given: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)

    def with_risk(self, level: Level) -> Facts:
        """What the match of a policy sees: the same, and the level that the rules found as `risk`."""
        given = {**self.given, "risk": level.value}
        return Facts(_policy_environment().Activation(given), self.unusable, given)


@dataclass(frozen=True, slots=True)
class Predicate:
    """A rule's condition: CEL over `action`, `requester`, `workflow`, `confidence` that says true or false."""

    text: str
    _compiled: cel.Expression = field(repr=False, compare=False)

    def matches(self, facts: Facts) -> bool:
        """Whether the condition holds. Raises ExpressionError when that cannot be said; count it as matched."""
        try:
            value = self._compiled.eval(activation=facts.activation)
        except RuntimeError as error:
            raise ExpressionError(_cleaned(str(error))) from error
        # An error's value is a non-empty string, which Python takes for true: only the type tells.
        if value.type() == cel.Type.BOOL:
            return cast("bool", value.value())
        causes = [why for name, why in facts.unusable.items() if name in self.text]
        raise ExpressionError("; ".join(causes) or _cleaned(str(value.value())))


@dataclass(frozen=True, slots=True)
class StateExpression:
    """CEL over a graph's `state` that gives a mapping."""

    text: str
    _compiled: cel.Expression = field(repr=False, compare=False)
    _reads: frozenset[str] | None = None

    def mapping(self, state: Mapping[str, object]) -> Mapping[str, object]:
        """The mapping for `state` (JSON-like values). Raises ExpressionError when it cannot be computed."""
        # Only the fields the expression names are converted: a state may hold megabytes of messages.
        read = state if self._reads is None else {key: state[key] for key in self._reads if key in state}
        try:
            result = plain_json(_plain_result(self._compiled, plain_json(read, "state", MAX_ENTRIES)), "the result")
        except (RuntimeError, ValueError) as error:
            raise ExpressionError(_cleaned(str(error))) from error
        if not isinstance(result, dict):
            raise ExpressionError(f"the expression gave {type(result).__name__}, not a mapping")
        return cast("Mapping[str, object]", result)


def _plain_result(compiled: cel.Expression, state: object) -> object:
    value = compiled.eval(data={"state": state})
    if value.type() == cel.Type.ERROR:
        raise ExpressionError(str(value.value()))
    return value.plain_value()


def predicate(text: object) -> Predicate:
    """`text` compiled as a rule's condition. Raises ExpressionError with the place and a hint."""
    return _predicate(text, _rule_environment(), RULE_VARIABLES)


def policy_predicate(text: object) -> Predicate:
    """`text` compiled as the match of a policy, which sees `risk` too. Raises ExpressionError as above."""
    return _predicate(text, _policy_environment(), POLICY_VARIABLES)


def _predicate(text: object, environment: cel.Env, variables: Mapping[str, cel.Type]) -> Predicate:
    source = _source(text)
    needless = next((name for name in _HAS_FIELD.findall(source) if name in variables), None)
    if needless:
        raise ExpressionError(
            f"has({needless}) asks nothing, {needless} is always there; has() is for keys inside maps"
        )
    compiled = _compile(environment, source, variables)
    kind = compiled.return_type()
    if kind != cel.Type.BOOL:
        raise ExpressionError(
            f"the rule gives {kind.name()}; allowed: BOOL, a condition that is true or false{_dyn_hint(kind)}"
        )
    return Predicate(source, compiled)


def state_expression(text: object) -> StateExpression:
    """`text` compiled as an expression over `state`. Raises ExpressionError with the place and a hint."""
    source = _source(text)
    compiled = _compile(_state_environment(), source, {"state": _MAP})
    kind = compiled.return_type().name()
    if not (kind == "DYN" or kind.startswith(("MAP<STRING", "MAP<DYN"))):
        raise ExpressionError(f"the expression gives {kind}; allowed: a map such as {{'target': state.service}}")
    names = [match.group(1) or match.group(2) or match.group(3) for match in _STATE_FIELD.finditer(source)]
    return StateExpression(source, compiled, None if None in names else frozenset(names))


Condition: TypeAlias = Annotated[Predicate, PlainValidator(predicate)]
"""A field of a configuration file that holds a rule's condition."""

PolicyCondition: TypeAlias = Annotated[Predicate, PlainValidator(policy_predicate)]
"""A field of a configuration file that holds the match of a policy."""

StateMapping: TypeAlias = Annotated[StateExpression, PlainValidator(state_expression)]
"""A field of a configuration file that holds an expression over a graph's state."""


def facts_of(action: Action, requester: Requester, workflow: Mapping[str, object], confidence: float | None) -> Facts:
    """What rules see. `confidence` None means that none applies: rules then see 100.0 and `has_confidence` false.

    A confidence that is not a number is 0.0, and so is a cost that was not estimated; texts that were not given are
    empty. Of `workflow` the fields of WORKFLOW_TEXTS and `input` are read.
    """
    given: dict[str, object] = {f"action.{name}": value for name, value in action.to_json().items()}
    given["action.estimated_cost"] = 0.0 if action.estimated_cost is None else action.estimated_cost
    given["requester.person"] = requester.person
    given["requester.on_behalf_of"] = requester.on_behalf_of or ""
    given["requester.launched_by"] = requester.launched_by or ""
    given["requester.roles"] = sorted(requester.roles)
    given |= {f"workflow.{name}": str(workflow.get(name) or "") for name in WORKFLOW_TEXTS}
    given["workflow.input"] = workflow.get("input") or {}
    given["confidence"] = 100.0 if confidence is None else 0.0 if math.isnan(confidence) else confidence
    given["has_confidence"] = confidence is not None
    usable: dict[str, object] = {}
    unusable: dict[str, str] = {}
    for name, value in given.items():
        try:
            usable[name] = plain_json(value, name, MAX_ENTRIES)
        except ValueError as error:
            unusable[name] = str(error)
    return Facts(_rule_environment().Activation(usable), unusable, usable)


@cache
def _rule_environment() -> cel.Env:
    return cel.NewEnv(variables=RULE_VARIABLES, extensions=[ext_strings.ExtStrings()])


@cache
def _policy_environment() -> cel.Env:
    return cel.NewEnv(variables=POLICY_VARIABLES, extensions=[ext_strings.ExtStrings()])


@cache
def _state_environment() -> cel.Env:
    return cel.NewEnv(variables={"state": _MAP}, extensions=[ext_strings.ExtStrings()])


def _source(text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ExpressionError("must be a CEL expression, written as text")
    if len(text.encode()) > MAX_EXPRESSION:
        raise ExpressionError(f"is too long; allowed: {MAX_EXPRESSION} bytes")
    if "\0" in text:
        raise ExpressionError("contains a NUL character")
    return text


def _compile(environment: cel.Env, source: str, variables: Mapping[str, cel.Type]) -> cel.Expression:
    try:
        return environment.compile(source)
    except RuntimeError as error:
        found = _MESSAGE.findall(str(error))
        if not found:
            raise ExpressionError(_cleaned(str(error))) from error
        lines = len(source.splitlines())
        places = (f"line {line}, column {column}: " if lines > 1 else f"column {column}: " for line, column, _ in found)
        texts = (
            f"{place}{_shortened(what)}{_hint(what, variables)}"
            for place, (*_, what) in zip(places, found, strict=True)
        )
        raise ExpressionError("; ".join(texts)) from error


def _hint(message: str, variables: Mapping[str, cel.Type]) -> str:
    if "(double, int)" in message or "(int, double)" in message:
        return " (this field is a DOUBLE: write 85.0, not 85)"
    undeclared = _UNDECLARED.search(message)
    if undeclared is None:
        return ""
    name = undeclared.group(1)
    below = [variable for variable in variables if variable.startswith(f"{name}.")]
    if below:
        return f", name one of its fields; allowed: {', '.join(below)}"
    close = get_close_matches(name, variables, 1)
    return f"{f', did you mean {close[0]}?' if close else ''}; allowed: {', '.join(variables)}"


def _dyn_hint(kind: cel.Type) -> str:
    return " (compare it, as in action.metadata.flag == true)" if kind == cel.Type.DYN else ""


def _shortened(message: str) -> str:
    """The compiler's message without its list of every token it would have taken."""
    return message.partition(" expecting ")[0].replace(" (in container '')", "")


def _cleaned(message: str) -> str:
    """The library's message without its status words."""
    return re.sub(r"^[A-Z_]+: | \[[A-Z_]+\]$", "", " ".join(message.split()))[:300]
