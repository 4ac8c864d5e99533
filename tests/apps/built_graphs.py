"""The ways a `langgraph.json` may name a graph: an object, a builder, and factories of every kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

OPEN: list[str] = []


class State(TypedDict, total=False):
    made_by: str


def _builder(name: str) -> StateGraph[State]:
    def node(state: State) -> State:
        return {"made_by": f"{name} while {', '.join(OPEN) or 'nothing'} is open"}

    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder


compiled = _builder("compiled").compile()
builder = _builder("builder")


def made() -> Any:
    return _builder("made").compile()


def configured(config: RunnableConfig) -> Any:
    return _builder(f"configured with {sorted(config)}").compile()


async def awaited() -> Any:
    return _builder("awaited")


@asynccontextmanager
async def opened() -> AsyncGenerator[Any]:
    OPEN.append("opened")
    yield _builder("opened").compile()
    OPEN.remove("opened")


@contextmanager
def entered(config: RunnableConfig) -> Generator[Any]:
    OPEN.append("entered")
    yield _builder("entered").compile()
    OPEN.remove("entered")


def wrong() -> str:
    return "not a graph"
