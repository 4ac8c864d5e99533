"""The graph that scenarios submit: one gate, and then an effect that runs under its approval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from orchestrator.sdk import PURE, effect, request_approval
from orchestrator.sdk.gate import Decision
from orchestrator.sdk.runtime import host
from tests.acceptance.running_instead import PASSING, PLANTED, RAN, RESUMED_WITH


class State(TypedDict):
    ask: dict[str, Any]
    decision: NotRequired[dict[str, Any]]


def gate(state: State) -> dict[str, Any]:
    ask = state["ask"]
    if ask.get("confidence") == "nan":  # JSON cannot carry it: a graph's own code says it
        return {"decision": request_approval(ask["action"], confidence=math.nan).to_json()}
    return {"decision": passed(interrupt({"type": "approval", "editable": True, **ask}))}


def passed(found: Any) -> Any:
    """Note what the graph was resumed with, and stop the worker where it is to stop here."""
    workflow_id = host().workflow_id
    RESUMED_WITH.setdefault(workflow_id, []).append(found)
    PASSING.get(workflow_id, lambda: None)()
    return found


async def run(state: State) -> dict[str, Any]:
    decision = Decision.from_json(state.get("decision", {}))
    if not decision.approved:
        return {}
    workflow_id = host().workflow_id
    action: Mapping[str, object] = PLANTED.get(workflow_id, decision.action)
    async with effect("run", approval=decision, action=action) as running:

        async def once() -> object:
            RAN.setdefault(workflow_id, []).append(dict(action))
            return "done"

        await running.once(once)
    return {}


class Tools(TypedDict):
    ask: dict[str, Any]
    decisions: NotRequired[list[Any]]


def tools(state: Tools) -> dict[str, Any]:
    """An agent's tool call in the dialect of LangChain's middleware; what may be run is what comes back."""
    return {"decisions": list(passed(interrupt(state["ask"]))["decisions"])}


async def call(state: Tools) -> dict[str, Any]:
    workflow_id, asked = host().workflow_id, state["ask"]["action_requests"]
    for request, decision in zip(asked, state.get("decisions", []), strict=True):
        match decision["type"]:
            case "approve":
                RAN.setdefault(workflow_id, []).append({"name": request["name"], "args": request["args"]})
            case "edit":
                RAN.setdefault(workflow_id, []).append(dict(decision["edited_action"]))
            case _:
                pass
    return {}


def _line(state: Any, first: Any, second: Any) -> Any:
    builder = StateGraph(state)
    builder.add_node("gate", first, metadata=PURE)
    builder.add_node("run", second)
    builder.add_edge(START, "gate")
    builder.add_edge("gate", "run")
    builder.add_edge("run", END)
    return builder.compile()


gated = _line(State, gate, run)
calling = _line(Tools, tools, call)
