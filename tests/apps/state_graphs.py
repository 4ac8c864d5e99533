"""Graphs whose state is more than plain JSON, or kept in an unusual way; each pauses in the middle, to be read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from pydantic import BaseModel


class Colour(Enum):
    RED = "red"


@dataclass
class Place:
    name: str
    floor: int


class Order(BaseModel):
    number: int
    colour: Colour
    place: Place


class Typed(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    order: Order
    place: Place
    at: datetime
    tags: set[str]
    seen: list[str]


def fill(state: Typed) -> Typed:
    place = Place("cellar", -1)
    return {
        "messages": [AIMessage("hello", id="m2")],
        "order": Order(number=7, colour=Colour.RED, place=place),
        "place": place,
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "tags": {"a", "b"},
    }


def pause(state: Any) -> Any:
    interrupt("go on?")
    return {}


def inspect(state: Any) -> Any:
    """What the values are after they were read back from the table."""
    order = state["order"]
    values = (*state["messages"], order, order.colour, order.place, state["place"], state["at"], state["tags"])
    return {"seen": [type(value).__name__ for value in values]}


def chain(schema: Any, *nodes: Any) -> Any:
    builder = StateGraph(schema)
    names = [node.__name__ for node in nodes]
    for name, node in zip(names, nodes, strict=True):
        builder.add_node(name, node)
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    return builder.compile()


typed = chain(Typed, fill, pause, inspect)


class Model(BaseModel):
    order: Order | None = None
    seen: str = ""


def fill_model(state: Model) -> dict[str, Any]:
    return {"order": Order(number=8, colour=Colour.RED, place=Place("attic", 3))}


def inspect_model(state: Model) -> dict[str, Any]:
    return {"seen": f"{type(state).__name__} {type(state.order).__name__}"}


model = chain(Model, fill_model, pause, inspect_model)


def extend(present: list[str], writes: Sequence[list[str]]) -> list[str]:
    return [*present, *(item for write in writes for item in write)]


class Rebuilt(TypedDict, total=False):
    log: Annotated[list[str], DeltaChannel(extend)]


def one(state: Any) -> Any:
    return {"log": ["one"]}


def two(state: Any) -> Any:
    return {"log": ["two"]}


rebuilt = chain(Rebuilt, one, pause, two)


class Outer(TypedDict, total=False):
    log: list[str]


def _around() -> Any:
    builder = StateGraph(Outer)
    builder.add_node("inner", chain(Rebuilt, one, pause, two))
    builder.add_edge(START, "inner")
    builder.add_edge("inner", END)
    return builder.compile()


rebuilt_inside = _around()


def mark(trace: str, what: str) -> None:
    with Path(trace).open("a", encoding="utf-8") as file:
        file.write(f"{what}\n")


@task
async def double(number: int, trace: str) -> int:
    mark(trace, f"double {number}")
    return number * 2


@entrypoint()
async def functional(values: dict[str, Any]) -> dict[str, Any]:
    doubled = await double(values["number"], values["trace"])
    answer = interrupt("go on?")
    return {"number": await double(doubled, values["trace"]), "answer": answer}
