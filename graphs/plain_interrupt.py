"""A plain LangGraph graph with a raw `interrupt()`: a release note is drafted, signed off by a person, and published.

It knows nothing of Keyturn. Run as it is, its question is governed, durable and audited all the same.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# LangGraph's own annotations are partial.
from __future__ import annotations

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict


class State(TypedDict, total=False):
    """A version, what changed in it, and the note that comes of it."""

    version: str
    changes: list[str]
    draft: str
    sign_off: str
    published: str


def write_draft(state: State) -> State:
    """Turn the changes into a note."""
    lines = [f"- {change}" for change in state.get("changes", [])] or ["- No visible changes"]
    return {"draft": "\n".join([f"Release {state.get('version', 'unnamed')}", *lines])}


def sign_off(state: State) -> State:
    """Ask whether the note may go out. Any text but "yes" is taken as the note to publish instead."""
    answer = interrupt({"question": "Publish this release note? Answer yes, or send the text to publish instead.",
                        "draft": state.get("draft", "")})  # fmt: skip
    return {"sign_off": str(answer)}


def publish(state: State) -> State:
    """The final text."""
    answer = state.get("sign_off", "")
    approved = answer.strip().lower() in {"yes", "y", "true"}
    return {"published": state.get("draft", "") if approved else answer}


builder = StateGraph(State)
builder.add_node("write_draft", write_draft)
builder.add_node("sign_off", sign_off)
builder.add_node("publish", publish)
builder.add_edge(START, "write_draft")
builder.add_edge("write_draft", "sign_off")
builder.add_edge("sign_off", "publish")
builder.add_edge("publish", END)
graph = builder.compile()
