"""Graphs for fault tests. Their effects land in a target that is not the database, and each has points to hold it at.

A point is named `<label>-<where>`, so that a test can hold one workflow of several.
"""

from __future__ import annotations

import asyncio
import contextlib
import operator
import os
from collections.abc import Generator
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from orchestrator.sdk import (
    PURE,
    Action,
    Happened,
    Unknown,
    ask,
    effect,
    idempotency_key,
    options,
    request_approval,
)
from tests.faults.target import Target


class State(TypedDict, total=False):
    target: str
    label: str
    operation: str
    environment: str
    arguments: dict[str, Any]
    verdict: str
    decision: dict[str, Any]
    log: Annotated[list[str], operator.add]


def target_of(state: State) -> Target:
    return Target(Path(state.get("target", "")))


def point(state: State, where: str) -> str:
    return f"{state.get('label', 'it')}-{where}"


@contextlib.contextmanager
def noted(state: State) -> Generator[str]:
    """The node's key, with its beginning, its end or what broke it noted at the target."""
    target, key = target_of(state), idempotency_key()
    target.mark(f"begin {key}")
    try:
        yield key
    except BaseException as error:
        target.mark(f"broke {key} {type(error).__name__}")
        raise
    target.mark(f"end {key}")


def chain(*nodes: Any, pure: tuple[str, ...] = (), **settings: Any) -> Any:
    builder = StateGraph(State)
    names = [node.__name__ for node in nodes]
    for name, node in zip(names, nodes, strict=True):
        builder.add_node(name, node, metadata=PURE if name in pure else None)
    for source, following in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, following)
    return builder.compile(**settings)


# Nodes


def assess(state: State) -> State:
    return {"log": ["assess"]}


def gate(state: State) -> State:
    decision = request_approval(
        Action(
            state.get("operation", "noop"),
            environment=state.get("environment", ""),
            arguments=state.get("arguments", {}),
        )
    )
    return {"log": [f"gate {','.join(decision.by)}"]}


async def charge(state: State) -> State:
    target = target_of(state)
    with noted(state) as key:
        what = f"charge {key.split(':')[0]}"
        await target.point(point(state, "before"))
        async with effect("charge", verify=lambda: verify(state, what)) as entry:
            if not entry.done:
                await target.point(point(state, "inside"))
                target.call(entry.key, what)
                await target.point(point(state, "called"))
                entry.record({"receipt": what})
        await target.point(point(state, "recorded"))
    return {"log": [f"charge {entry.result}"]}


def charge_in_thread(state: State) -> State:
    target = target_of(state)
    with noted(state) as key:
        what = f"charge {key.split(':')[0]}"
        target.point_in_thread(point(state, "before"))
        with effect("charge", verify=lambda: verify(state, what)) as entry:
            if not entry.done:
                target.point_in_thread(point(state, "inside"))
                target.call(entry.key, what)
                target.point_in_thread(point(state, "called"))
                entry.record({"receipt": what})
        target.point_in_thread(point(state, "recorded"))
    return {"log": [f"charge {entry.result}"]}


def verify(state: State, what: str) -> Happened | Unknown | None:
    match state.get("verdict", "truth"):
        case "happened":
            return Happened({"receipt": "found at the target"})
        case "did not happen":
            return None
        case "unknown":
            return Unknown()
        case _:
            return Happened({"receipt": what}) if target_of(state).applied()[what] else None


def gate_and_keep(state: State) -> State:
    """The decision goes into the state, so that the effect behind can be bound to it."""
    action = Action(state.get("operation", "noop"), environment=state.get("environment", ""))
    return {"decision": request_approval(action).to_json()}


async def charge_bound(state: State) -> State:
    target, decision = target_of(state), state.get("decision", {})
    with noted(state) as key:
        what = f"charge {key.split(':')[0]}"
        async with effect(
            "charge", verify=lambda: verify(state, what), approval=decision, action=decision["action"]
        ) as entry:
            if not entry.done:
                await target.point(point(state, "inside"))
                target.call(entry.key, what)
                await target.point(point(state, "called"))
                entry.record({"receipt": what})
        await target.point(point(state, "recorded"))
    return {"log": [f"charge {entry.result}"]}


