"""What a segment has computed and not yet committed: per checkpoint namespace, rows as they would stand in Postgres.

Values are serialized when they arrive, so a node that changes its input in place cannot change what was recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from langgraph.checkpoint.base import WRITES_IDX_MAP, ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import (
    INTERRUPT,
    _DeltaSnapshot,  # pyright: ignore[reportPrivateUsage] no public name
)
from langgraph.types import Interrupt

from orchestrator.core.errors import GraphFault, NotStorable
from orchestrator.store.checkpoints import Batch, BlobRow, CheckpointRow, Newest, WriteRow

Row = dict[str, object]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _dumped(serde: SerializerProtocol, channel: str, value: object) -> tuple[str, bytes]:
    """The value serialized. GraphFault for an interrupt's payload that cannot be, NotStorable for anything else."""
    try:
        return serde.dumps_typed(value)
    except (TypeError, ValueError, RecursionError) as error:
        if channel == INTERRUPT:
            detail = f"an interrupt() payload must be JSON, and this one is not: {error}"
            raise GraphFault(detail, interrupt_id=cast("Sequence[Interrupt]", value)[0].id) from error
        detail = f"the graph's state cannot be stored: `{channel}`: {error}; keep in it what can be written down"
        raise NotStorable(detail, channel=channel) from error


@dataclass(slots=True)
class Line:
    """One checkpoint namespace of a thread: its newest checkpoint, current blobs and pending writes."""

    thread_id: str
    ns: str
    head: CheckpointRow | None = None
    blobs: dict[str, BlobRow] = field(default_factory=dict[str, BlobRow])
    writes: dict[tuple[str, int], WriteRow] = field(default_factory=dict[tuple[str, int], WriteRow])
    # Not yet committed: checkpoint rows oldest first, and which blobs and writes.
    new_rows: list[CheckpointRow] = field(default_factory=list[CheckpointRow])
    new_blobs: dict[tuple[str, str], BlobRow] = field(default_factory=dict[tuple[str, str], BlobRow])
    new_writes: dict[tuple[str, str, int], WriteRow] = field(default_factory=dict[tuple[str, str, int], WriteRow])
    persisted_id: str | None = None
    # Its channels are rebuilt from the writes of earlier checkpoints, so none of these is superseded.
    rebuilt: bool = False

    @classmethod
    def loaded(cls, thread_id: str, stored: Newest) -> Line:
        """A line as stored."""
        return cls(
            thread_id,
            stored.head.ns,
            stored.head,
            {blob.channel: blob for blob in stored.blobs},
            {(write.task_id, write.idx): write for write in stored.writes},
            persisted_id=stored.head.checkpoint_id,
        )

    def put(
        self,
        serde: SerializerProtocol,
        parent_id: str | None,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
        *,
        keep_all: bool,
    ) -> None:
        """Make `checkpoint` the newest. Unless `keep_all`, an uncommitted older one is superseded and never written."""
        inline: dict[str, object] = {}
        for channel, value in checkpoint["channel_values"].items():
            if value is None or isinstance(value, str | int | float | bool):
                inline[channel] = value
                continue
            if isinstance(value, _DeltaSnapshot):
                inline[channel] = True
            if channel in new_versions:
                version = str(new_versions[channel])
                blob = BlobRow(self.ns, channel, version, *_dumped(serde, channel, value))
                self.blobs[channel] = blob
                if not keep_all:
                    self._forget(channel)
                self.new_blobs[channel, version] = blob
        if not keep_all:
            parent_id = self.persisted_id
            self.new_rows.clear()
            self.new_writes.clear()
        body = {**checkpoint, "channel_values": inline}
        row = CheckpointRow(self.ns, checkpoint["id"], parent_id, _json(body), _json(metadata))
        self.head = row
        self.new_rows.append(row)
        self.writes.clear()

    def _forget(self, channel: str) -> None:
        for key in [key for key in self.new_blobs if key[0] == channel]:
            del self.new_blobs[key]

    def put_writes(
        self,
        serde: SerializerProtocol,
        checkpoint_id: str,
        writes: Sequence[tuple[str, object]],
        task_id: str,
        task_path: str,
    ) -> None:
        """Record a task's writes as the stock saver does: control writes replace, the first of others stands."""
        replace = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        for position, (channel, value) in enumerate(writes):
            idx = WRITES_IDX_MAP.get(channel, position)
            if not replace and ((task_id, idx) in self.writes or (checkpoint_id, task_id, idx) in self.new_writes):
                continue
            row = WriteRow(self.ns, checkpoint_id, task_id, task_path, idx, channel, *_dumped(serde, channel, value))
            if self.head is None or checkpoint_id == self.head.checkpoint_id:
                self.writes[task_id, idx] = row
            self.new_writes[checkpoint_id, task_id, idx] = row

    def as_row(self) -> Row | None:
        """The newest checkpoint in the shape of the stock saver's SELECT; None before the first one."""
        if self.head is None:
            return None
        checkpoint = cast("dict[str, object]", json.loads(self.head.checkpoint))
        versions = cast("Mapping[str, str]", checkpoint["channel_versions"])
        return {
            "thread_id": self.thread_id,
            "checkpoint_ns": self.ns,
            "checkpoint_id": self.head.checkpoint_id,
            "parent_checkpoint_id": self.head.parent_id,
            "checkpoint": checkpoint,
            "metadata": json.loads(self.head.metadata),
            "channel_values": [
                (blob.channel.encode(), blob.type.encode(), blob.blob)
                for blob in self.blobs.values()
                if versions.get(blob.channel) == blob.version
            ],
            "pending_writes": [
                (
                    w.task_id.encode(),
                    w.channel.encode(),
                    w.type.encode(),
                    w.blob,
                    w.task_path.encode(),
                    str(w.idx).encode(),
                )
                for w in self.writes.values()
            ],
        }

    def drop_tasks(self, task_ids: frozenset[str]) -> None:
        """Forget the uncommitted writes of these tasks; what is in Postgres of them stands."""
        for key in [key for key in self.new_writes if key[1] in task_ids]:
            row = self.new_writes.pop(key)
            if self.writes.get(key[1:]) is row:
                del self.writes[key[1:]]

    def pending(self) -> Batch:
        """What a barrier would write now."""
        return Batch(list(self.new_rows), list(self.new_blobs.values()), list(self.new_writes.values()))

    def committed(self, batch: Batch) -> None:
        """`batch` is in Postgres: it is not written again."""
        if batch.checkpoints:
            self.persisted_id = batch.checkpoints[-1].checkpoint_id
        done = {row.checkpoint_id for row in batch.checkpoints}
        self.new_rows = [row for row in self.new_rows if row.checkpoint_id not in done]
        for blob in batch.blobs:
            self.new_blobs.pop((blob.channel, blob.version), None)
        for write in batch.writes:
            key = (write.checkpoint_id, write.task_id, write.idx)
            if self.new_writes.get(key) is write:
                del self.new_writes[key]
