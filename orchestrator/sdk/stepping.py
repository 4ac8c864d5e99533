"""`steps([...])`: a long task as a graph of steps, one after the other, each with its time-out, retries and weight.

LangGraph itself times a step out and tries it again; here is what it needs to know of each step, and the care for the
attempt before: two attempts of one step never run at once in a process.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, cast

from langgraph.config import get_config
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import get_runtime
from langgraph.types import RetryPolicy

from orchestrator.core.errors import GraphFault, KeyturnError, StepFailed
from orchestrator.sdk.options import options
from orchestrator.sdk.runtime import current_host, current_visit
from orchestrator.sdk.telling import Attempt, current_attempt, tell_attempt

S = TypeVar("S")

Result = Mapping[str, object] | None
Handler = Callable[[Any], Awaitable[Result] | Result]
Body = Callable[[Any], Awaitable[Result]]
StepsGraph = CompiledStateGraph[Any, Any, Any, Any]

_MOST_RETRIES = 100


def _added(state: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    return {**state, **more}


# The state where none is given: one dict, to which each step adds what it returns.
_OPEN_STATE = Annotated[dict[str, Any], _added]


@dataclass(frozen=True, slots=True)
class Substep:
    """A part of a step, for which `progress(..., substep=name)` tells. `weight` is its share of the step."""

    name: str
    weight: float = 1.0
    title: str = ""


@dataclass(frozen=True, slots=True)
class Step(Generic[S]):
    """One step. `handler` gets the state and returns what it changes of it, or None.

    `timeout` is seconds for one attempt; `retries` how often it is tried again when it raises or times out, after half
    a second, then twice as long each time. Refusals, such as a rejected approval, are not tried again. `weight` is the
    step's share of the whole.

    An `async def` handler is cancelled when it times out, when the task is cancelled, and when the worker stops. A
    plain function runs in a thread, which nothing can stop from outside: the task goes on without it at once and drops
    what it returns, but it runs on, with whatever effects it has, until it returns or calls `progress()`, which raises
    `asyncio.CancelledError` there. The next attempt starts when it has ended, and waits for that within its own
    time-out. So call `progress()` in every turn of a long loop, or hand out work that has a time-out of its own.
    """

    name: str
    handler: Callable[[S], Awaitable[Result] | Result]
    timeout: float | None = None
    retries: int = 0
    weight: float = 1.0
    substeps: Sequence[str | Substep] = ()
    title: str = ""


def steps(
    steps: Sequence[Step[S]],
    *,
    state: type[S] | None = None,
    timeout: float | None = None,
    max_running: int | None = 5,
    input_schema: Mapping[str, object] | None = None,
) -> StepsGraph:
    """A graph that runs `steps` in this order, each once: a finished step is never run again.

    `state` is the state's type (default: a dict to which each step adds what it returns). `timeout` is the seconds for
    the whole, counted from submission, waiting included; a `deadline` given at submission goes before it. `max_running`
    of its workflows run at once, over all workers (None: no limit). `input_schema` is a JSON Schema for the input.
    Raises GraphFault that names a step whose settings are wrong.
    """
    _check(steps, timeout, max_running)
    builder = cast("Any", StateGraph)(_OPEN_STATE if state is None else state)
    before = START
    for step in steps:
        builder.add_node(
            step.name, _body(step), timeout=step.timeout, retry_policy=_retry_policy(step), metadata={"step": True}
        )
        builder.add_edge(before, step.name)
        before = step.name
    builder.add_edge(before, END)
    graph = cast("StepsGraph", builder.compile())
    return options(graph, input_schema=input_schema, max_running=max_running, plan=_plan(steps, timeout))


def _retry_policy(step: Step[S]) -> RetryPolicy | None:
    return RetryPolicy(max_attempts=step.retries + 1, retry_on=_worth_another_try) if step.retries else None


def _worth_another_try(error: Exception) -> bool:
    """A refusal, and a lease that is gone, will not change by asking again, however a handler wrapped it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyturnError):
            return isinstance(seen, StepFailed)
        seen = seen.__cause__
    return True


