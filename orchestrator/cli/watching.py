"""Following a workflow for people: a live view with a progress bar on a terminal, one line an event in a pipe."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.output import safe, styled
from orchestrator.cli.session import Session
from orchestrator.wire import EventRecord, GraphView, WorkflowStatus

_LINES: Final = 12
_LONGEST_DATA: Final = 160
# Told at the head of a line already, or only of use to a program.
_QUIET: Final = frozenset({"request_id", "key_id", "visit", "input", "action", "digest", "epoch", "approvals"})
# After these the marks of the graph or the status may have changed.
_TURNING_POINTS: Final = frozenset(
    {"step-started", "step-finished", "confirmation-required", "confirmation-resolved", "workflow-started"}
)
_MARKS: Final[Mapping[str, str]] = {"done": "✔", "current": "▶", "pending-gate": "⏸", "todo": "·"}


def watch_workflow(session: Session, workflow_id: str) -> WorkflowStatus:
    """Follow a workflow to its end and return its status then."""
    client, output = session.client, session.output
    if not output.terminal:
        for event in client.follow(workflow_id):
            output.json(event) if output.as_json else output.line(event_line(event))
        return client.status(workflow_id)
    view = _View(client.graph(workflow_id), client.status(workflow_id))
    with Live(view.render(), console=output.console, auto_refresh=False, transient=False) as live:
        for event in client.follow(workflow_id):
            view.take(event)
            if event.type in _TURNING_POINTS:
                view.graph, view.status = client.graph(workflow_id), client.status(workflow_id)
            live.update(view.render(), refresh=True)
        view.graph, view.status = client.graph(workflow_id), client.status(workflow_id)
        live.update(view.render(), refresh=True)
    return view.status


def watch_case(session: Session, case_id: str) -> None:
    """Tell what happens in a case, line by line, until it is interrupted."""
    output = session.output
    for event in session.client.follow_case(case_id):
        output.json(event) if output.as_json else output.line(f"{event.workflow_id}  {event_line(event)}")


def event_line(event: EventRecord) -> str:
    """One event as one line: number, time, type, who, and what helps to understand it."""
    at = event.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{event.seq:>4}  {at}  {safe(event.type):<22} {safe(event.actor):<12} {_told(event.data)}".rstrip()


def _told(data: Mapping[str, object]) -> str:
    parts = [
        f"{name}={_short(value)}"
        for name, value in data.items()
        if name not in _QUIET and value not in (None, "", [], {})
    ]
    text = safe(" ".join(parts))
    return text if len(text) <= _LONGEST_DATA else text[: _LONGEST_DATA - 1] + "…"


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(slots=True)
class _View:
    """What the live view shows."""

    graph: GraphView
    status: WorkflowStatus
    progress: float | None = None
    events: deque[EventRecord] = field(default_factory=lambda: deque[EventRecord](maxlen=_LINES))

    def take(self, event: EventRecord) -> None:
        """Add one event."""
        self.events.append(event)
        percent = event.data.get("percent")
        if event.type == "progress" and isinstance(percent, int | float):
            self.progress = float(percent) / 100

    def render(self) -> RenderableType:
        """The whole view: a head, the bar, the nodes, what is waited for, and the latest events."""
        head = Text.assemble(
            (safe(self.status.title or self.status.graph), "bold"), "  ", self.status.workflow_id, "  ",
            styled(self.status.status),
        )  # fmt: skip
        return Group(
            head, self._bar(), self._nodes(), *self._waiting(), *(_one_line(event_line(one)) for one in self.events)
        )

    def _bar(self) -> RenderableType:
        steps = [node for node in self.graph.nodes if node["id"] not in ("__start__", "__end__")]
        done = sum(1 for node in steps if node.get("state") == "done")
        ended = self.status.status == "completed"
        completed = 1.0 if ended else self.progress if self.progress is not None else done / max(1, len(steps))
        row = Table.grid(padding=(0, 1))
        row.add_row(
            ProgressBar(total=1.0, completed=completed, width=40), f"{completed:.0%}", f"{done}/{len(steps)} steps"
        )
        return row

    def _nodes(self) -> Text:
        line = Text()
        for node in self.graph.nodes:
            state = str(node.get("state", "todo"))
            if node["id"] not in ("__start__", "__end__"):
                style = {"done": "green", "current": "bold cyan", "pending-gate": "bold yellow"}.get(state, "dim")
                line.append(f"{_MARKS.get(state, '·')} {safe(node['id'])}  ", style=style)
        return line

    def _waiting(self) -> list[Text]:
        lines: list[Text] = []
        for one in self.status.approvals:
            if one.state == "pending":
                verb = "answer" if one.kind == "question" else "approve"
                needed = " or ".join(one.approvers) or "an answer"
                told = f"waits for {safe(needed)}: {safe(one.description)}   keyturn {verb} {self.status.workflow_id}"
                lines.append(Text(told, style="yellow"))
        return lines
