"""Rows of LangGraph's own tables, as a commit writes them and as they are looked up again.

The rows are those stock LangGraph savers write, so its tools read them; only when and how they are written differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

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

    @property
    def size(self) -> int:
        """How many bytes and characters it holds, about."""
        contents = sum(len(row.blob or b"") for row in (*self.blobs, *self.writes))
        return contents + sum(len(row.checkpoint) for row in self.checkpoints)


@dataclass(frozen=True, slots=True)
class Newest:
    """A thread's newest checkpoint in one namespace, the values of its channels and its pending writes, as stored."""

    head: CheckpointRow
    blobs: Sequence[BlobRow]
    writes: Sequence[WriteRow]

    @classmethod
    def from_row(cls, row: Params) -> Self:
        """From the row of the statement below."""
        ns, head_id = row["checkpoint_ns"], row["checkpoint_id"]
        head = CheckpointRow(ns, head_id, row["parent_checkpoint_id"], row["checkpoint"], row["metadata"])
        blobs = [
            BlobRow(ns, channel.decode(), version.decode(), kind.decode(), blob)
            for channel, version, kind, blob in row["blobs"] or ()
        ]
        writes = [
            WriteRow(ns, head_id, task.decode(), path.decode(), int(idx), channel.decode(), kind.decode(), blob)
            for task, path, idx, channel, kind, blob in row["writes"] or ()
        ]
        return cls(head, blobs, writes)


# The newest checkpoint of each thread in a namespace, whole. (Arrays behind SELECTs of their own have no length that
# Postgres sees, and so it need not plan the statement anew for each.)
NEWEST = """
SELECT asked.nth, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.checkpoint::text AS checkpoint,
       c.metadata::text AS metadata,
       (SELECT array_agg(ARRAY[convert_to(b.channel, 'UTF8'), convert_to(b.version, 'UTF8'), convert_to(b.type, 'UTF8'),
                               b.blob])
          FROM jsonb_each_text(c.checkpoint -> 'channel_versions') AS v
          JOIN langgraph.checkpoint_blobs b ON b.thread_id = c.thread_id AND b.checkpoint_ns = c.checkpoint_ns
                                           AND b.channel = v.key AND b.version = v.value) AS blobs,
       (SELECT array_agg(ARRAY[convert_to(w.task_id, 'UTF8'), convert_to(w.task_path, 'UTF8'),
                               convert_to(w.idx::text, 'UTF8'), convert_to(w.channel, 'UTF8'),
                               convert_to(w.type, 'UTF8'), w.blob])
          FROM langgraph.checkpoint_writes w
         WHERE w.thread_id = c.thread_id AND w.checkpoint_ns = c.checkpoint_ns
           AND w.checkpoint_id = c.checkpoint_id) AS writes
  FROM unnest((SELECT %(threads)s::text[]), (SELECT %(namespaces)s::text[])) WITH ORDINALITY AS asked (thread, ns, nth)
 CROSS JOIN LATERAL (SELECT * FROM langgraph.checkpoints n
                      WHERE n.thread_id = asked.thread AND n.checkpoint_ns = asked.ns
                      ORDER BY n.checkpoint_id DESC LIMIT 1) AS c
"""


async def newest(conn: Connection, threads: Sequence[tuple[str, str]], *, wait: bool = True) -> list[Newest | None]:
    """The newest checkpoint of each thread in a namespace, None where there is none. There is nothing to `wait` for."""
    del wait
    keys = {"threads": [thread for thread, _ in threads], "namespaces": [ns for _, ns in threads]}
    found = await conn.execute(NEWEST, keys, binary=True)
    rows = {row["nth"]: row for row in await found.fetchall()}
    return [Newest.from_row(rows[nth]) if nth in rows else None for nth in range(1, len(threads) + 1)]


# Stored checkpoints of a thread itself, newest first: one of them, those before one, or all.
OF_THREAD = """
SELECT c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.checkpoint::text AS checkpoint,
       c.metadata::text AS metadata,
       (SELECT array_agg(ARRAY[convert_to(b.channel, 'UTF8'), convert_to(b.version, 'UTF8'), convert_to(b.type, 'UTF8'),
                               b.blob])
          FROM jsonb_each_text(c.checkpoint -> 'channel_versions') AS v
          JOIN langgraph.checkpoint_blobs b ON b.thread_id = c.thread_id AND b.checkpoint_ns = c.checkpoint_ns
                                           AND b.channel = v.key AND b.version = v.value) AS blobs,
       (SELECT array_agg(ARRAY[convert_to(w.task_id, 'UTF8'), convert_to(w.task_path, 'UTF8'),
                               convert_to(w.idx::text, 'UTF8'), convert_to(w.channel, 'UTF8'),
                               convert_to(w.type, 'UTF8'), w.blob])
          FROM langgraph.checkpoint_writes w
         WHERE w.thread_id = c.thread_id AND w.checkpoint_ns = c.checkpoint_ns
           AND w.checkpoint_id = c.checkpoint_id) AS writes
  FROM langgraph.checkpoints c
 WHERE c.thread_id = %(thread)s AND c.checkpoint_ns = ''
   AND (%(exactly)s::text IS NULL OR c.checkpoint_id = %(exactly)s)
   AND (%(before)s::text IS NULL OR c.checkpoint_id < %(before)s)
 ORDER BY c.checkpoint_id DESC LIMIT %(limit)s
"""


async def of_thread(
    conn: Connection, thread_id: str, *, exactly: str | None = None, before: str | None = None, limit: int = 1
) -> list[Newest]:
    """Stored checkpoints of a thread, newest first."""
    keys = {"thread": thread_id, "exactly": exactly, "before": before, "limit": limit}
    found = await conn.execute(OF_THREAD, keys, binary=True)
    return [Newest.from_row(row) for row in await found.fetchall()]


# Whether a thread has any state.
ANY_OF = "SELECT EXISTS (SELECT 1 FROM langgraph.checkpoints WHERE thread_id = %(thread)s) AS found"


async def any_of(conn: Connection, thread_id: str) -> bool:
    """Whether a thread has any state, of its own or copied."""
    row = await (await conn.execute(ANY_OF, {"thread": thread_id})).fetchone()
    return bool(row and row["found"])


def columns(batch: Batch, contents: list[bytes | None]) -> Params:
    """`batch` as parts of a commit. Its bytes, for which JSON has no place, are added to `contents`."""
    first = len(contents) + 1
    contents += [row.blob for row in (*batch.blobs, *batch.writes)]
    blobs = [
        {"ns": row.ns, "channel": row.channel, "version": row.version, "type": row.type, "at": at}
        for at, row in enumerate(batch.blobs, start=first)
    ]
    writes = [
        {
            "ns": row.ns, "id": row.checkpoint_id, "task": row.task_id, "path": row.task_path, "idx": row.idx,
            "channel": row.channel, "type": row.type, "at": at,
        }
        for at, row in enumerate(batch.writes, start=first + len(batch.blobs))
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
