"""Assistants with tools that LangChain's middleware holds back: one asks for a turn at once, the other call by call."""

from __future__ import annotations

from typing import Any, Literal

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from .journal import write


class Rehearsed(BaseChatModel):
    """Stands for a model: calls both tools in its first turn, then says what came of it."""

    @property
    def _llm_type(self) -> str:
        return "rehearsed"

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        if any(isinstance(one, AIMessage) for one in messages):
            told = "; ".join(str(one.content) for one in messages if one.type == "tool")
            return ChatResult(generations=[ChatGeneration(message=AIMessage(told))])
        calls = [
            ToolCall(name="refund", args={"order": "A7", "amount": 12.5}, id="call-1", type="tool_call"),
            ToolCall(name="remove_listing", args={"title": "Dune"}, id="call-2", type="tool_call"),
        ]
        return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=calls))])


@tool
def refund(order: str, amount: float) -> str:
    """Give money back."""
    write(f"refund {order} {amount}")
    return f"refunded {amount} for {order}"


@tool
async def remove_listing(title: str) -> str:
    """Take a book out of the shop."""
    write(f"remove {title}")
    return f"removed {title}"


def _agent(mode: Literal["batched", "per_call"]) -> Any:
    review = HumanInTheLoopMiddleware(
        interrupt_on={"refund": True, "remove_listing": {"allowed_decisions": ["approve", "reject"]}},
        interrupt_mode=mode,
    )
    return create_agent(Rehearsed(), [refund, remove_listing], middleware=[review])


agent = _agent("batched")


def make_porter() -> Any:
    return _agent("per_call")
