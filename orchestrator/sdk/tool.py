"""`@hitl_tool`: an async tool whose every call is asked for, recorded, and run at most once as approved.

A call is one approval: AUTO runs at once and leaves the same rows, QUICK and FULL wait for a person. It works called
from a node, in LangGraph's `ToolNode`, and as a LangChain tool.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

from langchain_core.tools import BaseTool, StructuredTool
from langgraph.errors import GraphBubbleUp
from langgraph.prebuilt.tool_node import ToolInvocationError

from orchestrator.core.canonical import digest, redact, without
from orchestrator.core.confidence import Confidence
from orchestrator.core.errors import ActionRejected, InvalidInput, KeyturnError, StepFailed
from orchestrator.core.model import Level
from orchestrator.sdk.confidence import Factors, configured, stated
from orchestrator.sdk.effects import Happened, Unknown, effect
from orchestrator.sdk.gate import Decision, as_action, confidence_payload
from orchestrator.sdk.signatures import Shape
from orchestrator.sdk.turns import Turns

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Doubt = Happened | Unknown | None
Told = float | Confidence | Factors | None

_key: ContextVar[str] = ContextVar("keyturn_tool_key", default="")


class ToolRejected(ActionRejected, ToolInvocationError):  # noqa: N818 the tree's words: refusals and faults
    """A person or a rule said no to a tool call; nothing ran.

    `by` and `note` say who and why. Uncaught in a node it ends the workflow as failed with the code `rejected`; in
    `ToolNode`, and in a tool made by `as_tool()`, it becomes a ToolMessage with status `error` that the model can read.
    """

    def __init__(self, tool_name: str, detail: str, *, by: tuple[str, ...], note: str, approval_id: str) -> None:
        Exception.__init__(self, detail)
        self.detail = detail
        self.message = detail
        self.facts: Mapping[str, object] = {"approval_id": approval_id, "tool": tool_name}
        self.tool_name = tool_name
        self.by = by
        self.note = note
        self.approval_id = approval_id


class HitlTool(Protocol[P, R_co]):
    """A governed tool: called like the function it was made of, and turned into a LangChain tool on demand."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Ask, and run as approved. Raises ToolRejected."""
        ...

    def as_tool(self, *, name: str | None = None, description: str | None = None) -> BaseTool:
        """A LangChain tool that answers a rejection with a ToolMessage of status `error`."""
        ...


