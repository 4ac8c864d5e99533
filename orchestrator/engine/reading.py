"""Stored checkpoints as plain JSON, for those who only look. The graph's code is not needed and nothing of it is run.

Types that strict msgpack does not know come out as what they were made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Interrupt

from orchestrator.engine.render import to_json
from orchestrator.engine.standing import next_nodes
from orchestrator.store.checkpoints import BlobRow, Newest, WriteRow

_INTERNAL = ("__", "branch:to:", "join:")
_INTERRUPT, _ERROR, _RESUME = "__interrupt__", "__error__", "__resume__"
_CONTROL = frozenset((_INTERRUPT, _ERROR, _RESUME, "__error_source_node__"))
# Of a checkpoint's metadata, what says nothing of the thread's own name.
_TOLD = ("source", "step", "parents", "run_id")
_SERDE = JsonPlusSerializer()


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a checkpoint that has not finished: its node, and the interrupts it waits at."""

    task_id: str
    node: str
    interrupts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One stored checkpoint: the graph's own channels, what would run next, and the tasks that wait."""

    checkpoint_id: str
    parent_id: str | None
    created_at: datetime | None
    values: Mapping[str, object]
    next_nodes: Sequence[str]
    tasks: Sequence[Task]
    metadata: Mapping[str, object]


def snapshot(stored: Newest) -> Snapshot:
    """A stored checkpoint, read. Never raises for what a graph has kept."""
    body = cast("dict[str, Any]", json.loads(stored.head.checkpoint))
    inline = cast("dict[str, object]", body.get("channel_values") or {})
    channels: dict[str, object] = {**inline, **{row.channel: row for row in stored.blobs}}
    tasks, finished = _tasks(stored.writes)
    ahead = next_nodes(cast("Checkpoint", {**body, "channel_values": _loaded(channels, ("__pregel_tasks",))}))
    metadata = cast("dict[str, object]", json.loads(stored.head.metadata))
    return Snapshot(
        stored.head.checkpoint_id, stored.head.parent_id, _instant(body.get("ts")),
        {name: to_json(value) for name, value in _loaded(channels, _own(channels)).items()},
        [node for node in ahead if node not in finished],
        tasks,
        {name: to_json(metadata[name]) for name in _TOLD if name in metadata},
    )  # fmt: skip


def _own(channels: Mapping[str, object]) -> list[str]:
    """The channels of the graph's state."""
    return [name for name in channels if not name.startswith(_INTERNAL)]


def _loaded(channels: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in names:
        value = channels.get(name)
        if isinstance(value, BlobRow):
            if value.type == "empty":
                continue
            value = _load(value.type, value.blob)
        if name in channels:
            found[name] = value
    return found


def _load(kind: str, blob: bytes | None) -> object:
    try:
        return _SERDE.loads_typed((kind, blob or b""))
    except Exception:  # noqa: BLE001 what one channel holds must not keep people from seeing the others
        return None


def _tasks(writes: Iterable[WriteRow]) -> tuple[list[Task], set[str]]:
    """The tasks that wait, and the nodes whose tasks have finished since the checkpoint."""
    asked: dict[str, tuple[str, dict[str, object]]] = {}
    done: dict[str, str] = {}
    for write in sorted(writes, key=lambda one: (one.task_path, one.task_id, one.idx)):
        node = write.task_path.rsplit(", ", 1)[-1]
        if write.channel == _INTERRUPT:
            items = _load(write.type, write.blob)
            found = cast("Sequence[object]", items) if isinstance(items, list | tuple) else ()
            values = {item.id: to_json(item.value) for item in found if isinstance(item, Interrupt)}
            asked[write.task_id] = (node, values)
        elif write.channel not in _CONTROL:
            done[write.task_id] = node
    waiting = [Task(task, node, values) for task, (node, values) in asked.items() if task not in done]
    return waiting, set(done.values()) - {task.node for task in waiting}


def _instant(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
