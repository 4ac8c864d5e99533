"""Graphs in which time passes between a gate and what it is for: for tests of what must still hold then."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from orchestrator.sdk import PURE, effect, request_approval

DEPLOY = {"operation": "deploy", "environment": "production"}


class State(TypedDict, total=False):
    trace: str
    mended: str
    reached: str
    go: str
    decision: dict[str, Any]


def gate(state: State) -> State:
    return {"decision": request_approval(DEPLOY).to_json()}


def act(state: State) -> State:
    if not Path(state.get("mended", "")).exists():
        message = "not yet"
        raise RuntimeError(message)
    with Path(state.get("trace", "")).open("a", encoding="utf-8") as trace:
        trace.write("act\n")
    return {}


def wait(state: State) -> State:
    Path(state.get("reached", "")).touch()
    while not Path(state.get("go", "")).exists():
        time.sleep(0.02)
    return {}


async def bound(state: State) -> State:
    decision = state.get("decision", {})
    async with effect("act", approval=decision, action=decision["action"], verify=lambda: None):
        Path(state.get("trace", "")).write_text("bound\n", encoding="utf-8")
    return {}


def _chain(*nodes: Any) -> Any:
    builder = StateGraph(State)
    names = [node.__name__ for node in nodes]
    for name, node in zip(names, nodes, strict=True):
        builder.add_node(name, node, metadata=PURE if node in (gate, wait) else None)
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    return builder.compile()


passed = _chain(gate, act)
waiting = _chain(gate, wait, bound)
