"""The worker: claims what is due, runs each claim as a segment, keeps its leases, and acts on deadlines.

`Worker` owns the loops; which workflow is claimed when is the `Dispatcher`'s, and what a segment does is the engine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import uuid
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.chores import app as chores
from orchestrator.chores.notify import Notifier
from orchestrator.core.canonical import redact
from orchestrator.core.errors import LeaseLost, Poisoned, Unavailable
from orchestrator.core.model import Status
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.lease import Lease
from orchestrator.engine.segment import Segment
from orchestrator.engine.threads import NodeThreads, watch_loop
from orchestrator.service import links, timers
from orchestrator.service.context import Context
from orchestrator.service.dispatch import Claimer
from orchestrator.settings import Settings
from orchestrator.store import fleet
from orchestrator.store.db import Database
from orchestrator.store.events import CANCEL_CHANNEL, READY_CHANNEL

log = logging.getLogger("keyturn.worker")

_POLL = 1.0
_AGAIN = (0.01, 0.03)
# Steps are told after so many seconds at the latest, news at once, and neither more often than the pause allows: with
# their way to the watcher, a change is to be seen within a tenth of a second.
_ANNOUNCE, _ANNOUNCE_PAUSE = 0.15, 0.07
_PRESENCE = 10.0
_OUTAGE_PAUSE = 0.5
_LAST_WORDS = 5.0


@dataclass(slots=True)
class Running:
    """A segment under way."""

    segment: Segment
    task: asyncio.Task[None]


@dataclass(slots=True)
class Worker:
    """Runs workflows of all namespaces until `stop` is set, then drains: every running segment ends at its next
    superstep and its workflow is handed back as ready.
    """

    ctx: Context
    catalog: Catalog
    settings: Settings
    worker_id: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}")
    drain_seconds: float = 30.0
    # A process that only works ends itself when a node blocks its event loop for two leases.
    watched: bool = False
    # Told of every segment that ended, and as what; for whoever shares the process.
    on_end: Callable[[str, Status], None] | None = None
    _running: dict[str, Running] = field(default_factory=dict[str, Running])
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _telling: set[asyncio.Future[bool]] = field(default_factory=set[asyncio.Future[bool]])
    _marks: set[str] = field(default_factory=set[str])
    _draining: bool = False
    _full: bool = False
    _outage: bool = False
    _claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    _notifier: Notifier = field(init=False)

    def __post_init__(self) -> None:
        redact.configure(self.settings.secret_key_names)
        # A variable that is not set or a mistake in a template is told before anything runs.
        self._notifier = chores.make_notifier(
            self.ctx.db,
            self.ctx.governance,
            self.settings,
            clock=self.ctx.clock,
            links=links.maker(self.ctx, self.settings.public_address),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then drain. Survives a database that goes away and comes back."""
        asyncio.get_running_loop().set_default_executor(NodeThreads())
        await self._retrying(self.announce_graphs)
        claimer = Claimer(
            self.ctx, self.worker_id, self.catalog, self.settings.lease_seconds, self.settings.worker_concurrency
        )
        loops = [
            self._loop(lambda: self._claim(claimer), None),
            self._loop(self._renew, self.settings.lease_seconds / 3),
            self._loop(self._sweep, _POLL),
            self._loop(self._announce, None),
            self._loop(self._presence, _PRESENCE),
            self._loop(self._listen, 0.0),
            self._loop(lambda: chores.work(self._notifier), _OUTAGE_PAUSE),
        ]
        if self.watched:
            loops.append(watch_loop(self.settings.lease_seconds * 2))
        tasks = [asyncio.ensure_future(loop) for loop in loops]
        try:
            with self.hearing(self.ctx.db):
                await stop.wait()
            self._draining = True
            await self._drain()
        finally:
            await _end(tasks)
            await _end(list(self._telling))
            await self._stop_running()
            with contextlib.suppress(Unavailable):
                async with self.ctx.db.connection() as conn:
                    await fleet.gone(conn, self.worker_id)

    @contextlib.contextmanager
    def hearing(self, db: Database) -> Generator[None]:
        """Look for work at once when `db`, which others in this process may share or have for themselves, rings."""
        self._marks.add(db.mark)
        with db.hearing(READY_CHANNEL, self._wake.set):
            yield

    async def announce_graphs(self) -> None:
        """Offer the catalog's graphs, so that the API knows what can be submitted."""
        async with self.ctx.db.transaction() as conn:
            for entry in self.catalog.entries.values():
                await fleet.offer(
                    conn,
                    {
                        "graph": entry.name, "version": entry.version, "input_schema": entry.input_schema,
                        "topology": entry.topology, "max_running": entry.max_running, "traits": entry.traits,
                    },
                )  # fmt: skip
        await self._presence()

    # Loops

    async def _loop(self, tick: Callable[[], Awaitable[None]], pause: float | None) -> None:
        """Call `tick` again and again, `pause` seconds apart (None: it waits by itself); an outage is waited out."""
        this = asyncio.current_task()
        # A cancellation may be swallowed on the way (the pool does when a connection arrives with it), so it is asked.
        while this is None or not this.cancelling():
            try:
                await tick()
            except (Unavailable, OSError) as error:
                log.warning("the database is away: %s", error)
                self._outage = True
                await asyncio.sleep(_OUTAGE_PAUSE)
            except Exception:
                # Whatever it was: a loop that ended would leave a worker that looks alive and does nothing.
                log.exception("a worker loop failed and goes on")
                await asyncio.sleep(_OUTAGE_PAUSE)
            if pause:
                await asyncio.sleep(pause)

    async def _retrying(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Unavailable as error:
                log.warning("the database is away: %s", error)
                await asyncio.sleep(_OUTAGE_PAUSE)
            else:
                return

    async def _claim(self, claimer: Claimer) -> None:
        pause = _POLL
        # No await from here to the lock: whoever drains must not meet a claim that is still to come.
        if not self._draining:
            suspects = sum(1 for one in self._running.values() if one.segment.lease.doubtful)
            free = self.settings.worker_concurrency - len(self._running)
            self._full = True  # until it is known: a segment that ends meanwhile may have been what was in the way
            async with self._claiming:
                if self._outage:
                    # Leases that ran out meanwhile are revived before they look like somebody's who died.
                    self._outage = False
                    await self._renew()
                leases = await claimer.claim(len(self._running), suspects)
                self._full = len(leases) >= free
                for lease in leases:
                    self._start(lease)
            if claimer.busy:
                pause = random.uniform(*_AGAIN)  # noqa: S311 jitter, not a secret
        # Not wait_for: in Python 3.11 it swallows a cancellation that arrives together with the wake-up.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()
        self._wake.clear()

    def _start(self, lease: Lease) -> None:
        entry = self.catalog.get(lease.graph)
        segment = Segment(self.ctx.db, lease, entry, self.ctx.laws, self.worker_id, self.ctx.clock)
        segment.on_news = self._news.set
        before = self._running.get(lease.workflow_id)
        task = asyncio.get_running_loop().create_task(
            self._segment(segment, before), name=f"segment {lease.workflow_id}"
        )
        self._running[lease.workflow_id] = Running(segment, task)
        task.add_done_callback(lambda _: self._ended(segment))

    def _ended(self, segment: Segment) -> None:
        found = self._running.get(segment.lease.workflow_id)
        if found is not None and found.segment is segment:
            del self._running[segment.lease.workflow_id]
        # The last claim took all there was, unless it had no room for it: only then is there more to claim now.
        limited = self.catalog.get(segment.lease.graph).max_running is not None
        if self._full or limited or segment.lease.doubtful:
            self._wake.set()

    async def _segment(self, segment: Segment, before: Running | None) -> None:
        lease = segment.lease
        if before is not None:
            # Our own lease of it ran out unnoticed: its nodes must not run twice at once.
            before.task.cancel()
            await asyncio.wait([before.task])
        try:
            if lease.attempts > self.settings.max_attempts:
                detail = f"claimed {lease.attempts - 1} times without progress; look at what its node does, then retry"
                status = await segment.fail(Poisoned(detail, attempts=lease.attempts - 1))
            else:
                status = await segment.run()
            if self.on_end is not None:
                self.on_end(lease.workflow_id, status)
        except LeaseLost:
            log.info("workflow %s is no longer held at epoch %s", lease.workflow_id, lease.epoch)
        except Unavailable:
            log.warning("workflow %s: the database stayed away; another lease goes on with it", lease.workflow_id)
        except Exception:
            log.exception("workflow %s: its segment broke; another lease goes on with it", lease.workflow_id)

    async def _renew(self) -> None:
        held = [(key, one.segment.lease.epoch) for key, one in self._running.items()]
        if not held:
            return
        kept = await timers.renew(self.ctx, held, self.settings.lease_seconds)
        for workflow_id, epoch in held:
            if workflow_id not in kept:
                self._abort(workflow_id, epoch)

    def _abort(self, workflow_id: str, epoch: int | None = None) -> None:
        """Stop a segment whose workflow is no longer ours; what it still computes is refused."""
        one = self._running.get(workflow_id)
        if one is not None and (epoch is None or one.segment.lease.epoch == epoch):
            one.task.cancel()

    async def _sweep(self) -> None:
        if self._running:
            await self.ctx.laws.refresh()
        await timers.sweep(self.ctx)

    async def _announce(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANNOUNCE):
                await self._news.wait()
        self._news.clear()
        tasks = [asyncio.ensure_future(_tell(one.segment)) for one in self._running.values()]
        if not tasks:
            return
        self._telling = {one for one in self._telling if not one.done()}.union(tasks)
        # One that stands behind a row that somebody holds goes on by itself; the others' news do not wait for it.
        done, pending = await asyncio.wait(tasks, timeout=_ANNOUNCE)
        if any(await asyncio.gather(*done)) or pending:
            await asyncio.sleep(_ANNOUNCE_PAUSE)

    async def _presence(self) -> None:
        async with self.ctx.db.connection() as conn:
            await fleet.seen(
                conn, self.worker_id, socket.gethostname(), os.getpid(), self.settings.worker_concurrency,
                sorted(self.catalog.entries),
            )  # fmt: skip

    async def _listen(self) -> None:
        async with self.ctx.db.listener(READY_CHANNEL, CANCEL_CHANNEL) as conn:
            self._wake.set()
            async for notice in conn.notifies():
                if notice.channel == READY_CHANNEL:
                    if notice.payload not in self._marks:
                        self._wake.set()
                    continue
                for workflow_id in notice.payload.split(","):
                    self._abort(workflow_id)

    # The end

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self.drain_seconds
        async with self._claiming:
            log.info("draining %s workflows", len(self._running))
        while self._running and loop.time() < end:
            for one in self._running.values():
                one.segment.control.request_drain()
            tasks = [one.task for one in self._running.values()]
            await asyncio.wait(tasks, timeout=end - loop.time(), return_when=asyncio.FIRST_COMPLETED)

    async def _stop_running(self) -> None:
        tasks = [one.task for one in self._running.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WORDS)


async def _tell(segment: Segment) -> bool:
    try:
        return await segment.announce()
    except (LeaseLost, Unavailable):
        return False


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel `tasks` until they have ended: a library below may swallow a cancellation that comes at a bad moment."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_LAST_WORDS / 5)
