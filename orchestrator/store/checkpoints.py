"""Rows of LangGraph's own tables, as a commit writes them and as they are looked up again.

The rows are those stock LangGraph savers write, so its tools read them; only when and how they are written differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.store.db import Connection, Params


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """One checkpoint; `checkpoint` and `metadata` are JSON text."""

    ns: str
    checkpoint_id: str
    parent_id: str | None
    checkpoint: str
    metadata: str


@dataclass(frozen=True, slots=True)
class BlobRow:
    """One channel value at one version, serialized."""

    ns: str
    channel: str
    version: str
    type: str
    blob: bytes | None


@dataclass(frozen=True, slots=True)
class WriteRow:
    """One pending write of a task, serialized."""

    ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    idx: int
    channel: str
    type: str
    blob: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """What one barrier writes of a thread."""

    checkpoints: Sequence[CheckpointRow] = field(default_factory=list[CheckpointRow])
    blobs: Sequence[BlobRow] = field(default_factory=list[BlobRow])
    writes: Sequence[WriteRow] = field(default_factory=list[WriteRow])

    def __bool__(self) -> bool:
        return bool(self.checkpoints or self.blobs or self.writes)


def columns(batch: Batch) -> Params:
    """`batch` as parts of a commit, and its `bytes`, for which JSON has no place."""
    contents = [row.blob for row in batch.blobs] + [row.blob for row in batch.writes]
    blobs = [
        {"ns": row.ns, "channel": row.channel, "version": row.version, "type": row.type, "at": at}
        for at, row in enumerate(batch.blobs, start=1)
    ]
    writes = [
        {
            "ns": row.ns, "id": row.checkpoint_id, "task": row.task_id, "path": row.task_path, "idx": row.idx,
            "channel": row.channel, "type": row.type, "at": at,
        }
        for at, row in enumerate(batch.writes, start=1 + len(batch.blobs))
    ]  # fmt: skip
    rows = [
        {
            "ns": row.ns, "id": row.checkpoint_id, "parent": row.parent_id, "body": row.checkpoint,
            "metadata": row.metadata,
        }
        for row in batch.checkpoints
    ]  # fmt: skip
    return {
        "checkpoints": rows or None,
        "blobs": blobs or None,
        "writes": writes or None,
        "bytes": contents or None,
    }


# Whether a checkpoint is stored, or a task's write with exactly this content.
HAS_CHECKPOINT = """
SELECT EXISTS (SELECT 1 FROM langgraph.checkpoints
                WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND checkpoint_id = %(id)s) AS stored
"""
HAS_WRITE = """
SELECT EXISTS (SELECT 1 FROM langgraph.checkpoint_writes
                WHERE thread_id = %(thread)s AND checkpoint_ns = %(ns)s AND checkpoint_id = %(id)s
                  AND task_id = %(task)s AND idx = %(idx)s AND blob = %(blob)s) AS stored
"""


async def contains(conn: Connection, thread_id: str, batch: Batch) -> bool:
    """Whether `batch` was stored by an attempt whose reply was lost. A batch is stored whole or not at all."""
    if batch.checkpoints:
        row = batch.checkpoints[-1]
        found = await conn.execute(HAS_CHECKPOINT, {"thread": thread_id, "ns": row.ns, "id": row.checkpoint_id})
    elif batch.writes:
        last = batch.writes[-1]
        found = await conn.execute(
            HAS_WRITE,
            {
                "thread": thread_id, "ns": last.ns, "id": last.checkpoint_id, "task": last.task_id, "idx": last.idx,
                "blob": last.blob,
            },
        )  # fmt: skip
    else:
        return False
    answer = await found.fetchone()
    return bool(answer and answer["stored"])