def gate_editable(state: State) -> State:
    """What people may change before they approve it."""
    asked = Action(
        state.get("operation", "noop"),
        environment=state.get("environment", ""),
        arguments=state.get("arguments", {}),
    )
    return {"decision": request_approval(asked, editable=True).to_json()}


async def charge_as_approved(state: State) -> State:
    """What ran is noted by its digest: it must be one that somebody decided on."""
    target, decision = target_of(state), state.get("decision", {})
    with noted(state) as key:
        what = f"charge {key.split(':')[0]}"
        async with effect(
            "charge", verify=lambda: verify(state, what), approval=decision, action=decision["action"]
        ) as entry:
            if not entry.done:
                await target.point(point(state, "inside"))
                target.mark(f"ran {key.split(':')[0]} {decision['approval_id']} {decision['digest']}")
                target.call(entry.key, what)
                entry.record({"receipt": what})
    return {"log": [f"charge {entry.result}"]}


async def first(state: State) -> State:
    with noted(state) as key:
        target_of(state).call(key, key)
        await target_of(state).point(point(state, "first"))
    return {"log": ["first"]}


async def second(state: State) -> State:
    with noted(state) as key:
        target_of(state).call(key, key)
        await target_of(state).point(point(state, "second"))
    return {"log": ["second"]}


async def third(state: State) -> State:
    with noted(state) as key:
        target_of(state).call(key, key)
        await target_of(state).point(point(state, "third"))
    return {"log": ["third"]}


def block(state: State) -> State:
    with noted(state) as key:
        target_of(state).call(key, key)
        target_of(state).point_in_thread(point(state, "block"))
    return {"log": ["block"]}


async def two(state: State) -> State:
    target = target_of(state)
    one = ask("first?")
    target.mark(f"first is {one}")
    await target.point(point(state, "between"))
    other = ask("second?")
    target.mark(f"second is {other}")
    return {"log": [f"{one}/{other}"]}


def left(state: State) -> State:
    answer = ask("left?")
    target_of(state).mark(f"left is {answer}")
    return {"log": [f"left={answer}"]}


def right(state: State) -> State:
    answer = ask("right?")
    target_of(state).mark(f"right is {answer}")
    return {"log": [f"right={answer}"]}


def two_gates(state: State) -> State:
    one = request_approval(Action("vacuum", target="one"))
    other = request_approval(Action("vacuum", target="other"))
    return {"log": [f"{one.approved} {other.approved}"]}


async def die(state: State) -> State:
    target_of(state).mark("die")
    await target_of(state).point(point(state, "die"))
    os._exit(9)


async def crowd(state: State) -> State:
    target_of(state).mark("in")
    await asyncio.sleep(0.05)
    target_of(state).mark("out")
    return {"log": ["crowd"]}


async def item(state: State) -> State:
    with noted(state) as key:
        target_of(state).call(key, key)
    return {"log": [state.get("label", "")]}


def fan(state: State) -> list[Send]:
    return [Send("item", {**state, "label": str(number)}) for number in range(3)]


# Graphs


def _questions_side_by_side() -> Any:
    builder = StateGraph(State)
    builder.add_node("left", left)
    builder.add_node("right", right)
    builder.add_node("first", first)
    builder.add_edge(START, "left")
    builder.add_edge(START, "right")
    builder.add_edge(["left", "right"], "first")
    builder.add_edge("first", END)
    return builder.compile()


def _fan_out() -> Any:
    builder = StateGraph(State)
    builder.add_node("first", first)
    builder.add_node("item", item)
    builder.add_conditional_edges("first", fan, ["item"])
    builder.add_edge(START, "first")
    builder.add_edge("item", END)
    return builder.compile()


governed = chain(assess, gate, charge, third, pure=("assess", "gate"))
governed_in_thread = chain(assess, gate, charge_in_thread, third, pure=("assess", "gate"))
edited = chain(gate_editable, charge_as_approved, third, pure=("gate_editable",))
bound = chain(gate_and_keep, charge_bound, third, pure=("gate_and_keep",))
charging = chain(charge)
charging_in_thread = chain(charge_in_thread)
steps = chain(first, second, third)
blocking = chain(block, second)
two_questions = chain(two)
side_by_side = _questions_side_by_side()
auto_twice = chain(two_gates, third)
fan_out = _fan_out()
poison = chain(die)
limited = options(chain(crowd), max_running=2)
single = options(chain(second), max_running=1)
