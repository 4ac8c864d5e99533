"""A mail that a person looks at in an agent inbox before it goes out; made by an async factory."""

from __future__ import annotations

import os
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from ..journal import write  # noqa: TID252 as the application has it


class Mail(TypedDict, total=False):
    to: str
    text: str
    sent: str


async def draft(state: Mail) -> Mail:
    return {"text": f"Dear {state.get('to')}, your books are here. {os.environ['BOOKSHOP_NAME']}"}


async def send(state: Mail) -> Mail:
    request: dict[str, Any] = {
        "action_request": {"action": "send_mail", "args": {"to": state.get("to"), "text": state.get("text")}},
        "config": {"allow_accept": True, "allow_respond": True, "allow_ignore": True, "allow_edit": False},
        "description": "A mail to a customer",
    }
    (answer,) = interrupt([request])
    if answer["type"] == "accept":
        write(f"mail to {state.get('to')}")
    return {"sent": answer["type"] if answer["type"] != "response" else f"response: {answer['args']}"}


async def make_graph(config: RunnableConfig) -> Any:
    builder = StateGraph(Mail)
    builder.add_node("draft", draft)
    builder.add_node("send", send)
    builder.add_edge(START, "draft")
    builder.add_edge("draft", "send")
    builder.add_edge("send", END)
    return builder.compile(name=f"mail of {os.environ['BOOKSHOP_NAME']}")
