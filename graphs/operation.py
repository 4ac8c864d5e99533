"""Runs a runbook: plan, ask, apply, verify, and roll back when applying or verifying fails.

An operation that did not succeed ends as `failed`, never as completed: with the code `rolled_back` once its roll-back
has run, with `step_failed` where the runbook has none or the roll-back itself fails. A workflow that was rolled back is
over, so submit the operation again; after `step_failed` a retry goes on with the step that failed.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# LangGraph's own annotations are partial.
from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, cast

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from orchestrator.sdk import PURE, effect, options, request_approval
from orchestrator.sdk.operations import Approved, Operation, rolled_back
from orchestrator.sdk.runbooks import input_schema, load_runbooks


class Input(TypedDict):
    """What is submitted; its schema is made from the runbooks."""

    runbook: str
    parameters: dict[str, object]


class Result(TypedDict):
    """What a successful operation gives: `outcome` is `applied`; the report has the facts, the steps and the checks."""

    outcome: str
    report: dict[str, object]


class State(TypedDict, total=False):
    """The operation so far. All but two names are mappings, which checkpoints store apart and can encrypt."""

    runbook: str
    parameters: dict[str, object]
    plan: dict[str, object]
    decision: dict[str, object]
    applied: dict[str, object]
    checked: dict[str, object]
    undone: dict[str, object]
    outcome: str
    report: dict[str, object]


def operation(state: State) -> Operation:
    """The operation from the state, with the runbook as it is on disk at this moment."""
    return Operation.of(state.get("runbook", ""), state.get("parameters", {}), state.get("plan"))


async def plan(state: State) -> State:
    """Look at the target and change nothing. Pure: what it leaves on disk is named by its digest in the state."""
    return {"plan": await operation(state).plan()}


async def gate(state: State) -> State:
    """Ask for exactly what the plan found; the rules say whether anybody has to look."""
    wanted = operation(state)
    risk = wanted.runbook.risk
    decision = request_approval(wanted.action(), risk=risk and risk.value, description=wanted.description())
    return {"decision": decision.to_json()}


async def apply(state: State) -> State:
    """Prove that what would run now is what was approved, use that approval up, and run the steps."""
    wanted = operation(state)
    under = Approved(state.get("decision", {}), wanted.present_action())
    async with effect("apply", approval=under.decision, action=under.action, verify=lambda: None):
        # The approval is bound to this check; each step below is an effect of its own and a part of it.
        pass
    return {"applied": await wanted.apply(under)}


async def verify(state: State) -> State:
    """Look again: is the target as the runbook wants it?"""
    return {"checked": await operation(state).verify()}


async def roll_back(state: State) -> State:
    """Undo, by the runbook's own steps."""
    return {"undone": await operation(state).roll_back()}


async def conclude(state: State) -> State:
    """Say how it ended: the report, or the error of an operation that was undone."""
    failure = state.get("applied", {}).get("failure") or state.get("checked", {}).get("failure")
    if failure:
        raise rolled_back(cast("Mapping[str, object]", failure), state.get("undone", {}))
    report = {
        "runbook": state.get("runbook"),
        "facts": state.get("plan", {}).get("facts"),
        "steps": state.get("applied", {}).get("steps"),
        "checks": state.get("checked", {}).get("checks"),
    }
    return {"outcome": "applied", "report": report}


def after_apply(state: State) -> str:
    """A step failed: roll back. Else: verify."""
    return "roll_back" if state.get("applied", {}).get("failure") else "verify"


def after_verify(state: State) -> str:
    """A check failed: roll back. Else: done."""
    return "roll_back" if state.get("checked", {}).get("failure") else "conclude"


def graph() -> CompiledStateGraph[State, None, Input, Result]:
    """Build the graph; the runbooks on disk give the schema of its input."""
    builder = StateGraph(State, input_schema=Input, output_schema=Result)
    builder.add_node("plan", plan, metadata=PURE)
    builder.add_node("gate", gate, metadata=PURE)
    builder.add_node("apply", apply)
    builder.add_node("verify", verify)
    builder.add_node("roll_back", roll_back)
    builder.add_node("conclude", conclude, metadata=PURE)
    builder.add_edge(START, "plan")
    builder.add_edge("plan", "gate")
    builder.add_edge("gate", "apply")
    builder.add_conditional_edges("apply", after_apply, ["verify", "roll_back"])
    builder.add_conditional_edges("verify", after_verify, ["conclude", "roll_back"])
    builder.add_edge("roll_back", "conclude")
    builder.add_edge("conclude", END)
    return options(builder.compile(), input_schema=input_schema(load_runbooks()))
