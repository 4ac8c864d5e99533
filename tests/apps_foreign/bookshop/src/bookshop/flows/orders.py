"""An order: priced, approved, paid, shipped. A plain graph object with sync and async nodes and a subgraph."""

from __future__ import annotations

from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from .. import journal  # noqa: TID252 as the application has it
from ..state import Order  # noqa: TID252 as the application has it
from . import shipping


def price(state: Order) -> Order:
    return {"price": 20.0 * state.get("copies", 1)}


def review(state: Order) -> Order:
    """Any reviewer that understands this payload will do: a console, a form, a chat."""
    action: dict[str, Any] = {
        "operation": "charge_card",
        "environment": "production",
        "target": state.get("title", ""),
        "estimated_cost": state.get("price", 0.0),
        "arguments": {"currency": journal.currency(), "copies": state.get("copies", 1)},
    }
    answer = interrupt({"type": "approval", "action": action, "on_reject": "resume"})
    return {"done": ["approved" if answer["approved"] else "declined"]}


def next_step(state: Order) -> str:
    return "charge" if "approved" in state.get("done", []) else END


async def charge(state: Order) -> Order:
    journal.write(f"charge {state.get('price')} {journal.currency()}")
    return {"done": ["charged"]}


builder = StateGraph(Order)
builder.add_node("price", price)
builder.add_node("review", review)
builder.add_node("charge", charge)
builder.add_node("shipping", shipping.build())
builder.add_edge(START, "price")
builder.add_edge("price", "review")
builder.add_conditional_edges("review", next_step, ["charge", END])
builder.add_edge("charge", "shipping")
builder.add_edge("shipping", END)
graph = builder.compile()
