"""The barrier saver: LangGraph's Postgres saver for one segment, which commits only where a crash must not go back.

It writes at a barrier: before a node with possible effects starts, if such a node has completed since the last
barrier; and when the segment ends. So a completed node with effects never runs again once a later node has started,
and a segment of pure steps costs one commit. How a commit is guarded is the segment's business.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.types import Interrupt

from orchestrator.engine.buffer import Line, Row
from orchestrator.engine.persist import until_stored, whole
from orchestrator.engine.standing import START, TASKS, Progress, Standing, StepEvent, Stops, next_nodes
from orchestrator.store import checkpoints
from orchestrator.store.checkpoints import Batch, CheckpointRow, Newest
from orchestrator.store.db import Database, translated

_INTERRUPT, _ERROR, _RESUME = "__interrupt__", "__error__", "__resume__"
_CONTROL = frozenset((_INTERRUPT, _ERROR, _RESUME, "__error_source_node__"))
# What LangGraph notes on a checkpoint whose channels are rebuilt from the writes of earlier ones (`DeltaChannel`).
_DELTA = "counters_since_delta_snapshot"
# How a task's path is written: a node of the graph, and a task called from inside of one (the functional interface).
_PULL, _CALL = "~__pregel_pull, ", "~__pregel_push, ~"

# Must write the batch of the named thread and the progress in one guarded transaction.
Commit = Callable[[str, Batch, Progress], Awaitable[None]]
Batches = dict["tuple[str, str]", Batch]

# A finished task of a parallel or long superstep is committed at the latest this many seconds after the last barrier.
_LINGER = 1.0


class BarrierSaver(AsyncPostgresSaver):
    """A saver that commits at barriers, through `commit`.

    `pure` names the nodes without effects. `keep_all` writes every checkpoint at once (graphs that ask for their full
    history). Where channels are rebuilt from earlier checkpoints, those are kept too, each written at the next barrier.
    `fresh` says that the thread has no checkpoint yet.
    """

    def __init__(
        self,
        db: Database,
        commit: Commit,
        *,
        pure: frozenset[str] = frozenset(),
        stops: Stops | None = None,
        keep_all: bool = False,
        fresh: bool = False,
    ) -> None:
        super().__init__(conn=db.pool)
        self._db = db
        self.progress = Progress()
        self.interrupted_nodes: dict[str, str] = {}
        # The state that was there before: the first that is read of the thread itself.
        self.found: dict[str, object] = {}
        # While true nothing is committed, as what is tried may have to be forgotten.
        self.trial = False
        self._commit = commit
        self._pure = pure | {START}
        self._stops = stops or Stops()
        # The graph pauses here by itself (`interrupt_before`, `interrupt_after`).
        self.at_stop = False
        self._just_finished: set[str] = set()
        self._keep_all = keep_all
        self._fresh = fresh
        self._lines: dict[tuple[str, str], Line] = {}
        self._effect_since_barrier = False
        self._last_barrier = self.loop.time()
        self._failed_tasks: set[str] = set()
        self._writing = asyncio.Lock()

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> BarrierSaver:
        """Allow the types of a graph's state. In place: LangGraph would run on a clone whose progress nobody sees."""
        self.serde = super().with_allowlist(extra_allowlist).serde
        return self

    # Reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The newest checkpoint comes from the buffer; a named older one from the table, after a barrier."""
        if get_checkpoint_id(config):
            await self.barrier()
            with translated():
                return await super().aget_tuple(config)
        line = await self._line(config)
        row = line.as_row()
        return None if row is None else await self._load_checkpoint_tuple(row)

    async def _line(self, config: RunnableConfig) -> Line:
        configurable = config.get("configurable", {})
        thread_id, ns = str(configurable["thread_id"]), str(configurable.get("checkpoint_ns") or "")
        line = self._lines.get((thread_id, ns))
        if line is None:
            stored = None if self._fresh else await self._select_newest(thread_id, ns)
            found = Line(thread_id, ns) if stored is None else Line.loaded(thread_id, stored)
            line = self._lines.setdefault((thread_id, ns), found)
        return line

    async def _select_newest(self, thread_id: str, ns: str) -> Newest | None:
        return await until_stored(lambda: self._db.together(checkpoints.newest, (thread_id, ns)))

    async def _load_checkpoint_tuple(self, value: Row) -> CheckpointTuple:
        # The stock saver hops to a thread for the pending writes of every read; ours are small and at hand.
        checkpoint = cast("dict[str, object]", value["checkpoint"])
        values = {
            **cast("dict[str, object]", checkpoint.get("channel_values") or {}),
            **self._load_blobs(cast("list[tuple[bytes, bytes, bytes]]", value["channel_values"])),
        }
        if not value["checkpoint_ns"] and not self.found:
            self.found.update(values)
        parent = value["parent_checkpoint_id"]
        return CheckpointTuple(
            _config(value, value["checkpoint_id"]),
            cast("Checkpoint", {**checkpoint, "channel_values": values}),
            cast("CheckpointMetadata", value["metadata"]),
            _config(value, parent) if parent else None,
            self._load_writes(cast("list[tuple[bytes, bytes, bytes, bytes, bytes, bytes]]", value["pending_writes"])),
        )

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, object] | None = None,  # noqa: A002 the base class's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As the stock saver, after a barrier."""
        await self.barrier()
        with translated():
            async for found in super().alist(config, filter=filter, before=before, limit=limit):
                yield found

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As the stock saver, after a barrier: a channel's history is read from the tables."""
        if not self.at_stop:
            await self.barrier()
        with translated():
            return await super().aget_delta_channel_history(config=config, channels=channels)

    async def adelete_thread(self, thread_id: str) -> None:
        """As the stock saver; what was buffered of the thread is gone too."""
        for key in [key for key in self._lines if key[0] == thread_id]:
            del self._lines[key]
        await super().adelete_thread(thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As the stock saver, after a barrier."""
        await self.barrier()
        self._lines.clear()
        await super().aprune(thread_ids, strategy=strategy)

    # Writing

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Buffer the checkpoint; raise a barrier if an effect is behind and another may be ahead."""
        line = await self._line(config)
        kept = get_serializable_checkpoint_metadata(config, metadata)
        line.rebuilt = line.rebuilt or _DELTA in kept
        keep_all = self._keep_all or line.rebuilt
        line.put(self.serde, get_checkpoint_id(config), checkpoint, kept, new_versions, keep_all=keep_all)
        ahead = next_nodes(checkpoint)
        if not line.ns:
            self.progress.advanced = True
            self.progress.next_nodes = ahead
            for started in ahead:
                if started != START:
                    self.progress.note("step-started", started, self.loop.time())
            self.at_stop = self._stops.between(self._just_finished, ahead)
            self._just_finished = set()
        effect_ahead = bool(ahead) if line.ns else any(node not in self._pure for node in ahead)
        # A checkpoint at a stop is committed with the request that asks for leave to pass it, never before: LangGraph
        # would walk through when it is continued from there.
        if not self.at_stop and (self._keep_all or (self._effect_since_barrier and effect_ahead)):
            await self.barrier()
        return _config({"thread_id": line.thread_id, "checkpoint_ns": line.ns}, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, object]], task_id: str, task_path: str = ""
    ) -> None:
        """Buffer a task's writes and note what they say: finished, interrupted or failed."""
        line = await self._line(config)
        line.put_writes(self.serde, get_checkpoint_id(config) or "", writes, task_id, task_path)
        node = task_path.rsplit(", ", 1)[-1] if task_path.startswith(_PULL) else ""
        channels = {channel for channel, _ in writes}
        if _INTERRUPT in channels:
            for item in _interrupts(writes):
                self.interrupted_nodes.setdefault(item.id, node)
        elif _ERROR in channels:
            self._failed_tasks.add(task_id)
        elif channels - {_RESUME} and node != START:
            self._finished(line.ns, node)
        lingering = self._effect_since_barrier and self.loop.time() - self._last_barrier > _LINGER
        if self._keep_all or lingering or task_path.startswith(_CALL):
            await self.barrier()

    def _finished(self, ns: str, node: str) -> None:
        if ns or node not in self._pure:
            self._effect_since_barrier = True
            self.progress.completed |= {node}
        if not ns:
            self._just_finished.add(node)
            self.progress.note("step-finished", node or "(parallel task)", self.loop.time())

    async def barrier(self) -> None:
        """Commit what is buffered, if anything is. Once begun, it is known what came of it, also to whoever cancels."""
        if not self.trial and any(self._pending().values()):
            await whole(self._commit_pending())

    async def _commit_pending(self) -> None:
        async with self._writing:
            batches, progress = self._pending(), self.progress
            if not any(batches.values()):
                return
            self.progress, self._effect_since_barrier = Progress(next_nodes=progress.next_nodes), False
            try:
                for thread_id in {key[0] for key in batches}:
                    await self._commit(thread_id, merged(batches, thread_id), progress)
            except BaseException:
                self.progress, self._effect_since_barrier = progress.followed_by(self.progress), True
                raise
            self.mark_committed(batches)

    def take_events(self, older_than: float) -> list[StepEvent]:
        """The noted events, if one is urgent or the first has waited for so many seconds; the caller's from then on."""
        progress = self.progress
        due = progress.urgent or self.loop.time() - progress.since >= older_than
        if self.trial or not progress.events or not due:
            return []
        noted, progress.events, progress.urgent = progress.events, [], False
        return noted

    def tell(self, kind: str, data: Mapping[str, object]) -> None:
        """Note what a running node tells."""
        self.progress.tell(kind, data, self.loop.time())

    def give_back(self, noted: Sequence[StepEvent]) -> None:
        """Events that could not be committed after all."""
        self.progress.events[:0] = noted

    def take(self) -> tuple[Batches, Progress]:
        """What the last commit of a segment must write; call `mark_committed` once it is in Postgres.

        Writes of failed tasks are left out: a retry runs those tasks again, and their siblings' results stand.
        """
        for line in self._lines.values():
            line.drop_tasks(frozenset(self._failed_tasks))
        progress, self.progress = self.progress, Progress(next_nodes=self.progress.next_nodes)
        return self._pending(), progress

    def _pending(self) -> Batches:
        return {key: line.pending() for key, line in self._lines.items()}

    def mark_committed(self, batches: Batches) -> None:
        """The rows of `batches` are in Postgres."""
        self._last_barrier = self.loop.time()
        for key, batch in batches.items():
            self._lines[key].committed(batch)

    # Looking

    async def standing(self, thread_id: str) -> Standing:
        """Where the thread's newest checkpoint stands."""
        line = await self._line({"configurable": {"thread_id": thread_id}})
        if line.head is None:
            return Standing()
        finished: set[str] = set()
        answered = False
        asked: dict[str, Sequence[Interrupt]] = {}
        for write in line.writes.values():
            if write.channel == _INTERRUPT:
                asked[write.task_id] = cast("Sequence[Interrupt]", self.serde.loads_typed((write.type, write.blob)))
            elif write.channel not in _CONTROL:
                finished.add(write.task_id)
            answered = answered or write.channel == _RESUME
        pending = {item.id: item for task, items in asked.items() if task not in finished for item in items}
        ahead = next_nodes(await self._newest(line))
        return Standing(exists=True, next_nodes=ahead, interrupts=pending, taken=answered or bool(finished))

    async def _newest(self, line: Line) -> Checkpoint:
        """A line's newest checkpoint; the values of its channels only where they tell what runs next."""
        bare = cast("Checkpoint", json.loads(cast("CheckpointRow", line.head).checkpoint))
        if TASKS not in (bare.get("updated_channels") or ()):
            return bare
        return (await self._load_checkpoint_tuple(cast("Row", line.as_row()))).checkpoint


# LangGraph asks on every run whether this takes `task_path`; with the answer at hand it need not inspect it anew.
setattr(BarrierSaver.aput_writes, "__signature__", inspect.signature(BarrierSaver.aput_writes))  # noqa: B010 typed so


def merged(batches: Batches, thread_id: str) -> Batch:
    """All namespaces' rows of a thread as one batch."""
    parts = [batch for key, batch in batches.items() if key[0] == thread_id]
    return Batch(
        [row for part in parts for row in part.checkpoints],
        [row for part in parts for row in part.blobs],
        [row for part in parts for row in part.writes],
    )


def _config(row: Mapping[str, object], checkpoint_id: object) -> RunnableConfig:
    return {
        "configurable": {
            "thread_id": row["thread_id"],
            "checkpoint_ns": row["checkpoint_ns"],
            "checkpoint_id": checkpoint_id,
        }
    }


def _interrupts(writes: Sequence[tuple[str, object]]) -> list[Interrupt]:
    found: list[Interrupt] = []
    for channel, value in writes:
        if channel == _INTERRUPT and isinstance(value, list | tuple):
            found += [item for item in cast("Sequence[object]", value) if isinstance(item, Interrupt)]
    return found
