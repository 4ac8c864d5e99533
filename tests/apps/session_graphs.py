"""Graphs that sessions talk to: one that remembers and asks in every way, and some that take no messages."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from orchestrator.sdk import Action, ask, options, request_approval


class Talk(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    left: str
    right: str


def _last(state: Talk) -> str:
    return str(state.get("messages", [])[-1].text)


def _deploy() -> str:
    decision = request_approval(Action("deploy", environment="production", arguments={"version": "v1"}))
    return f"deployed, as {' and '.join(decision.by)} allowed"


def _wait(path: str) -> str:
    while not Path(path).exists():
        threading.Event().wait(0.02)
    return "waited"


def _recall(state: Talk) -> str:
    return " / ".join(str(one.text) for one in state.get("messages", []) if one.type == "human")


def _fail() -> str:
    message = "the boiler is cold"
    raise RuntimeError(message)


def reply(state: Talk) -> Talk:
    """Do what the last message says."""
    match _last(state).split(" ", 1):
        case ["paint"]:
            said = f"painted {ask('Which colour?', options=['red', 'blue'])}"
        case ["count"]:
            said = f"counted {ask('How many?', schema={'type': 'integer'}, default=3)}"
        case ["travel"]:
            said = f"off to {ask('Where to?')}"
        case ["both"]:
            said = f"{state.get('left')} and {state.get('right')}"
        case ["deploy"]:
            said = _deploy()
        case ["fail"]:
            said = _fail()
        case ["wait", path]:
            said = _wait(path)
        case ["recall"]:
            said = _recall(state)
        case _:
            said = f"heard {_last(state)}"
    return {"messages": [AIMessage(said)]}


def left(state: Talk) -> Talk:
    return {"left": str(ask("Left?"))}


def right(state: Talk) -> Talk:
    return {"right": str(ask("Right?"))}


def branch(state: Talk) -> list[str]:
    return ["left", "right"] if _last(state) == "both" else ["reply"]


def clerk() -> Any:
    """Remembers what was said; asks one question, two at once, or for an approval, as it is told."""
    builder = StateGraph(Talk)
    for name, node in (("left", left), ("right", right), ("reply", reply)):
        builder.add_node(name, node)
    builder.add_conditional_edges(START, branch, ["left", "right", "reply"])
    builder.add_edge(["left", "right"], "reply")
    builder.add_edge("reply", END)
    return options(builder.compile(), text_nodes=["reply"])


class Echo(TypedDict):
    text: str


class Order(TypedDict):
    item: str
    number: int


def _single(state: Any, node: Any) -> Any:
    builder = StateGraph(state)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile()


def loud(state: Echo) -> Echo:
    return {"text": state["text"].upper()}


def double(state: Order) -> dict[str, int]:
    return {"number": state["number"] * 2}


echo = _single(Echo, loud)
order = _single(Order, double)
