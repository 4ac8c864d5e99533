"""One lease runs one segment: from a start or a decision to the next pause or the end.

Each commit is one transaction that first proves the lease, so a worker that lost it writes nothing. What a segment
ended as is returned as a value; only a lost lease and a cancellation leave it by exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from time import monotonic
from typing import Any, cast

from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl
from langgraph.types import Command, GraphOutput

from orchestrator.core.asking import Law
from orchestrator.core.canonical import Hiding, redact
from orchestrator.core.errors import Frozen, GraphChanged, KeyturnError, LeaseLost, Unavailable
from orchestrator.core.model import Status
from orchestrator.core.policy_file import PolicyBook
from orchestrator.engine import feeding, pause, standing_approvals
from orchestrator.engine.announcing import discreet, tell_once
from orchestrator.engine.catalog import GraphEntry
from orchestrator.engine.ending import End, failed, held, paused
from orchestrator.engine.host import SegmentHost
from orchestrator.engine.lease import Lease
from orchestrator.engine.persist import fault_within, until_stored
from orchestrator.engine.render import to_json
from orchestrator.engine.saver import BarrierSaver, Batches, merged
from orchestrator.engine.standing import MESSAGE, Progress, Standing
from orchestrator.engine.standing_approvals import Laws
from orchestrator.engine.streaming import Veil, output_of
from orchestrator.sdk.runtime import current_host
from orchestrator.store import approvals, checkpoints, events, segments, workflows
from orchestrator.store.checkpoints import Batch
from orchestrator.store.db import Clock, Database, Params
from orchestrator.store.events import Event
from orchestrator.store.segments import Commit, Parts, Release

_ANNOUNCE_AFTER = 0.25
# Others' commits need not wait for one of more bytes.
_LARGE = 128 * 1024


class Segment:
    """Runs one lease of a workflow on a governed graph."""

    def __init__(self, db: Database, lease: Lease, entry: GraphEntry, laws: Laws, owner: str, clock: Clock) -> None:
        self.lease = lease
        # Called when a node has told something that watchers want to see at once.
        self.on_news: Callable[[], None] | None = None
        self.control = RunControl()
        self._db = db
        self._entry = entry
        self._laws = laws
        self._owner = owner
        self._clock = clock
        self._began = monotonic()
        self._notes = 0
        self._fed = feeding.Fed()
        # One commit of this segment at a time, so that each can tell whether it was stored.
        self._committing = asyncio.Lock()
        # Whether this workflow can have asked before: only then is that looked up at a pause.
        self._asked = lease.checkpointed
        self._saver = BarrierSaver(
            db,
            self._barrier,
            pure=entry.pure,
            stops=entry.stops,
            keep_all=entry.keep_all,
            fresh=not (lease.checkpointed or lease.continues),
        ).with_allowlist(entry.types)
        self._saver.progress.events += self._started()
        self._saver.progress.since = self._saver.loop.time()

    async def run(self) -> Status:
        """Run to the next pause or the end and commit it. Raises LeaseLost when the workflow is somebody else's now,
        Unavailable when the database stayed away; in both cases nothing of it was half written.
        """
        token = current_host.set(
            SegmentHost(
                self._db, self.lease.namespace, self.lease.workflow_id, self.lease.epoch, self._clock, self._book,
                secrets=self._secrets, note=self._note,
            )
        )  # fmt: skip
        try:
            end = await self._run()
        except (LeaseLost, Unavailable):
            raise
        except GraphDrained:
            end = (await self._stopped() if self._saver.at_stop else None) or End(Status.READY)
        except Exception as error:
            lost = fault_within(error)
            if lost is not None:
                raise lost from error
            end = held(error, self._actor) if isinstance(error, Frozen) else self._failed(error)
        finally:
            current_host.reset(token)
        return await (self._finish_without_state(end) if self._saver.trial else self._finish(end))

    async def _run(self) -> End:
        feed = await self._feed()
        if isinstance(feed, End):
            return feed
        while True:
            output: GraphOutput[Any] = await self._invoke(feed)
            if not output.interrupts:
                return await self._ended(output)
            situation = await self._situation([interrupt.id for interrupt in output.interrupts])
            planned = pause.plan(self.lease, await self._law(), output.interrupts, situation)
            if planned.resume is None:
                return paused(planned, tells=self._laws.tells)
            await self._decided_by_policy(planned)
            feed = Command(resume=dict(planned.resume))

    async def _invoke(self, feed: object, interrupt_after: list[str] | None = None) -> GraphOutput[Any]:
        graph = cast("Any", self._entry.graph)
        how: dict[str, object] = {
            "durability": "sync", "version": "v2", "control": self.control, "interrupt_after": interrupt_after,
            "output_keys": graph.output_channels,
        }  # fmt: skip
        if shown := self._entry.text_nodes:
            parts = graph.astream(feed, self._thread(), stream_mode=["values", "messages"], subgraphs=True, **how)
            return await output_of(parts, shown, Veil(lambda: self._hiding, self._say))
        return cast("GraphOutput[Any]", await graph.ainvoke(feed, self._thread(), **how))

    def _note(self, kind: str, data: Mapping[str, object]) -> None:
        self._saver.tell(kind, discreet(data, self._hiding))
        if self.on_news is not None:
            self.on_news()

    def _say(self, message_id: str, node: str, delta: str, end: bool) -> None:
        told = {"message_id": message_id, "node": node, "role": "assistant", "delta": delta, "end": end}
        self._note(MESSAGE, told)

    def _thread(self) -> dict[str, object]:
        saver, thread_id = self._saver, self.lease.thread_id
        return {
            "configurable": {
                "thread_id": thread_id, "__pregel_checkpointer": saver, "__pregel_strict_resume": True,
            }
        }  # fmt: skip

    # What to feed

    async def _feed(self) -> object:
        if not self.lease.checkpointed:
            return dict(self.lease.input)
        standing = await self._saver.standing(self.lease.thread_id)
        gone = [node for node in standing.next_nodes if not self._entry.has(node)]
        if gone:
            detail = (
                f"node {', '.join(gone)} is to run next, and version {self._entry.version} of graph {self._entry.name} "
                f"no longer has it; roll the graph back (the workflow started on {self.lease.graph_version}) and retry"
            )
            raise GraphChanged(detail, nodes=gone, version=self._entry.version)
        groups = feeding.grouped(self.lease.decided)
        current = {key: ones for key, ones in groups.items() if key in standing.interrupts or not standing.taken}
        feeding.check_lapsed(current)
        feeding.check_passed(self.lease.passed)
        current = {**current, **feeding.grouped(self.lease.passed)}
        feeding.check_frozen(current, await self._book(), self._now())
        await standing_approvals.check_roles(self._db, self.lease, feeding.to_recheck(current), self._clock)
        if gone := feeding.moved(groups, standing):
            return await self._asked_again(gone)
        self._fed.take(groups)
        stops = [one for one in self.lease.decided if one.interrupt_id.startswith(pause.BREAKPOINT)]
        if any(one.settled.decision.get("answer") == pause.STOP for one in stops):
            return End(Status.CANCELLED, reason="stopped_at_breakpoint")
        asked = standing.interrupts
        resume = {key: feeding.resume_value(ones, asked[key]) for key, ones in groups.items() if key in asked}
        return Command(resume=resume) if resume else None

    async def _law(self) -> Law:
        lease = self.lease
        return await until_stored(lambda: self._laws.at(lease.namespace, lease.policy_version, lease.people_version))

    async def _book(self, version: int = 0) -> PolicyBook:
        """The policies as they are published, of this version or a newer one."""
        lease = self.lease
        law = await until_stored(lambda: self._laws.at(lease.namespace, max(version, lease.policy_version), 0))
        return law.book

    async def _asked_again(self, gone: feeding.Groups) -> object:
        """The thread was changed from outside: try what it asks now, one superstep, and commit nothing of it unless it
        is exactly what was decided on.
        """
        snapshot = await self._entry.graph.aget_state(cast("Any", self._thread()))
        feeding.check_ahead(gone, snapshot.next)
        self._saver.trial = True
        output = await self._invoke(None, interrupt_after=list(snapshot.next))
        found = feeding.found_again(gone, output.interrupts)
        asked = {interrupt.id: interrupt for interrupt in output.interrupts}
        resume = {key: feeding.resume_value(ones, asked[key]) for key, ones in found.items()}
        self._saver.trial = False
        self._fed.take(found)
        return Command(resume=resume)

    # How it ended

    async def _ended(self, output: GraphOutput[Any]) -> End:
        standing = await self._saver.standing(self.lease.thread_id)
        if standing.next_nodes and (end := await self._stopped()) is not None:
            return end
        return End(
            Status.COMPLETED,
            result=to_json(output.value),
            events=[Event("workflow-completed", self._actor, {"epoch": self.lease.epoch})],
        )

    async def _stopped(self) -> End | None:
        """The request for leave to pass a stop the graph was compiled with; None when nothing would run next."""
        snapshot = await self._entry.graph.aget_state(cast("Any", self._thread()))
        if not snapshot.next:
            return None
        checkpoint = str(snapshot.config.get("configurable", {})["checkpoint_id"])
        now = (await self._situation([])).now
        planned = pause.breakpoint_at(self.lease, await self._law(), checkpoint, snapshot.next, now)
        return paused(planned, tells=self._laws.tells)

    # Commits

    @property
    def _secrets(self) -> list[object]:
        """What holds the secrets that the graph was given: its input, what was approved, and the state it found."""
        return [self.lease.input, *(one.settled.action for one in self.lease.decided), self._saver.found]

    @cached_property
    def _hiding(self) -> Hiding:
        return redact.hiding(self._secrets)

    @property
    def _actor(self) -> str:
        return f"worker:{self._owner}"

    def _started(self) -> list[tuple[str, dict[str, object]]]:
        lease, version = self.lease, self._entry.version
        changed = version != lease.graph_version
        if lease.checkpointed and lease.attempts == 1 and not changed and lease.taken_from is None:
            return []
        data: dict[str, object] = {"attempt": lease.attempts, "epoch": lease.epoch, "version": version}
        if changed:
            data["submitted_for"] = lease.graph_version
        if lease.taken_from is not None:
            data["taken_over_from"] = lease.taken_from
        return [("workflow-started", data)]

    async def _situation(self, interrupt_ids: Sequence[str]) -> pause.Situation:
        async def read() -> list[Params]:
            async with self._db.connection() as conn:
                return await approvals.asked(conn, self.lease.workflow_id, interrupt_ids)

        # Nobody else asks for a workflow that is held here, and the commit of what is asked proves the lease.
        before = await until_stored(read) if self._asked and interrupt_ids else []
        rounds = {row["interrupt_id"]: row["round"] + 1 for row in before}
        waiting = frozenset(row["interrupt_id"] for row in before if row["pending"])
        return pause.Situation(self._now(), self._saver.interrupted_nodes, rounds, waiting)

    def _now(self) -> datetime:
        """The present on the database's clock: what it was at the claim, and what has passed since."""
        given = self._clock()
        return given if given is not None else self.lease.claimed_at + timedelta(seconds=monotonic() - self._began)

    async def _barrier(self, _thread_id: str, batch: Batch, progress: Progress) -> None:
        delivered = self._fed.consumed(Standing(), advanced=True) if progress.advanced else []

        node = progress.next_nodes[0] if progress.next_nodes else None
        parts = self._parts(batch, progress, delivered, node=node)
        await self._stored(parts)
        if progress.advanced:
            self._fed.approval_ids.clear()
        self._ring()

    def _ring(self) -> None:
        self._db.ring(events.EVENTS_CHANNEL, self.lease.workflow_id, patient=True)

    async def announce(self) -> bool:
        """Commit what was noted since the last commit, so that watchers of a long node see it run; whether there was
        anything.
        """
        if self._committing.locked():
            return False  # what is noted now comes after what is being committed
        async with self._committing:
            noted = self._saver.take_events(_ANNOUNCE_AFTER)
            if not noted:
                return False
            self._notes += 1
            told = [Event(kind, self._actor, data) for kind, data in noted]
            try:
                await tell_once(self._db, self.lease, self._notes, told, self._clock)
            except KeyturnError:
                self._saver.give_back(noted)
                raise
        self._db.ring(events.EVENTS_CHANNEL, self.lease.workflow_id)  # somebody may be looking at it
        return True

    async def _decided_by_policy(self, planned: pause.Pause) -> None:
        """Everything was decided automatically: the decisions are durable before the graph goes on in this lease."""
        batches, progress, delivered = await self._taken()
        parts = self._parts(
            merged(batches, self.lease.thread_id), progress, delivered, node=planned.rows[0]["node"],
            approvals=planned.rows, more=planned.events, risk=planned.level.value,
        )  # fmt: skip
        await self._stored(parts)
        self._saver.mark_committed(batches)
        self._asked = True
        self._fed.approval_ids = {}
        for row in planned.rows:
            self._fed.approval_ids.setdefault(row["interrupt_id"], []).append(row["approval_id"])

    async def _taken(self) -> tuple[Batches, Progress, list[str]]:
        batches, progress = self._saver.take()
        # What the graph still asks tells only where no superstep has ended with what it was given.
        unsure = bool(self._fed.approval_ids) and not progress.advanced
        standing = await self._saver.standing(self.lease.thread_id) if unsure else Standing()
        return batches, progress, self._fed.consumed(standing, advanced=progress.advanced)

    async def _finish(self, end: End) -> Status:
        try:
            batches, progress, delivered = await self._taken()
        except (LeaseLost, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001 a checkpoint that cannot be read fails its workflow, and only that
            return await self._finish_without_state(end if end.status is Status.FAILED else self._failed(error))
        parts = self._parts(
            merged(batches, self.lease.thread_id), progress, delivered, node=end.node(progress),
            approvals=end.rows, more=end.events, risk=end.risk, release=end.release(),
        )  # fmt: skip
        parts = replace(parts, ended=end.ended, ended_as=end.ended_as, notices=end.notices)
        try:
            async with self._committing:
                await until_stored(lambda: self._commit(parts))
        except KeyturnError as error:
            if isinstance(error, LeaseLost | Unavailable):
                raise
            return await self._finish_without_state(end if end.status is Status.FAILED else self._failed(error))
        self._ring()
        return end.status

    def _failed(self, error: Exception) -> End:
        return failed(error, self._actor, self.lease.epoch, self._secrets)

    async def fail(self, error: KeyturnError) -> Status:
        """End the lease without running anything."""
        return await self._finish(self._failed(error))

    async def _finish_without_state(self, end: End) -> Status:
        """The state cannot be stored, or not be read: fail with the reason; the last checkpoint stays as it is."""
        await self._commit(Parts(node=end.node(Progress()), events=end.events, release=end.release()))
        self._ring()
        return end.status

    def _parts(
        self,
        batch: Batch,
        progress: Progress,
        delivered: Sequence[str],
        *,
        node: str | None,
        approvals: Sequence[Params] = (),
        more: Sequence[Event] = (),
        risk: str | None = None,
        release: Release | None = None,
    ) -> Parts:
        """What a commit writes: the decisions the graph has taken, the steps it made, and then `more` events."""
        noted = [Event(kind, self._actor, data) for kind, data in progress.events]
        if delivered:
            noted.insert(0, Event("decision-delivered", self._actor, {"approvals": list(delivered)}))
        completed = release is not None and release.status == Status.COMPLETED
        return Parts(
            node, batch, delivered, completed, sorted(progress.completed), approvals, events=[*noted, *more], risk=risk,
            release=release,
        )  # fmt: skip

    async def _commit(self, parts: Parts) -> None:
        lease = self.lease
        one = Commit(lease.workflow_id, lease.epoch, parts, self._clock())
        if not await self._db.together(segments.commit, one, alone=parts.batch.size > _LARGE):
            detail = f"workflow {lease.workflow_id} is not held at epoch {lease.epoch}"
            raise LeaseLost(detail)

    async def _stored(self, parts: Parts) -> None:
        """Commit a barrier; when a reply was lost, look whether it was stored before it is sent again."""
        tried = False

        async def once() -> None:
            nonlocal tried
            if tried:
                async with self._db.transaction() as conn:
                    await workflows.hold(conn, self.lease.workflow_id, self.lease.epoch)
                    if await checkpoints.contains(conn, self.lease.thread_id, parts.batch):
                        return
            tried = True
            await self._commit(parts)

        async with self._committing:
            await until_stored(once)
        if self._saver.progress.urgent and self.on_news is not None:
            self.on_news()  # it was noted while this was being committed
