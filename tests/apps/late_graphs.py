"""Graphs about decisions that come late or twice: a batch, two gates, parallel gates, a bound effect, a leak."""

from __future__ import annotations

import asyncio
import operator
from pathlib import Path
from typing import Annotated, Any

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from orchestrator.sdk import PURE, Action, effect, request_approval


class State(TypedDict, total=False):
    trace: str
    broken: str
    password: str
    decision: dict[str, Any]
    log: Annotated[list[Any], operator.add]


def _mark(state: State, what: str) -> None:
    with Path(state.get("trace", "")).open("a", encoding="utf-8") as file:
        file.write(f"{what}\n")


def _entry(name: str) -> dict[str, Any]:
    flags = {"allow_accept": True, "allow_ignore": True, "allow_edit": False, "allow_respond": False}
    return {"action_request": {"action": name, "args": {}}, "config": flags}


def ask_for_both(state: State) -> dict[str, Any]:
    return {"log": interrupt([_entry("delete_everything"), _entry("send_mail")])}


def _gate(name: str, operation: str = "deploy", environment: str = "production") -> Any:
    def gate(state: State) -> dict[str, Any]:
        decision = request_approval(Action(operation, environment=environment, target=name))
        return {"log": [name], "decision": decision.to_json()}

    gate.__name__ = name
    return gate


async def notify(state: State) -> dict[str, Any]:
    return {"log": ["notified"]}


async def charge(state: State) -> dict[str, Any]:
    action = Action("deploy", environment="production", target="gate").to_json()
    async with effect("charge", approval=state.get("decision", {}), action=action) as entry:
        if not entry.done:
            _mark(state, "charge")
            if Path(state.get("broken", "")).exists():
                raise RuntimeError("the target refused")
    return {"log": ["charged"]}


async def linger(state: State) -> dict[str, Any]:
    action = Action("deploy", environment="production", target="gate").to_json()
    async with effect("charge", approval=state.get("decision", {}), action=action) as entry:
        if not entry.done:
            _mark(state, "charge")
    _mark(state, "charged")
    await asyncio.sleep(1)
    return {"log": ["lingered"]}


async def slow(state: State) -> dict[str, Any]:
    _mark(state, "begin")
    await asyncio.sleep(6)
    _mark(state, "end")
    return {"log": ["slow"]}


def leak(state: State) -> dict[str, Any]:
    message = f"cannot log in with {state.get('password', '')}"
    raise ValueError(message)


def _chain(*nodes: Any) -> Any:
    builder = StateGraph(State)
    names = [node.__name__ for node in nodes]
    for name, node in zip(names, nodes, strict=True):
        builder.add_node(name, node, metadata=PURE if name.startswith("gate") else None)
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    return builder.compile()


def _side_by_side() -> Any:
    builder = StateGraph(State)
    for node in (_gate("low", "vacuum", ""), _gate("high")):
        builder.add_node(node.__name__, lambda state, node=node: {"log": node(state)["log"]})
        builder.add_edge(START, node.__name__)
        builder.add_edge(node.__name__, END)
    return builder.compile()


batch = _chain(ask_for_both)
two_gates = _chain(_gate("gate_one"), _gate("gate_two"))
side_by_side = _side_by_side()
bound = _chain(_gate("gate"), notify, charge)
lingering = _chain(_gate("gate"), linger)
sleeping = _chain(slow)
leaking = _chain(leak)
