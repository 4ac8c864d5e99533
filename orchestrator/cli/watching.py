"""Following a workflow for people: a live view with a progress bar on a terminal, one line an event in a pipe."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from typing import Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.output import safe, span, styled
from orchestrator.cli.session import Session
from orchestrator.wire import EventRecord, GraphView, WorkflowStatus
from orchestrator.wire_progress import StepProgress, TaskProgress

_LINES: Final = 12
_LONGEST_DATA: Final = 160
# Told at the head of a line already, or only of use to a program.
_QUIET: Final = frozenset(
    {"request_id", "key_id", "visit", "input", "action", "digest", "epoch", "approvals", "seconds"}
)
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
    view = _View(client.graph(workflow_id), client.status(workflow_id), client.progress(workflow_id))
    with Live(view.render(), console=output.console, auto_refresh=False, transient=False) as live:
        for event in client.follow(workflow_id):
            view.take(event)
            if event.type in _TURNING_POINTS:
                view.graph, view.status = client.graph(workflow_id), client.status(workflow_id)
            if event.type in _TURNING_POINTS or event.type == "progress":
                view.task = client.progress(workflow_id)
            live.update(view.render(), refresh=True)
        view.graph, view.status = client.graph(workflow_id), client.status(workflow_id)
        view.task = client.progress(workflow_id)
        live.update(view.render(), refresh=True)
    return view.status


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


def task_cells(task: TaskProgress) -> tuple[object, ...]:
    """A task as a row of a table."""
    percent = None if task.percent is None else f"{task.percent:.0f}%"
    left = task.remaining_seconds
    left_told = None if left is None or task.state != "running" else span(timedelta(seconds=left))
    return task.workflow_id, task.state, percent, left_told, task.title, task.message


def _times(task: TaskProgress) -> list[str]:
    told = [span(timedelta(seconds=task.elapsed_seconds))]
    if task.remaining_seconds is not None and task.state == "running":
        told.append(f"about {span(timedelta(seconds=task.remaining_seconds))} left")
    return told


def _step_line(step: StepProgress) -> str:
    """A step in a line: `  copy 40%  12/30  writing  (read 100%, write 20%)  attempt 2 of 3`."""
    parts = [f"  {safe(step.title or step.name)}"]
    if step.percent is not None:
        parts.append(f"{step.percent:.0f}%")
    if step.done is not None:
        parts.append(f"{step.done:g}" if step.total is None else f"{step.done:g}/{step.total:g}")
    parts.append(safe(step.message))
    if step.substeps:
        told = ", ".join(f"{safe(part.title or part.name)} {part.percent:.0f}%" for part in step.substeps)
        parts.append(f"({told})")
    if step.attempt > 1:
        parts.append(f"attempt {step.attempt} of {step.attempts}")
    return "  ".join(part for part in parts if part)


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(slots=True)
class _View:
    """What the live view shows."""

    graph: GraphView
    status: WorkflowStatus
    task: TaskProgress
    events: deque[EventRecord] = field(default_factory=lambda: deque[EventRecord](maxlen=_LINES))

    def take(self, event: EventRecord) -> None:
        """Add one event."""
        if event.type != "progress":  # the bar shows it
            self.events.append(event)

    def render(self) -> RenderableType:
        """The whole view: a head, the bar, the nodes, what is waited for, and the latest events."""
        head = Text.assemble(
            (safe(self.status.title or self.status.graph), "bold"), "  ", self.status.workflow_id, "  ",
            styled(self.status.status),
        )  # fmt: skip
        return Group(
            head,
            self._bar(),
            self._nodes(),
            *self._now(),
            *self._waiting(),
            *(_one_line(event_line(one)) for one in self.events),
        )

    def _bar(self) -> RenderableType:
        task = self.task
        row = Table.grid(padding=(0, 1))
        if task.percent is None:  # how many steps there will be is not known
            row.add_row(f"{sum(step.state == 'completed' for step in task.steps)} steps done", *_times(task))
        else:
            done = sum(step.state == "completed" for step in task.steps)
            bar = ProgressBar(total=100.0, completed=task.percent, width=40)
            row.add_row(bar, f"{task.percent:.0f}%", f"{done}/{len(task.steps)} steps", *_times(task))
        return row

    def _now(self) -> list[Text]:
        """What the steps under way say of themselves."""
        return [_one_line(_step_line(step)) for step in self.task.steps if step.state in ("running", "waiting")]

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
