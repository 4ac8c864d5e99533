"""Graphs that ask several times: in parallel, from `Send` tasks, in loops and below; and graphs that bind effects."""

from __future__ import annotations

import operator
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt

from orchestrator.sdk import PURE, Action, ask, effect, idempotency_key, request_approval


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    trace: str
    rounds: int
    text: str
    environment: str
    target: str
    on_reject: str
    on_mismatch: str
    decision: dict[str, Any]


def mark(state: Any, what: str) -> None:
    """Append a line to the trace file: what really happened, whatever the database says."""
    if path := state.get("trace"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{what}\n")


def chain(*nodes: Any, pure: Collection[str] = ()) -> Any:
    builder = StateGraph(State)
    names = [node.__name__ for node in nodes]
    for name, node in zip(names, nodes, strict=True):
        builder.add_node(name, node, metadata=PURE if name in pure else None)
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    return builder.compile()


# Parallel approvals


def _gate(name: str) -> Any:
    def gate(state: Any) -> Any:
        mark(state, f"{name} begins")
        action = Action("deploy", environment=state.get("environment", "production"), target=name)
        decision = request_approval(action, on_reject=state.get("on_reject", "cancel"))
        mark(state, f"{name} {decision.approved}")
        return {"log": [f"{name}={decision.approved}"]}

    return gate


async def finish(state: Any) -> Any:
    mark(state, f"finish {idempotency_key()}")
    return {"log": ["finish"]}


async def busy(state: Any) -> Any:
    mark(state, "busy")
    return {"log": ["busy"]}


def _gates() -> Any:
    builder = StateGraph(State)
    sides = {"left": _gate("left"), "right": _gate("right"), "busy": busy}
    for name, node in sides.items():
        builder.add_node(name, node)
        builder.add_edge(START, name)
    builder.add_node("finish", finish)
    builder.add_edge(list(sides), "finish")
    builder.add_edge("finish", END)
    return builder.compile()


gates = _gates()


def survey(state: Any) -> list[Send]:
    return [Send("person", {**state, "text": name}) for name in ("ann", "bob", "cid")]


def person(state: Any) -> Any:
    answer = interrupt({"type": "question", "prompt": f"{state['text']}?"})["answer"]
    mark(state, f"{state['text']} {idempotency_key()}")
    return {"log": [f"{state['text']}={answer}"]}


def _polls() -> Any:
    builder = StateGraph(State)
    builder.add_node("person", person)
    builder.add_node("finish", finish)
    builder.add_conditional_edges(START, survey, ["person"])
    builder.add_edge("person", "finish")
    builder.add_edge("finish", END)
    return builder.compile()


polls = _polls()


# Loops and subgraphs


async def deep(state: Any) -> Any:
    mark(state, f"deep {idempotency_key()} {idempotency_key('x')}")
    return {"log": ["deep"]}


def count(state: Any) -> Any:
    return {"rounds": state.get("rounds", 0) + 1}


def _loop() -> Any:
    builder = StateGraph(State)
    builder.add_node("inner", chain(deep, finish))
    builder.add_node("count", count)
    builder.add_edge(START, "inner")
    builder.add_edge("inner", "count")
    builder.add_conditional_edges("count", lambda state: "inner" if state["rounds"] < 3 else END, ["inner", END])
    return builder.compile()


loop = _loop()


def question(state: Any) -> Any:
    return {"log": [f"answer={ask('deep down?')}"]}


_below = chain(question, finish)


async def calls(state: Any) -> Any:
    """Runs a graph from inside of a function, as LangGraph's documentation shows."""
    found = await _below.ainvoke({"trace": state.get("trace", "")})
    return {"log": found["log"]}


called = chain(calls, finish)


def endless(state: Any) -> Any:
    return {"rounds": state.get("rounds", 0) + 1}


def _endless() -> Any:
    builder = StateGraph(State)
    builder.add_node("endless", endless, metadata=PURE)
    builder.add_edge(START, "endless")
    builder.add_conditional_edges("endless", lambda _: "endless", ["endless"])
    return builder.compile()


runaway = _endless().with_config(recursion_limit=25)


# Effects bound to an approval


def _action(state: Any) -> dict[str, Any]:
    return {"operation": "deploy", "environment": "production", "target": state.get("target", "shop")}


def approve(state: Any) -> Any:
    return {"decision": request_approval(_action(state)).to_json()}


def change(state: Any) -> Any:
    """What an agent may do between approval and effect."""
    return {"target": text} if (text := state.get("text")) else {}


async def apply(state: Any) -> Any:
    wanted = {**state["decision"]["action"], **_action(state)}
    async with effect("apply", approval=state["decision"], action=wanted) as entry:
        await entry.once(lambda: _applied(state, entry.key))
    return {"log": [f"applied {wanted['target']}"]}


async def apply_again(state: Any) -> Any:
    return await apply(state)


async def _applied(state: Any, key: str) -> str:
    mark(state, f"apply {key}")
    return key


def held(state: Any) -> Any:
    if Path(state["text"]).exists():
        raise RuntimeError("held back")
    return {}


bound = chain(approve, change, apply, pure=["approve", "change"])
bound_late = chain(approve, held, apply, pure=["approve", "held"])
bound_twice = chain(approve, apply, apply_again, pure=["approve"])


# Parallel work with one failure


async def well(state: Any) -> Any:
    mark(state, "well")
    return {"log": ["well"]}


async def badly(state: Any) -> Any:
    mark(state, "badly")
    if not Path(state["text"]).exists():
        raise RuntimeError("the boiler is cold")
    return {"log": ["badly"]}


def _half() -> Any:
    builder = StateGraph(State)
    for name, node in (("well", well), ("badly", badly)):
        builder.add_node(name, node)
        builder.add_edge(START, name)
    builder.add_node("finish", finish)
    builder.add_edge(["well", "badly"], "finish")
    builder.add_edge("finish", END)
    return builder.compile()


half_failing = _half()
