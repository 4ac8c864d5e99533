"""Graphs whose tools are governed: called from a node, in a `ToolNode`, sent one by one, and as LangChain tools."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.tools import tool
from langgraph.errors import GraphInterrupt
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.types import Send

from orchestrator.sdk import PURE, ToolRejected, confident, hitl_tool, request_approval, tool_key


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    calls: list[dict[str, Any]]
    log: Annotated[list[Any], operator.add]
    trace: str
    amount: float
    sure: float | None
    seconds: float
    fail: str


def mark(trace: str, what: str) -> None:
    """Append a line to the trace file: what really happened, whatever the database says."""
    with Path(trace).open("a", encoding="utf-8") as file:
        file.write(f"{what}\n")


def _sure(trace: str, amount: float, sure: float | None = None, **_: object) -> float | None:
    return sure


@hitl_tool("pay", cost="amount", target="trace", confidence=_sure)
async def pay(trace: str, amount: float, sure: float | None = None, seconds: float = 0.0, fail: str = "") -> str:
    """Pay an amount."""
    mark(trace, f"pay {amount:g} {tool_key()}")
    if seconds:
        await asyncio.sleep(seconds)
    if fail and Path(fail).exists():
        raise OSError("the till is closed")
    return f"paid {amount:g}"


@tool
@hitl_tool("wipe", "medium", confidence=90)
async def wipe(disk: str, trace: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Wipe a disk."""
    mark(trace, f"wipe {disk} {len(state['messages'])}")
    return f"wiped {disk}"


@hitl_tool("tune", auto_threshold=70, quick_threshold=40)
async def tune(trace: str, level: int) -> dict[str, int]:
    """Tune something, with thresholds of its own."""
    mark(trace, f"tune {level}")
    return {"level": level}


@hitl_tool("book", "medium", confidence=90, environment="staging", target="day")
async def book(trace: str, day: date, password: str = "") -> date:
    """Book a day."""
    mark(trace, f"book {day.isoformat()} {type(day).__name__}")
    if password == "wrong":
        raise OSError(f"login with {password}word failed: {password}")
    return day


@tool
def look(what: str) -> str:
    """Look at something."""
    return f"saw {what}"


def _arguments(state: Any) -> dict[str, Any]:
    return {key: state[key] for key in ("trace", "amount", "sure", "seconds", "fail") if key in state}


async def call(state: Any) -> State:
    return {"log": [await pay(**_arguments(state))]}


async def call_twice(state: Any) -> State:
    first = await pay(**_arguments(state))
    return {"log": [first, await pay(**_arguments(state))]}


async def call_handled(state: Any) -> State:
    try:
        return {"log": [await pay(**_arguments(state))]}
    except ToolRejected as error:
        return {"log": [error.detail, list(error.by), error.note, error.tool_name]}


async def call_unsteady(state: Any) -> State:
    return {"log": [await pay(state["trace"], 1.0, 10.0, fail=uuid4().hex)]}


@hitl_tool("outer", confidence=100)
async def outer(trace: str) -> str:
    """Calls another governed tool."""
    return await pay(trace, 1.0, 100.0)


async def call_nested(state: Any) -> State:
    return {"log": [await outer(state["trace"])]}


RUNS: dict[str, int] = {}


async def call_in_any_order(state: Any) -> State:
    """Begins its two calls in another order each time it runs."""
    RUNS[state["trace"]] = RUNS.get(state["trace"], 0) + 1
    turned = -1 if RUNS[state["trace"]] % 2 else 1
    amounts = [1.0, 2.0][::turned]
    found = await asyncio.gather(*(pay(state["trace"], amount) for amount in amounts), return_exceptions=True)
    if asking := next((one for one in found if isinstance(one, GraphInterrupt)), None):
        raise asking
    return {"log": [str(one) for one in found[::turned]]}


async def score(state: Any) -> State:
    """Asks with whatever number the test gives as text."""
    decision = request_approval({"operation": "count"}, confidence=float(str(state.get("fail"))), on_reject="resume")
    return {"log": [decision.approved]}


async def say(state: Any) -> State:
    """The model's turn: the tool calls of the input."""
    numbered = [{**one, "id": f"call-{n}", "type": "tool_call"} for n, one in enumerate(state.get("calls", []))]
    return {"messages": [AIMessage("", tool_calls=numbered, id="turn")]}


TOOLS: list[Any] = [pay.as_tool(), wipe, book, look, tune]  # made by us, by LangChain, and by ToolNode itself
run_tools = ToolNode(TOOLS)


async def tools(state: Any) -> Mapping[str, Any]:
    with confident(state.get("sure") or 0.0):
        return await run_tools.ainvoke(state)


def _each(state: Any) -> list[Send]:
    (message,) = state["messages"]
    assert isinstance(message, AIMessage)
    return [Send("tools", [dict(one)]) for one in message.tool_calls]


def _one(node: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("ask", node)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    return builder.compile()


def _agent(node: Any, each: bool) -> Any:
    builder = StateGraph(State)
    builder.add_node("say", say, metadata=PURE)
    builder.add_node("tools", node)
    builder.add_edge(START, "say")
    if each:
        builder.add_conditional_edges("say", _each, ["tools"])
    else:
        builder.add_edge("say", "tools")
    builder.add_edge("tools", END)
    return builder.compile()


direct = _one(call)
twice = _one(call_twice)
handled = _one(call_handled)
unsteady = _one(call_unsteady)
any_order = _one(call_in_any_order)
nested_tools = _one(call_nested)
numbers = _one(score)
tool_node = _agent(tools, each=False)
sent = _agent(ToolNode(TOOLS), each=True)
