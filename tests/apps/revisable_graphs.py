"""A graph whose request people may change before they decide: what was approved is what it then has."""

from __future__ import annotations

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from orchestrator.sdk import PURE, request_approval


class State(TypedDict, total=False):
    action: dict[str, Any]
    description: str
    ran: dict[str, Any]


def gate(state: State) -> State:
    decision = request_approval(state.get("action", {}), editable=True, description=state.get("description", ""))
    return {"ran": dict(decision.action)}


def run(state: State) -> State:
    return {}


def _revisable() -> Any:
    builder = StateGraph(State)
    builder.add_node("gate", gate, metadata=PURE)
    builder.add_node("run", run)
    builder.add_edge(START, "gate")
    builder.add_edge("gate", "run")
    builder.add_edge("run", END)
    return builder.compile()


revisable = _revisable()
