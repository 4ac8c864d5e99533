"""Shipping, a graph of its own inside of the orders graph. Its second step asks for an address that is missing."""

from __future__ import annotations

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt

from .. import journal  # noqa: TID252 as the application has it
from ..state import Order  # noqa: TID252 as the application has it


def pack(state: Order) -> Order:
    journal.write("pack")
    return {"done": ["packed"]}


def address(state: Order) -> Order:
    if state.get("address"):
        return {}
    schema = {"type": "string", "minLength": 5}
    return {"address": interrupt({"question": f"Where shall {state.get('title')} go?"}, response_schema=schema)}


async def post(state: Order) -> Order:
    journal.write(f"post to {state.get('address')}")
    return {"done": ["posted"]}


def build() -> CompiledStateGraph[Order]:
    builder = StateGraph(Order)
    for node in (pack, address, post):
        builder.add_node(node.__name__, node)
    builder.add_edge(START, "pack")
    builder.add_edge("pack", "address")
    builder.add_edge("address", "post")
    builder.add_edge("post", END)
    return builder.compile()