@dataclass(frozen=True, slots=True)
class _Gate(Generic[P, R]):
    """What `hitl_tool` was given, and the function it was put on."""

    function: Callable[P, Awaitable[R]]
    shape: Shape
    approval_type: str
    risk_level: str
    thresholds: Mapping[str, float]
    description: str
    target: str | None
    cost: str | None
    fixed: Mapping[str, object]
    confidence: float | Callable[..., Told] | None
    editable: bool
    verify: Callable[..., Awaitable[Doubt] | Doubt] | None

    async def call(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        """One call, from its request to its result."""
        turns = Turns.here()
        bound = self.shape.bind(args, kwargs)
        _ = self.shape.result  # a result that could not be recorded is refused before anything runs
        action = self._action(bound)
        number = turns.number(digest(action))
        if number > 1:
            # The same once more within one node: a request of its own.
            action = as_action({**action, "metadata": {**self._metadata(), "call": number}}).to_json()
        name = f"{self.shape.name}.{digest(action)[:12]}"
        async with turns.turn():
            decision = await turns.ask(self._payload(bound, action), action)
            if not decision.approved:
                raise self._rejected(decision)
            running = self._as_approved(bound, action, decision)
            return await self._run(name, running, decision)

    async def _run(self, name: str, bound: inspect.BoundArguments, decision: Decision) -> object:
        entry = effect(name, verify=self._verify(bound), approval=decision, action=decision.action)
        token = _key.set(entry.key)
        try:
            async with entry:
                recorded = await entry.once(lambda: self._body(bound))
        finally:
            _key.reset(token)
        return self.shape.result_from(recorded)

    async def _body(self, bound: inspect.BoundArguments) -> object:
        function = cast("Callable[..., Awaitable[object]]", self.function)
        try:
            return self.shape.result_json(await self.shape.call(function, bound))
        except (GraphBubbleUp, KeyturnError):
            raise
        except Exception as error:
            hidden = redact.hide(str(error), self.shape.to_json(bound))
            if hidden == str(error):
                raise
            # The error repeats a secret of the arguments, and errors are stored and shown (rule 25).
            raise StepFailed(f"{self.shape.name} failed: {hidden}") from None

    def _verify(self, bound: inspect.BoundArguments) -> Callable[[], Awaitable[Doubt] | Doubt] | None:
        if self.verify is None:
            return None
        verify = self.verify
        return lambda: self.shape.call(verify, bound)

    # What is asked

    def _metadata(self) -> dict[str, object]:
        return {**cast("Mapping[str, object]", self.fixed.get("metadata", {})), "tool": self.shape.name}

    def _action(self, bound: inspect.BoundArguments) -> dict[str, object]:
        arguments = self.shape.to_json(bound)
        given: dict[str, object] = {**self.fixed, "operation": self.approval_type, "arguments": arguments}
        if self.target is not None:
            given["target"] = str(arguments[self.target])
        if self.cost is not None:
            given["estimated_cost"] = arguments[self.cost]
        return as_action({**given, "metadata": self._metadata()}).to_json()

    def _payload(self, bound: inspect.BoundArguments, action: Mapping[str, object]) -> dict[str, object]:
        payload: dict[str, object] = {
            "type": "approval", "action": action, "on_reject": "resume", "risk": self.risk_level,
            "description": self.description, "editable": self.editable, "confidence": None,
        }  # fmt: skip
        if self.thresholds:
            payload["thresholds"] = dict(self.thresholds)
        if self.editable:
            payload["arguments_schema"] = self.shape.schema()
            # What of the action tells of an argument, and changes with it.
            told = {"target": self.target, "estimated_cost": self.cost}
            payload["arguments_told"] = {field: name for field, name in told.items() if name is not None}
        return payload | confidence_payload(self._confidence(bound))

    def _confidence(self, bound: inspect.BoundArguments) -> float | Confidence | None:
        told: Told = stated()
        if callable(self.confidence):
            told = self.shape.call(self.confidence, bound)
        elif self.confidence is not None:
            told = self.confidence
        return configured().base(told) if isinstance(told, Mapping) else told

    # What was decided

    def _rejected(self, decision: Decision, reason: str = "") -> ToolRejected:
        who = ", ".join(decision.by) or "somebody"
        told = f"{self.shape.name} was rejected by {who}{f': {decision.note}' if decision.note else ''}; it did not run"
        return ToolRejected(
            self.shape.name, reason or told, by=decision.by, note=decision.note, approval_id=decision.approval_id
        )

    def _as_approved(
        self, bound: inspect.BoundArguments, asked: Mapping[str, object], decision: Decision
    ) -> inspect.BoundArguments:
        """The call as approved: as it was asked, or with the arguments that were edited since (rules 9 and 10).

        What an edit made of it must fit the function, and the rest of the action must still tell of it.
        """
        if decision.digest == digest(asked, decision.volatile_fields):
            return bound
        approved = decision.action
        try:
            edited = self.shape.with_edits(bound, cast("Mapping[str, object]", approved.get("arguments") or {}))
        except InvalidInput as error:
            detail = f"the edited arguments of {self.shape.name} do not fit it: {error.detail}; it did not run"
            raise self._rejected(decision, detail) from error
        told = {**self._action(edited), "metadata": asked["metadata"]}
        shown, found = (without(one, decision.volatile_fields) for one in (approved, told))
        differing = sorted(key for key in {*shown, *found} if shown.get(key) != found.get(key))
        if differing:
            detail = f"the edited request of {self.shape.name} does not fit its arguments in: {', '.join(differing)}"
            raise self._rejected(decision, f"{detail}; it did not run")
        return edited


def hitl_tool(
    approval_type: str,
    risk_level: str = "low",
    auto_threshold: float | None = None,
    quick_threshold: float | None = None,
    *,
    description: str = "",
    target: str | None = None,
    cost: str | None = None,
    environment: str = "",
    resource_type: str = "",
    metadata: Mapping[str, object] | None = None,
    confidence: float | Callable[..., Told] | None = None,
    editable: bool = True,
    verify: Callable[..., Awaitable[Doubt] | Doubt] | None = None,
) -> Callable[[Callable[P, Awaitable[R]]], HitlTool[P, R]]:
    """Put a gate before an async tool function.

    `approval_type` is the action's `operation`, which rules, triggers and policies see; `risk_level` can raise what
    they find, never lower it. `target` and `cost` name the arguments that are the action's target and estimated cost.
    The thresholds (0 to 100) stand in place of those of `confidence.yaml`.

    `confidence` is how sure the agent is of a call: a number from 0 to 100, or a function of the tool's arguments that
    gives one, or factors, or what `calculate_confidence` gives. Without it the surrounding `confident(...)` block
    counts, and without that, 0. `editable` lets an approver change the arguments. After a crash in the middle of a
    call `verify`, given the same arguments, tells whether it happened; without it a person is asked.

    Raises TypeError for a function that is not async or takes `*args` or `**kwargs`, ValueError for wrong thresholds.
    """
    thresholds = _thresholds(auto_threshold, quick_threshold)
    level = Level(risk_level).value
    fixed: dict[str, object] = {
        "environment": environment, "resource_type": resource_type, "metadata": dict(metadata or {}),
    }  # fmt: skip

    def decorate(function: Callable[P, Awaitable[R]]) -> HitlTool[P, R]:
        shape = Shape(function)
        unknown = [name for name in (target, cost) if name is not None and name not in shape.signature.parameters]
        if unknown:
            raise TypeError(f"{shape.name} has no argument {', '.join(unknown)}")
        told = description or next(iter((inspect.getdoc(function) or "").splitlines()), "")
        gate = _Gate(
            function, shape, approval_type, level, thresholds, told, target, cost, fixed, confidence, editable, verify
        )

        @functools.wraps(function)
        async def governed(*args: P.args, **kwargs: P.kwargs) -> R:
            return cast("R", await gate.call(args, kwargs))

        def as_tool(*, name: str | None = None, description: str | None = None) -> BaseTool:
            return StructuredTool.from_function(
                coroutine=governed, name=name or shape.name, description=description, handle_tool_error=True
            )

        # LangChain reads types from here; those that are written as text cannot be found from another module.
        _resolve(governed, shape)
        governed.as_tool = as_tool  # pyright: ignore[reportFunctionMemberAccess, reportAttributeAccessIssue]
        return cast("HitlTool[P, R]", governed)

    return decorate


def tool_key() -> str:
    """The idempotency key of the governed tool call that runs: the same again after a crash, never otherwise.

    Hand it to whatever the tool calls. RuntimeError outside of a governed tool.
    """
    found = _key.get()
    if not found:
        message = "tool_key() works only inside a function made by @hitl_tool"
        raise RuntimeError(message)
    return found


def _thresholds(auto: float | None, quick: float | None) -> dict[str, float]:
    found = {name: value for name, value in (("auto", auto), ("quick", quick)) if value is not None}
    for name, value in found.items():
        if not 0 <= value <= 100:  # noqa: PLR2004 a percentage
            raise ValueError(f"{name}_threshold is {value}; allowed: 0 to 100")
    if auto is not None and quick is not None and quick > auto:
        raise ValueError(f"quick_threshold ({quick}) is above auto_threshold ({auto})")
    return found


def _resolve(governed: Callable[..., object], shape: Shape) -> None:
    try:
        hints = dict(shape.hints)
    except TypeError:
        return  # found out, and told, when it is called
    parameters = [one.replace(annotation=hints.get(one.name, one.annotation)) for one in
                  shape.signature.parameters.values()]  # fmt: skip
    returned = hints.get("return", shape.signature.return_annotation)
    governed.__annotations__ = hints
    governed.__signature__ = shape.signature.replace(  # pyright: ignore[reportFunctionMemberAccess]
        parameters=parameters, return_annotation=returned
    )
