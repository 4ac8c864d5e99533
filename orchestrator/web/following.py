"""One workflow's events as they come: replayed from a cursor, followed live, and read once for all who stand together.

Whoever follows holds no connection to the database while nothing happens. What becomes of the events on the wire is
decided by who asks for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from orchestrator.core.errors import Unauthenticated, Unavailable
from orchestrator.core.model import Status
from orchestrator.service import workflows
from orchestrator.service.context import Caller
from orchestrator.web.parts import Parts
from orchestrator.web.sse import framed
from orchestrator.wire import EventPage, EventRecord

# "settled": the workflow waits for a person, or has finished.
Until = Literal["finished", "settled"]
_PAGE: Final = 200
# What one who does not read keeps in memory is about a page; a single event may be larger.
_PAGE_BYTES: Final = 65_536
_AGAIN_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Batch:
    """Events that were read together, for everybody who stood where they begin."""

    page: EventPage

    @cached_property
    def wire(self) -> bytes:
        """All of them as server-sent events: formatted by the first who asks."""
        return b"".join(framed(event, event.seq) for event in self.page.events)


class Following:
    """One who follows one workflow with a key, `presented`, that must stay good."""

    def __init__(self, parts: Parts, who: Caller, presented: str, workflow_id: str) -> None:
        self._parts = parts
        self._who = who
        self._presented = presented
        self._workflow_id = workflow_id
        self._first: tuple[int, Batch] | None = None

    async def ready(self, after: int) -> EventPage:
        """Read the first page, which `events` then begins with: a wrong id is refused here. NotFound, Unavailable."""
        batch = await self._read(after)
        self._first = after, batch
        return batch.page

    async def events(self, after: int, *, until: Until = "finished") -> AsyncGenerator[EventRecord | None]:
        """Every event behind `after` in order, and what comes; None where nothing does, as a sign of life.

        Ends with the workflow, or when the server stops or the key was revoked.
        """
        async for batch in self.batches(after, until=until):
            if batch is None:
                yield None
                continue
            for event in batch.page.events:
                yield event

    async def batches(self, after: int, *, until: Until = "finished") -> AsyncGenerator[Batch | None]:
        """The same, as they were read."""
        batch = self._begin(after)
        hub = self._parts.hub
        with hub.follow(self._workflow_id) as woken:
            # Something may have happened between the first page and now.
            woken.set()
            while True:
                more = False
                if batch is not None:
                    more, over = batch.page.more, _is_over(batch.page, until)
                    if batch.page.events:
                        after = batch.page.next_seq
                        yield batch
                    if over:
                        return
                    # Not kept while nothing happens.
                    batch = None
                quiet = not more and not await waked(woken, self._parts.settings.keepalive_seconds)
                if quiet:
                    yield None
                if hub.stopping:
                    return
                try:
                    # A revoked key ends its streams too.
                    await self._parts.keyring.authenticate(self._presented)
                    if not quiet:
                        woken.clear()
                        batch = await self._read(after)
                except Unavailable:
                    # It goes on here when the database is back.
                    yield None
                    await asyncio.sleep(_AGAIN_SECONDS)
                    woken.set()
                except Unauthenticated:
                    return

    def _begin(self, after: int) -> Batch | None:
        first, self._first = self._first, None
        return first[1] if first is not None and first[0] == after else None

    async def _read(self, after: int) -> Batch:
        """The events behind a cursor; one query for all who stand there."""
        return await self._parts.hub.read((self._who.namespace, self._workflow_id, after), lambda: self._fetch(after))

    async def _fetch(self, after: int) -> Batch:
        context = self._parts.context
        page = await workflows.events_page(context, self._who, self._workflow_id, after, _PAGE, _PAGE_BYTES)
        return Batch(page)


def _is_over(page: EventPage, until: Until) -> bool:
    return page.finished or (until == "settled" and not page.more and Status(page.status).settled)


async def waked(woken: asyncio.Event, seconds: float) -> bool:
    """Whether there was a wake-up before so many seconds were over."""
    if woken.is_set():
        return True
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        return False
    return True