def _plan(steps: Sequence[Step[S]], timeout: float | None) -> dict[str, object]:
    """What the progress view and submission read of the graph."""
    told: list[dict[str, object]] = [
        {
            "name": step.name,
            "title": step.title,
            "weight": step.weight,
            "attempts": step.retries + 1,
            "timeout": step.timeout,
            "substeps": [{"name": one.name, "title": one.title, "weight": one.weight} for one in _substeps(step)],
        }
        for step in steps
    ]
    return {"steps": told, "timeout": timeout}


def _substeps(step: Step[S]) -> list[Substep]:
    return [Substep(one) if isinstance(one, str) else one for one in step.substeps]


# Running a step

# By the visit, so that also a lease that came back to this process waits for what it left behind: LangGraph's id of the
# task is another one then, where nothing was committed before.
_under_way: dict[str, Future[None]] = {}


def _body(step: Step[S]) -> Body:
    """The node of a step. Async in any case: LangGraph can time out nothing else."""
    handler = cast("Handler", step.handler)

    async def run(state: Any) -> Result:
        task = _place()
        while (earlier := _under_way.get(task)) is not None:
            await asyncio.shield(asyncio.wrap_future(earlier))
        over = _under_way[task] = Future[None]()
        attempt = Attempt(_number(), step.retries + 1)
        token = current_attempt.set(attempt)
        try:
            tell_attempt(attempt)
            result = handler(state) if _is_async(handler) else await asyncio.to_thread(attempt.within, handler, state)
            return await result if inspect.isawaitable(result) else result
        finally:
            current_attempt.reset(token)
            attempt.leave(lambda: _forget(task, over))

    run.__name__ = step.name
    return run


def _place() -> str:
    """The step in its workflow: the same for every attempt."""
    place = str(get_config().get("metadata", {})["langgraph_checkpoint_ns"])
    host, visit = current_host.get(), current_visit.get()
    if host is None or visit is None:
        return place
    # "outer:id|2|inner:id" without the ids; what they tell apart otherwise, the visit does.
    nodes = "|".join(part.partition(":")[0] for part in place.split("|"))
    return f"{host.workflow_id}:{visit.node}:{visit.number}:{nodes}"


def _forget(task: str, over: Future[None]) -> None:
    _under_way.pop(task, None)
    over.set_result(None)


def _number() -> int:
    info = get_runtime().execution_info
    return 1 if info is None else info.node_attempt


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004 an object with an async __call__


# Checking what was written


def _check(steps: Sequence[Step[S]], timeout: float | None, max_running: int | None) -> None:
    if not steps:
        raise GraphFault("steps([...]) was given no step; write at least one Step(name, handler)")
    _unique("steps", [step.name for step in steps])
    _positive("the total time-out", timeout)
    if max_running is not None and max_running < 1:
        raise GraphFault(f"max_running is {max_running}; write 1 or more, or None for no limit")
    for step in steps:
        _positive(f"step {step.name}: timeout", step.timeout)
        _positive(f"step {step.name}: weight", step.weight)
        if not 0 <= step.retries <= _MOST_RETRIES:
            raise GraphFault(f"step {step.name}: retries is {step.retries}; write 0 to {_MOST_RETRIES}")
        _unique(f"step {step.name}: substeps", [one.name for one in _substeps(step)])
        for one in _substeps(step):
            _positive(f"step {step.name}: weight of sub-step {one.name}", one.weight)


def _unique(what: str, names: Sequence[str]) -> None:
    if not all(names):
        raise GraphFault(f"{what}: one has no name")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise GraphFault(f"{what}: {', '.join(twice)} is there twice; names must differ")


def _positive(what: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise GraphFault(f"{what} is {value}; write a number above 0")
