"""Running a graph while the text of its declared nodes is told as it is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langgraph.types import GraphOutput, Interrupt

from orchestrator.core.canonical import Hiding

# Takes a part of a message: its id, its node, the text that is new, and whether it is complete.
Tell = Callable[[str, str, str, bool], None]


async def output_of(parts: AsyncIterator[Mapping[str, Any]], shown: frozenset[str], tell: Tell) -> GraphOutput[Any]:
    """What the graph ended with; `parts` is its stream of `values` and `messages`, those of subgraphs included.

    What a model in a node of `shown` says is told to `tell` as it comes, and what such a node adds to its messages.
    """
    value: object = None
    interrupts: list[Interrupt] = []
    writing = Writing(shown, tell)
    async for part in parts:
        if part["type"] == "messages":
            message, about = cast("tuple[BaseMessage, Mapping[str, object]]", part["data"])
            writing.take(message, about)
        elif not part["ns"]:
            value = part["data"]
            interrupts += part.get("interrupts") or ()
    writing.close()
    return GraphOutput(value=value, interrupts=tuple(interrupts))


class Veil:
    """Lets messages through without the secrets that a workflow was given, also where one comes in two pieces."""

    def __init__(self, hiding: Hiding, tell: Tell) -> None:
        self._hiding = hiding
        self._tell = tell
        # The end of what was said of each message, which may be the beginning of a secret.
        self._kept: dict[str, str] = {}

    def __call__(self, message_id: str, node: str, delta: str, end: bool) -> None:
        """Tell what is new of a message, but for an end that may still turn out to be a secret."""
        text = self._hiding(self._kept.pop(message_id, "") + delta)
        keep = 0 if end else max(self._hiding.longest - 1, 0)
        said = text[: max(len(text) - keep, 0)]
        if not end:
            self._kept[message_id] = text[len(said) :]
        if said or end:
            self._tell(message_id, node, said, end)


class Writing:
    """The messages under way; one at a time in each node, so that the end of one that was cut off is told, too."""

    def __init__(self, shown: frozenset[str], tell: Tell) -> None:
        self._shown = shown
        self._tell = tell
        self._open: dict[str, str] = {}

    def take(self, message: BaseMessage, about: Mapping[str, object]) -> None:
        """A message or a piece of one, and LangGraph's word on where it comes from."""
        # The node of the outermost graph: what runs inside of it speaks for it.
        place = str(about.get("langgraph_checkpoint_ns") or about.get("langgraph_node") or "")
        node = place.split("|", 1)[0].split(":", 1)[0]
        if node not in self._shown or not isinstance(message, AIMessage) or not message.id:
            return
        text = str(message.text)
        last = not isinstance(message, AIMessageChunk) or message.chunk_position == "last"
        before = self._open.get(node)
        if before != message.id:
            if not text:
                return  # a call of tools, or an opening without words
            if before is not None:
                self._end(node)
            self._open[node] = message.id
        if last:
            del self._open[node]
        if text or last:
            self._tell(message.id, node, text, last)

    def _end(self, node: str) -> None:
        self._tell(self._open.pop(node), node, "", True)

    def close(self) -> None:
        """Nothing more comes."""
        for node in list(self._open):
            self._end(node)
