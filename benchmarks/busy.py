"""A workflow that tells of its progress again and again: three nodes, each of so many steps."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from orchestrator.sdk.runtime import host


class State(TypedDict, total=False):
    """How many times each node tells of its progress, and the seconds between."""

    steps: int
    pause: float


async def _tell(state: State, node: str) -> State:
    steps = state.get("steps", 10)
    for step in range(1, steps + 1):
        await asyncio.sleep(state.get("pause", 0.5))
        host().note("progress", {"node": node, "percent": 100.0 * step / steps, "message": f"step {step} of {steps}"})
    return {}


async def first(state: State) -> State:
    """One of three."""
    return await _tell(state, "first")


async def second(state: State) -> State:
    """Two of three."""
    return await _tell(state, "second")


async def third(state: State) -> State:
    """Three of three."""
    return await _tell(state, "third")


def _graph() -> Any:
    builder = StateGraph(State)
    nodes = (first, second, third)
    for node in nodes:
        builder.add_node(node.__name__, node)
    names = [node.__name__ for node in nodes]
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    return builder.compile()


graph = _graph()
