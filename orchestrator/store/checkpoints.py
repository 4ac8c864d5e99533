"""Writes of LangGraph's own tables, as one statement inside the caller's transaction.

The rows are those stock LangGraph savers write, so its tools read them; only when and how they are written differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.store.db import Connection


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


# Everything of one barrier in one round trip. Blobs are immutable per version; a task's control writes replace.
WRITE_BATCH = """
WITH new_blobs AS (
    INSERT INTO langgraph.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT %(thread)s, * FROM unnest(%(b_ns)s::text[], %(b_channel)s::text[], %(b_version)s::text[], %(b_type)s::text[],
                                     %(b_blob)s::bytea[])
    ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING
), new_writes AS (
    INSERT INTO langgraph.checkpoint_writes
           (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT %(thread)s, * FROM unnest(%(w_ns)s::text[], %(w_checkpoint)s::text[], %(w_task)s::text[],
                                     %(w_path)s::text[], %(w_idx)s::int[], %(w_channel)s::text[], %(w_type)s::text[],
                                     %(w_blob)s::bytea[])
    ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
    DO UPDATE SET channel = EXCLUDED.channel, type = EXCLUDED.type, blob = EXCLUDED.blob
)
INSERT INTO langgraph.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
SELECT %(thread)s, ns, id, parent, body::jsonb, metadata::jsonb
  FROM unnest(%(c_ns)s::text[], %(c_id)s::text[], %(c_parent)s::text[], %(c_body)s::text[], %(c_metadata)s::text[])
    AS c (ns, id, parent, body, metadata)
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id)
DO UPDATE SET checkpoint = EXCLUDED.checkpoint, metadata = EXCLUDED.metadata
"""


async def write(conn: Connection, thread_id: str, batch: Batch) -> None:
    """Write `batch`; nothing is read back."""
    blobs, writes, rows = batch.blobs, batch.writes, batch.checkpoints
    await conn.execute(
        WRITE_BATCH,
        {
            "thread": thread_id,
            "b_ns": [b.ns for b in blobs],
            "b_channel": [b.channel for b in blobs],
            "b_version": [b.version for b in blobs],
            "b_type": [b.type for b in blobs],
            "b_blob": [b.blob for b in blobs],
            "w_ns": [w.ns for w in writes],
            "w_checkpoint": [w.checkpoint_id for w in writes],
            "w_task": [w.task_id for w in writes],
            "w_path": [w.task_path for w in writes],
            "w_idx": [w.idx for w in writes],
            "w_channel": [w.channel for w in writes],
            "w_type": [w.type for w in writes],
            "w_blob": [w.blob for w in writes],
            "c_ns": [c.ns for c in rows],
            "c_id": [c.checkpoint_id for c in rows],
            "c_parent": [c.parent_id for c in rows],
            "c_body": [c.checkpoint for c in rows],
            "c_metadata": [c.metadata for c in rows],
        },
    )


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
