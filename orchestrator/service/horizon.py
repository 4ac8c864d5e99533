"""How far the events of all workflows are known to be complete, so that a reader in their order never skips one."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from orchestrator.store import feeds
from orchestrator.store.db import Database

_FIRST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.05
# Longer than any transaction of ours lives; one that somebody left open must not hold up everybody for ever.
_PATIENCE_SECONDS: Final = 120.0

_log: Final = logging.getLogger(__name__)


class Horizon:
    """The position up to which no event will appear any more. Looked for once for all who ask at the same time; nobody
    holds a connection while others still write.
    """

    def __init__(self, db: Database, patience: float = _PATIENCE_SECONDS) -> None:
        self._db = db
        self._patience = patience
        self._looking: asyncio.Task[int] | None = None
        self._next: asyncio.Task[int] | None = None
        # Who has held a position for too long; they are waited for no more.
        self._given_up: frozenset[str] = frozenset()
        # What is known already: complete up to here, though by now it may reach further.
        self.known = 0

    async def reach(self) -> int:
        """A position that contains everything committed before this call. Raises Unavailable."""
        if self._next is None:
            # A look that has begun may have begun before what the caller knows of.
            self._next = asyncio.create_task(self._look_after(self._looking))
            self._next.add_done_callback(_looked_at)
        return await asyncio.shield(self._next)

    async def within(self, seconds: float) -> int:
        """The same if it is found in time; else what is known already. Raises Unavailable."""
        try:
            async with asyncio.timeout(seconds):
                return await self.reach()
        except TimeoutError:
            return self.known

    async def _look_after(self, earlier: asyncio.Task[int] | None) -> int:
        if earlier is not None:
            await asyncio.wait([earlier])
        self._looking, self._next = self._next, None
        found = await self._look()
        # One look follows another, so this rises; it falls where an older state of the database was restored.
        self.known = found
        return found

    async def _look(self) -> int:
        began, pause = time.monotonic(), _FIRST_PAUSE
        async with self._db.connection() as conn:
            head, writers = await feeds.head(conn)
        self._given_up &= writers
        writers -= self._given_up
        while writers:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            async with self._db.connection() as conn:
                _, now = await feeds.head(conn)
            writers &= now
            if writers and time.monotonic() - began > self._patience:
                _log.warning("feeds: a transaction that writes events is open for %.0f s; going on without it; "
                             "what it commits now may be missing in feeds", self._patience)  # fmt: skip
                self._given_up |= writers
                break
        return head


def _looked_at(done: asyncio.Task[int]) -> None:
    if not done.cancelled():
        done.exception()
