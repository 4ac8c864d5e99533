"""A workflow's events in AG-UI's words while it runs: steps, text and progress. Pure; nothing is read or sent here.

Clients refuse a stream in which a step or a message is not closed, or closed without having been opened. A workflow's
own events need not be so: a worker that was killed leaves steps open, and another begins them again.
"""

from __future__ import annotations

from collections.abc import Iterable

from ag_ui.core import (
    PROTOCOL_VERSION,
    BaseEvent,
    CustomEvent,
    RunStartedEvent,
    StepFinishedEvent,
    StepStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
)

from orchestrator.wire import EventRecord


class Translator:
    """One run as one client sees it. What is opened is closed, whatever becomes of the workflow."""

    def __init__(self, thread_id: str, run_id: str, *, parent_run_id: str | None = None) -> None:
        self.thread_id = thread_id
        self.run_id = run_id
        self._parent_run_id = parent_run_id
        # What nodes have said in this run, by message.
        self._said: dict[str, str] = {}
        self._steps: dict[str, None] = {}
        self._seen_steps: set[str] = set()
        self._messages: dict[str, None] = {}

    def begin(self) -> list[BaseEvent]:
        """The run has begun."""
        return [
            RunStartedEvent(
                thread_id=self.thread_id,
                run_id=self.run_id,
                protocol_version=PROTOCOL_VERSION,
                parent_run_id=self._parent_run_id,
            )
        ]

    def take(self, record: EventRecord) -> list[BaseEvent]:
        """What one event of the workflow tells; most of them are for other readers."""
        data = record.data
        match record.type:
            case "workflow-started":
                # Somebody works on it anew: what was under way was cut off.
                return self.close()
            case "step-started":
                return self.start([str(data["node"])])
            case "step-finished":
                return self._finish(str(data["node"]))
            case "message":
                message_id, delta = str(data["message_id"]), str(data["delta"])
                self._said[message_id] = self._said.get(message_id, "") + delta
                return self._say(message_id, delta, end=bool(data["end"]))
            case "progress":
                return [CustomEvent(name="progress", value=data)]
            case _:
                return []

    def start(self, nodes: Iterable[str]) -> list[BaseEvent]:
        """These nodes run now. A step that is open already is one with it: tasks of one node run side by side."""
        new = [node for node in dict.fromkeys(nodes) if node and node not in self._steps]
        self._steps |= dict.fromkeys(new)
        self._seen_steps |= set(new)
        return [StepStartedEvent(step_name=node) for node in new]

    def _finish(self, node: str) -> list[BaseEvent]:
        if node in self._steps:
            del self._steps[node]
            return [StepFinishedEvent(step_name=node)]
        if node in self._seen_steps or node.startswith("("):
            return []
        # It began before this run of the client, which saw nothing of it.
        return [*self.start([node]), *self._finish(node)]

    def _say(self, message_id: str, delta: str, *, end: bool) -> list[BaseEvent]:
        told: list[BaseEvent] = []
        if message_id not in self._messages and delta:
            self._messages[message_id] = None
            told.append(TextMessageStartEvent(message_id=message_id, role="assistant"))
        if delta:
            told.append(TextMessageContentEvent(message_id=message_id, delta=delta))
        if end and message_id in self._messages:
            del self._messages[message_id]
            told.append(TextMessageEndEvent(message_id=message_id))
        return told

    def message(self, message_id: str, text: str) -> list[BaseEvent]:
        """A message told at once; nothing when it has no text, or a node has said the same."""
        if not text.strip() or text.strip() in {one.strip() for one in self._said.values()}:
            return []
        return self._say(message_id, text, end=True)

    def close(self) -> list[BaseEvent]:
        """End what is open."""
        told: list[BaseEvent] = [TextMessageEndEvent(message_id=one) for one in self._messages]
        told += [StepFinishedEvent(step_name=one) for one in reversed(self._steps)]
        self._messages.clear()
        self._steps.clear()
        return told
