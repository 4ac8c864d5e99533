"""Where a thread stands, in values: the steps made since the last commit, what would run next, what is still asked.

Nothing here reads or writes; the saver fills these in, and the segment acts on them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from langgraph.checkpoint.base import Checkpoint
from langgraph.types import Interrupt, Send

START = "__start__"
TASKS = "__pregel_tasks"
_BRANCH, _JOIN = "branch:to:", "join:"

# What a running node tells: how far it is, and what it says.
PROGRESS, MESSAGE = "progress", "message"

StepEvent = tuple[str, dict[str, object]]


@dataclass(slots=True)
class Progress:
    """What a barrier commits besides the rows: the steps since the last one, and where the graph stands."""

    events: list[StepEvent] = field(default_factory=list[StepEvent])
    next_nodes: tuple[str, ...] = ()
    # A superstep of the thread has ended: every decision fed to it is contained in what is committed.
    advanced: bool = False
    # The nodes with effects that have completed.
    completed: frozenset[str] = frozenset()
    # When the first of the events was noted, on the loop's clock.
    since: float = 0.0
    # One of them is to be seen at once.
    urgent: bool = False

    def note(self, kind: str, node: str, now: float) -> None:
        """Add a step event."""
        self._add(kind, {"node": node}, now)

    def tell(self, kind: str, data: Mapping[str, object], now: float) -> None:
        """Add what a running node tells. Of its progress only the newest counts; a message goes on where it stopped."""
        self.urgent = True
        if kind == PROGRESS:
            told = [one for one in self.events if one[0] == PROGRESS and one[1].get("node") == data.get("node")]
            for one in told:
                self.events.remove(one)
        elif kind == MESSAGE and self.events:
            last, before = self.events[-1]
            if last == MESSAGE and before["message_id"] == data["message_id"] and not before["end"]:
                before |= {"delta": f"{before['delta']}{data['delta']}", "end": data["end"]}
                return
        self._add(kind, dict(data), now)

    def _add(self, kind: str, data: dict[str, object], now: float) -> None:
        if not self.events:
            self.since = now
        self.events.append((kind, data))

    def followed_by(self, later: Progress) -> Progress:
        """Both as one, when the commit of the first did not happen."""
        return Progress(
            self.events + later.events,
            later.next_nodes,
            self.advanced or later.advanced,
            self.completed | later.completed,
            self.since or later.since,
            self.urgent or later.urgent,
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """A thread's newest checkpoint: whether there is one, what it would run next, what it still asks (by id), and
    whether one of its tasks has finished or been given an answer since.
    """

    exists: bool = False
    next_nodes: tuple[str, ...] = ()
    interrupts: Mapping[str, Interrupt] = field(default_factory=dict[str, Interrupt])
    taken: bool = False


@dataclass(frozen=True, slots=True)
class Stops:
    """The nodes a graph was compiled to stop before and after; `*` means all."""

    before: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()

    def between(self, finished: Collection[str], ahead: Collection[str]) -> bool:
        """Whether the graph stops between these nodes."""
        coming, gone = set(ahead) - {START}, set(finished) - {START}
        stops_before = bool(coming & self.before) or ("*" in self.before and bool(coming))
        return stops_before or bool(gone & self.after) or ("*" in self.after and bool(gone))


def next_nodes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The nodes a checkpoint may run next. A join names its node though another branch may still be missing.

    A graph of the functional interface has none of these channels; its tasks are committed as each ends.
    """
    found: list[str] = []
    for channel in checkpoint.get("updated_channels") or ():
        if channel.startswith(_BRANCH):
            found.append(channel.removeprefix(_BRANCH))
        elif channel.startswith(_JOIN):
            found.append(channel.rsplit(":", 1)[-1])
        elif channel == START:
            found.append(START)
        elif channel == TASKS:
            tasks = checkpoint["channel_values"].get(TASKS) or ()
            found += [task.node for task in tasks if isinstance(task, Send)]
    return tuple(dict.fromkeys(found))
