"""Graphs that raise whatever interrupts they are given, one after the other: for tests of what is decided on them."""

from __future__ import annotations

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from orchestrator.sdk import PURE


class State(TypedDict, total=False):
    payload: dict[str, Any]
    payload2: dict[str, Any]
    got: Any


def gate(state: State) -> State:
    return {"got": interrupt(state.get("payload"))}


def gate2(state: State) -> State:
    return {"got": interrupt(state.get("payload2"))}


def run(state: State) -> State:
    return {}


def _chain(*nodes: Any) -> Any:
    builder = StateGraph(State)
    names = [node.__name__ for node in nodes]
    for name, node in zip(names, nodes, strict=True):
        builder.add_node(name, node, metadata=None if node is run else PURE)
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    return builder.compile()


one = _chain(gate, run)
two = _chain(gate, gate2, run)
