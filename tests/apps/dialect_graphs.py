"""Graphs that ask in the dialects of others: LangChain's middleware, Agent Inbox, raw interrupts, and broken ones."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

CALLS: list[str] = []


class Scripted(BaseChatModel):
    """A chat model that follows a script: its n-th turn in a conversation is the n-th list of tool calls, then text."""

    turns: list[list[ToolCall]]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, *_: Any, **__: Any) -> Runnable[Any, AIMessage]:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        turn = sum(isinstance(one, AIMessage) for one in messages)
        if turn < len(self.turns):
            message = AIMessage("", tool_calls=self.turns[turn], id=f"turn-{turn}")
        else:
            message = AIMessage("done", id=f"turn-{turn}")
        return ChatResult(generations=[ChatGeneration(message=message)])


@tool
def delete_rows(table: str) -> str:
    """Delete the rows of a table."""
    CALLS.append(f"delete {table}")
    return f"deleted {table}"


@tool
def send_mail(to: str) -> str:
    """Send a mail."""
    CALLS.append(f"mail {to}")
    return f"mailed {to}"


@tool
def ask_user(question: str) -> str:
    """Ask the user."""
    CALLS.append(f"asked {question}")
    return "never"


@tool
def read_table(table: str) -> str:
    """Look at a table."""
    CALLS.append(f"read {table}")
    return f"read {table}"


def call(name: str, number: int, **args: Any) -> ToolCall:
    return ToolCall(name=name, args=args, id=f"call-{number}", type="tool_call")


TURN = [
    call("delete_rows", 1, table="orders"),
    call("read_table", 2, table="people"),
    call("send_mail", 3, to="ann"),
    call("ask_user", 4, question="sure?"),
]


def agent(mode: Literal["batched", "per_call"], *turns: list[ToolCall]) -> Any:
    review = HumanInTheLoopMiddleware(
        interrupt_on={
            "delete_rows": {"allowed_decisions": ["approve", "reject"], "description": "It deletes rows."},
            "send_mail": {"allowed_decisions": ["approve", "edit", "reject", "respond"]},
            "ask_user": {"allowed_decisions": ["respond"]},
        },
        interrupt_mode=mode,
    )
    tools = [delete_rows, send_mail, ask_user, read_table]
    return create_agent(Scripted(turns=list(turns)), tools, middleware=[review])


batched = agent("batched", TURN)
per_call = agent("per_call", TURN)
two_turns = agent("batched", [call("delete_rows", 1, table="a")], [call("delete_rows", 2, table="b")])


# Agent Inbox and raw interrupts


class State(TypedDict, total=False):
    payload: Any
    answers: Annotated[list[Any], operator.add]


def raise_payload(state: State) -> State:
    """Interrupts with whatever the input says, and keeps what comes back."""
    return {"answers": [interrupt(state.get("payload"))]}


def _one(node: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("ask", node)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    return builder.compile()


anything = _one(raise_payload)


class Sizes(TypedDict):
    width: int
    unit: Literal["mm", "in"]


def raise_typed(state: State) -> State:
    return {"answers": [interrupt({"form": "sizes"}, response_schema=Sizes)]}


def raise_with_schema(state: State) -> State:
    schema: dict[str, Any] = {"type": "integer", "minimum": 1}
    return {"answers": [interrupt("how many?", response_schema=schema)]}


typed_answer = _one(raise_typed)
schema_answer = _one(raise_with_schema)


# Payloads that no input can carry, or must not: they are named in the input and made here.
UNUSABLE: dict[str, Any] = {
    "a set": {"what": {1, 2}},
    "a class": {"what": Sequence},
    "not a number": {"what": float("nan")},
    "a NUL": {"what": "a\0b"},
    "half a pair": {"what": "\ud800"},
    "a huge integer": {"what": 2**70},
}
CANARY = "canary-5b1f"
SECRETIVE: dict[str, Any] = {
    "raw": {"note": "hello", "token": CANARY},
    "raw text": {"message": f"log in with {CANARY}", "nested": [{"api_key": [CANARY]}]},
    "question": {"type": "question", "prompt": f"log in with {CANARY}?", "schema": {}, "secret": CANARY},
    "approval": {
        "type": "approval",
        "action": {"operation": "login", "environment": "production", "metadata": {"passwd": "xyz"}},
        "description": "use 'xyz'",
        "risk": "high",
    },
    "per call": {
        "type": "tool_approval",
        "tool_call_id": "1",
        "name": "login",
        "args": {"password": CANARY},
        "description": f"Tool: login\nArgs: {{'password': '{CANARY}'}}",
    },
    "batched": {
        "action_requests": [{"name": "login", "args": {"password": CANARY}, "description": f"with {CANARY}"}],
        "review_configs": [],
    },
    "inbox": [
        {
            "action_request": {"action": "login", "args": {"private_key": CANARY}},
            "config": {"allow_accept": True},
            "description": f"key {CANARY}",
        }
    ],
}


def raise_prepared(state: State) -> State:
    return {"answers": [interrupt({**UNUSABLE, **SECRETIVE}[str(state.get("payload"))])]}


prepared = _one(raise_prepared)
