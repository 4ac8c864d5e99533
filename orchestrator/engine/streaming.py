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
    try:
        async for part in parts:
            if part["type"] == "messages":
                message, about = cast("tuple[BaseMessage, Mapping[str, object]]", part["data"])
                writing.take(message, about)
            elif not part["ns"]:
                value = part["data"]
                interrupts += part.get("interrupts") or ()
    finally:
        writing.close()
    return GraphOutput(value=value, interrupts=tuple(interrupts))


class Veil:
    """Lets messages through without the secrets that a workflow was given, also where one comes in two pieces. What to
    hide is asked when there is something to tell: by then the state of earlier runs is known.
    """

    def __init__(self, hiding: Callable[[], Hiding], tell: Tell) -> None:
        self._hiding = hiding
        self._tell = tell
        # The end of what was said of each message, which may be the beginning of a secret.
        self._kept: dict[str, str] = {}

    def __call__(self, message_id: str, node: str, delta: str, end: bool) -> None:
        """Tell what is new of a message, but for an end that may still turn out to be a secret."""
        hiding = self._hiding()
        text = hiding(self._kept.pop(message_id, "") + delta)
        keep = 0 if end else max(hiding.longest - 1, 0)
        said = text[: max(len(text) - keep, 0)]
        if not end:
            self._kept[message_id] = text[len(said) :]
        if said or end:
            self._tell(message_id, node, said, end)


class Writing:
    """The messages under way; one at a time in each task, so that the end of one that was cut off is told, too. A node
    that `Send` starts several times at once writes as many side by side.
    """

    def __init__(self, shown: frozenset[str], tell: Tell) -> None:
        self._shown = shown
        self._tell = tell
        self._open: dict[str, str] = {}

    def take(self, message: BaseMessage, about: Mapping[str, object]) -> None:
        """A message or a piece of one, and LangGraph's word on where it comes from."""
        # The node of the outermost graph: what runs inside of it speaks for it.
        place = str(about.get("langgraph_checkpoint_ns") or about.get("langgraph_node") or "")
        task = place.split("|", 1)[0]
        node = task.split(":", 1)[0]
        if node not in self._shown or not isinstance(message, AIMessage) or not message.id:
            return
        text = str(message.text)
        last = not isinstance(message, AIMessageChunk) or message.chunk_position == "last"
        before = self._open.get(task)
        if before != message.id:
            if not text:
                return  # a call of tools, or an opening without words
            if before is not None:
                self._end(task)
            self._open[task] = message.id
        if last:
            del self._open[task]
        if text or last:
            self._tell(message.id, node, text, last)

    def _end(self, task: str) -> None:
        self._tell(self._open.pop(task), task.split(":", 1)[0], "", True)

    def close(self) -> None:
        """Nothing more comes."""
        for task in list(self._open):
            self._end(task)
