"""Graphs that remember over the runs of a thread, and one that speaks through a model, word by word."""

from __future__ import annotations

from typing import Annotated, Any, Required, TypedDict

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from orchestrator.sdk import ask, options


class Talk(TypedDict, total=False):
    messages: Required[Annotated[list[AnyMessage], add_messages]]
    runs: int
    fail: bool
    api_key: str


def _said(state: Talk) -> str:
    return str(state["messages"][-1].text)


def count(state: Talk) -> dict[str, object]:
    """Which run of the thread this is; fails on demand."""
    if _said(state).startswith("fail"):
        message = f"asked to {_said(state)} by {state.get('api_key', 'nobody')}"
        raise RuntimeError(message)
    return {"runs": state.get("runs", 0) + 1}


def reply(state: Talk) -> dict[str, object]:
    """Say what was said first in the thread and how often it has run; asks when it is told to."""
    said = _said(state)
    if said.startswith("ask"):
        said = f"{said}: {ask('Which one?')}"
    if said == "leak":
        said = state.get("api_key", "no key")
    first = str(state["messages"][0].text)
    return {"messages": [AIMessage(f"{state.get('runs', 0)} after {first}: {said}")]}


def remembering() -> Any:
    """Counts the runs of its thread and quotes the first message."""
    builder = StateGraph(Talk)
    builder.add_node("count", count)
    builder.add_node("reply", reply)
    builder.add_edge(START, "count")
    builder.add_edge("count", "reply")
    builder.add_edge("reply", END)
    return options(builder.compile(), text_nodes=["reply"])


class Speech(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def _model(text: str) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage(text)]))


async def route(state: Speech) -> Speech:
    """A router whose words are nobody's business."""
    await _model("secret route").ainvoke(state["messages"])
    return {"messages": []}


async def speak(state: Speech) -> Speech:
    """Speaks word by word."""
    return {"messages": [await _model("one two three").ainvoke(state["messages"])]}


def speaking() -> Any:
    """A router and a speaker; only the speaker is heard."""
    builder = StateGraph(Speech)
    builder.add_node("route", route)
    builder.add_node("speak", speak)
    builder.add_edge(START, "route")
    builder.add_edge("route", "speak")
    builder.add_edge("speak", END)
    return options(builder.compile(), text_nodes={"speak"})
