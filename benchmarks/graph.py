"""The workflow that both sides run: three nodes, one approval, about 1 KB of payload. Plain LangGraph throughout."""

from __future__ import annotations

import operator
import time
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

# When the node behind the approval began, by job, on this process's monotonic clock in seconds.
STARTED: dict[str, float] = {}

# Nodes without effects say so; to LangGraph itself this means nothing.
_PURE = {"pure": True}


class State(TypedDict, total=False):
    """The graph's state."""

    job: str
    payload: dict[str, str]
    log: Annotated[list[str], operator.add]


def payload() -> dict[str, str]:
    """About 1 KB of JSON."""
    return {f"field_{number:02}": f"value {number:02} of the change that is asked for" for number in range(17)}


async def assess(state: State) -> State:
    """Look at what is asked for."""
    return {"log": [f"assessed {len(state.get('payload', {}))} fields"]}


async def gate(state: State) -> State:
    """Wait for an approval."""
    decision: dict[str, Any] = interrupt(
        {
            "type": "approval",
            "action": {
                "operation": "deploy",
                "environment": "production",
                "target": "shop",
                "arguments": {"job": state.get("job", "")},
            },
        }
    )
    return {"log": [f"approved: {decision['approved']}"]}


async def act(state: State) -> State:
    """Do what was approved."""
    STARTED[state.get("job", "")] = time.monotonic()
    return {"log": ["done"]}


def build() -> StateGraph[State, None, State, State]:
    """The graph, to be compiled with or without a checkpointer."""
    builder = StateGraph(State)
    builder.add_node("assess", assess, metadata=_PURE)
    builder.add_node("gate", gate, metadata=_PURE)
    builder.add_node("act", act)
    builder.add_edge(START, "assess")
    builder.add_edge("assess", "gate")
    builder.add_edge("gate", "act")
    builder.add_edge("act", END)
    return builder


graph = build().compile()
