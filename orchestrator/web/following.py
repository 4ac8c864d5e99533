"""Events as they come: replayed from a cursor, followed live, and read once for all who stand at the same place.

Whoever follows holds no connection to the database while nothing happens. What becomes of the events on the wire is
decided by who asks for them.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from orchestrator.core.errors import Unauthenticated, Unavailable
from orchestrator.core.model import Status
from orchestrator.service import workflows
from orchestrator.service.context import Caller
from orchestrator.web.parts import Parts
from orchestrator.web.sse import framed
from orchestrator.wire import EventRecord

# "settled": the workflow waits for a person, or has finished.
Until = Literal["finished", "settled"]
PAGE_EVENTS: Final = 200
# What one who does not read keeps in memory is about a page; a single event may be larger.
PAGE_BYTES: Final = 65_536
_AGAIN_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Batch:
    """Events that were read together, for everybody who stood where they begin.

    `cursor` is where to go on; `more` says that there is more already, `over` that nothing will follow.
    """

    events: Sequence[EventRecord]
    cursor: int
    more: bool
    over: bool = False
    status: str = ""

    @cached_property
    def wire(self) -> bytes:
        """All of them as server-sent events: formatted by the first who asks."""
        return b"".join(framed(event) for event in self.events)

    @property
    def settled(self) -> bool:
        """Whether nothing will follow until a person decides."""
        return self.over or (not self.more and Status(self.status).settled)


class Follower(ABC):
    """One who follows something with a key, `presented`, that must stay good."""

    def __init__(self, parts: Parts, who: Caller, presented: str) -> None:
        self.parts = parts
        self.who = who
        self._presented = presented
        self._first: tuple[int, Batch] | None = None
        # Everything up to here was given.
        self.cursor = 0

    @property
    @abstractmethod
    def topic(self) -> str:
        """What is rung when there may be something new."""

    @abstractmethod
    async def read(self, after: int) -> Batch:
        """What is behind a cursor."""

    async def begin(self, after: int) -> Batch:
        """Read the first batch, which `batches` then begins with: what is wrong is refused before an answer begins."""
        batch = await self.read(after)
        self._first = after, batch
        return batch

    async def batches(self, after: int, *, until: Until = "finished") -> AsyncGenerator[Batch | None]:
        """Everything behind `after` in order, and what comes; None where nothing does, as a sign of life.

        Ends with what is followed, or when the server stops or the key was revoked.
        """
        batch = self._first_batch(after)
        self.cursor = after
        hub = self.parts.hub
        with hub.follow(self.topic, self.who.namespace) as woken:
            # Something may have happened between the first batch and now.
            woken.set()
            while True:
                more = False
                if batch is not None:
                    more, over = batch.more, batch.over or (until == "settled" and batch.settled)
                    self.cursor = batch.cursor
                    if batch.events:
                        yield batch
                    if over:
                        return
                    # Not kept while nothing happens.
                    batch = None
                quiet = not more and not await _waked(woken, self.parts.settings.keepalive_seconds)
                if quiet:
                    yield None
                if hub.stopping:
                    return
                try:
                    # A revoked key ends its streams too.
                    await self.parts.keyring.authenticate(self._presented)
                    if not quiet:
                        woken.clear()
                        batch = await self.read(self.cursor)
                except Unavailable:
                    # It goes on here when the database is back.
                    yield None
                    await asyncio.sleep(_AGAIN_SECONDS)
                    woken.set()
                except Unauthenticated:
                    return

    def _first_batch(self, after: int) -> Batch | None:
        first, self._first = self._first, None
        return first[1] if first is not None and first[0] == after else None


class Following(Follower):
    """One who follows a workflow."""

    def __init__(self, parts: Parts, who: Caller, presented: str, workflow_id: str) -> None:
        super().__init__(parts, who, presented)
        self._workflow_id = workflow_id

    async def ready(self, after: int) -> None:
        """Read the first page, which `events` then begins with: a wrong id is refused here. NotFound, Unavailable."""
        await self.begin(after)

    async def events(self, after: int, *, until: Until = "finished") -> AsyncGenerator[EventRecord | None]:
        """Every event behind `after` in order, and what comes; None where nothing does, as a sign of life.

        Ends with the workflow, or when the server stops or the key was revoked.
        """
        async for batch in self.batches(after, until=until):
            if batch is None:
                yield None
                continue
            for event in batch.events:
                yield event

    @property
    def topic(self) -> str:
        """The workflow itself."""
        return self._workflow_id

    async def read(self, after: int) -> Batch:
        """The events behind a cursor; one query for all who stand there."""
        place = (self.who.namespace, self.topic, after)
        return await self.parts.hub.read(place, lambda: self._fetch(after), frugal=True)

    async def _fetch(self, after: int) -> Batch:
        page = await workflows.events_page(
            self.parts.context, self.who, self._workflow_id, after, PAGE_EVENTS, PAGE_BYTES
        )
        return Batch(page.events, page.next_seq, page.more, page.finished, page.status)


async def _waked(woken: asyncio.Event, seconds: float) -> bool:
    """Whether there was a wake-up before so many seconds were over."""
    if woken.is_set():
        return True
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        return False
    return True
