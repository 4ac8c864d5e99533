"""Graphs that are given secrets and tell of them wherever a graph can: in texts, results, effects and failures."""

from __future__ import annotations

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from orchestrator.sdk import effect, hitl_tool, request_approval


class State(TypedDict, total=False):
    action: dict[str, Any]
    description: str
    justification: str
    fail: bool
    decision: dict[str, Any]
    question: dict[str, Any]
    arguments: dict[str, Any]
    done: Any


def _chain(*nodes: Any) -> Any:
    builder = StateGraph(State)
    names = [node.__name__ for node in nodes]
    for name, node in zip(names, nodes, strict=True):
        builder.add_node(name, node)
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    return builder.compile()


def gate(state: Any) -> State:
    decision = request_approval(
        state["action"],
        description=state.get("description", ""),
        justification=state.get("justification", ""),
        editable=True,
    )
    return {"decision": decision.to_json()}


async def act(state: Any) -> State:
    arguments = state["decision"]["action"]["arguments"]

    async with effect("log in") as entry:
        entry.record({"session": arguments["password"]})
    async with effect("check"):
        if state.get("fail"):
            raise RuntimeError(f"login failed: {arguments}")
    return {"done": entry.result}


@hitl_tool("log in", "high")
async def log_in(host: str, password: str) -> str:
    """Log in somewhere."""
    raise OSError(f"{host} refused {password}")


async def call(state: Any) -> State:
    return {"done": await log_in(**state["arguments"])}


def ask(state: Any) -> State:
    return {"done": interrupt({"type": "question", **state["question"]})}


risky = _chain(gate, act)
tools = _chain(call)
asking = _chain(ask)
