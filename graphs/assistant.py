"""An agent with governed tools: a model chooses tools, and every call passes its own gate.

The model is the LangChain chat model that KEYTURN_ASSISTANT_MODEL names, such as `anthropic:claude-sonnet-4-5`.
Without one a script reads plain commands; it is no language model, and says so in everything it answers.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# LangGraph's and LangChain's own annotations are partial.
from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict, cast

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Send

from graphs.models import chat_model
from graphs.tools import TOOLS
from orchestrator.sdk import PURE, confident, options

SCRIPTED = "scripted (no language model)"
MOST_TURNS = 8
INSTRUCTIONS = (
    "You act through tools. Every call may have to be approved by a person first, who can also change its arguments."
    " When a call was rejected, say so and do not try the same again."
)
_LANGCHAIN = [tool.as_tool() for tool in TOOLS]
_TOOL_NODE = ToolNode(_LANGCHAIN)


class Input(TypedDict):
    """What is submitted: what the user wants."""

    message: str


class Result(TypedDict):
    """The last answer, who gave it, and what each tool call came to."""

    reply: str
    model: str
    calls: list[dict[str, str]]


class State(TypedDict, total=False):
    """The conversation so far."""

    message: str
    messages: Annotated[list[AnyMessage], add_messages]
    reply: str
    model: str
    calls: list[dict[str, str]]


class Task(TypedDict):
    """One tool call, and how sure the agent is of it."""

    call: ToolCall
    factors: dict[str, float]


# The model


def model_name() -> str:
    """The model that answers: KEYTURN_ASSISTANT_MODEL, else the script."""
    return os.environ.get("KEYTURN_ASSISTANT_MODEL", "").strip() or SCRIPTED


async def answer(messages: Sequence[BaseMessage]) -> AIMessage:
    """The model's next turn."""
    name = model_name()
    if name == SCRIPTED:
        return scripted(messages)
    model = chat_model(name, "KEYTURN_ASSISTANT_MODEL").bind_tools(_LANGCHAIN)
    return await model.ainvoke([SystemMessage(INSTRUCTIONS), *messages])


_COMMANDS: Mapping[str, re.Pattern[str]] = {
    "sign_contract": re.compile(
        r"sign contract (?P<contract>\S+) between (?P<parties>[^:]+): *(?P<text>.+)", re.IGNORECASE
    ),
    "delete_project": re.compile(r"delete project (?P<project>\S+)", re.IGNORECASE),
    "restore_project": re.compile(r"restore project (?P<ticket>\S+)", re.IGNORECASE),
    "approve_expense": re.compile(
        r"approve expense (?P<claim>\S+) of (?P<amount>\d+(?:\.\d+)?)(?: (?P<currency>[A-Z]{3}))? for (?P<payee>.+)",
        re.IGNORECASE,
    ),
    "notify_many": re.compile(r"notify (?P<recipients>[^:]+): *(?P<subject>[^-]+?) - (?P<message>.+)", re.IGNORECASE),
}
_LISTS = ("parties", "recipients")


def scripted(messages: Sequence[BaseMessage]) -> AIMessage:
    """What the script makes of the conversation: tool calls for commands it knows, then what they came to."""
    about = {"model_name": SCRIPTED}
    results = [one for one in messages if isinstance(one, ToolMessage)]
    if results:
        told = "; ".join(f"{one.name}: {one.text}" for one in results)
        return AIMessage(f"[{SCRIPTED}] {told}", response_metadata=about)
    wanted = next((one.text for one in reversed(messages) if isinstance(one, HumanMessage)), "")
    lines = [line.strip() for line in re.split(r"[\n;]", wanted)]
    calls = [found for number, line in enumerate(lines) if (found := _command(line, number)) is not None]
    if calls:
        return AIMessage("", tool_calls=calls, response_metadata=about)
    known = "sign contract, delete project, restore project, approve expense, notify"
    return AIMessage(f"[{SCRIPTED}] I know only: {known}. See docs/tools.md.", response_metadata=about)


def _command(line: str, number: int) -> ToolCall | None:
    for name, pattern in _COMMANDS.items():
        found = pattern.fullmatch(line)
        if found:
            given = {key: value.strip() for key, value in found.groupdict().items() if value}
            arguments: dict[str, Any] = {
                key: re.split(r" *, *| and ", value) if key in _LISTS else float(value) if key == "amount" else value
                for key, value in given.items()
            }
            return ToolCall(name=name, args=arguments, id=f"call-{number}", type="tool_call")
    return None


# How sure it is


def factors(call: ToolCall, messages: Sequence[BaseMessage]) -> dict[str, float]:
    """What can be told of a call without asking the model, which would overrate itself."""
    said = " ".join(one.text for one in messages if isinstance(one, HumanMessage)).casefold()
    known = said + " ".join(one.text for one in messages if isinstance(one, ToolMessage)).casefold()
    values = list(_leaves(call["args"]))
    before = [one for one in messages if isinstance(one, ToolMessage) and one.name == call["name"]]
    return {
        "intent_clarity": _share(word in said for word in _words(call["name"])),
        "argument_completeness": _share(value in said for value in values),
        "past_success": _share(one.status == "success" for one in before) if before else 50.0,
        "context_quality": _share(value in known for value in values),
    }


def _words(name: str) -> list[str]:
    return [word for word in name.split("_") if word != "many"]


def _leaves(value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [leaf for item in cast("Mapping[str, object]", value).values() for leaf in _leaves(item)]
    if isinstance(value, list):
        return [leaf for item in cast("list[object]", value) for leaf in _leaves(item)]
    return [f"{value:g}" if isinstance(value, float) else str(value).casefold()]


def _share(found: Any) -> float:
    marks = [bool(one) for one in found]
    return 100.0 * sum(marks) / len(marks) if marks else 100.0


# The graph


def hear(state: State) -> State:
    """Begin the conversation."""
    return {"messages": [HumanMessage(state.get("message", ""))]}


async def think(state: State) -> State:
    """One turn of the model."""
    return {"messages": [await answer(state.get("messages", []))]}


def choose(state: State) -> str | list[Send]:
    """Each call is a task of its own, so that all are asked at once and each has its own answer."""
    messages = state.get("messages", [])
    last = messages[-1]
    turns = sum(isinstance(one, AIMessage) for one in messages)
    if not isinstance(last, AIMessage) or not last.tool_calls or turns > MOST_TURNS:
        return "conclude"
    return [Send("act", Task(call=one, factors=factors(one, messages))) for one in last.tool_calls]


async def act(state: Task) -> State:
    """Run one call. A rejection comes back as a message with status error, which the model reads."""
    with confident(state["factors"]):
        return cast("State", await _TOOL_NODE.ainvoke([{**state["call"], "type": "tool_call"}]))


def conclude(state: State) -> State:
    """The last answer and what each call came to."""
    messages = state.get("messages", [])
    results = [one for one in messages if isinstance(one, ToolMessage)]
    calls = [{"tool": one.name or "", "status": one.status, "result": one.text} for one in results]
    last = messages[-1]
    reply = last.text if isinstance(last, AIMessage) and not last.tool_calls else "I stopped after too many turns."
    return {"reply": reply, "model": model_name(), "calls": calls}


def graph() -> CompiledStateGraph[State, None, Input, Result]:
    """Build the graph; which model answers stands in the metadata of its node."""
    builder = StateGraph(State, input_schema=Input, output_schema=Result)
    builder.add_node("hear", hear, metadata=PURE)
    builder.add_node("think", think, metadata={"model": model_name()})
    builder.add_node("act", act, input_schema=Task)
    builder.add_node("conclude", conclude, metadata=PURE)
    builder.add_edge(START, "hear")
    builder.add_edge("hear", "think")
    builder.add_conditional_edges("think", choose, ["act", "conclude"])
    builder.add_edge("act", "think")
    builder.add_edge("conclude", END)
    return options(builder.compile())
