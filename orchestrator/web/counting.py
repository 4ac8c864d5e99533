"""When the database is counted for metrics: reading whole tables at every scrape would be a load of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from orchestrator.core.errors import Unavailable
from orchestrator.service import health
from orchestrator.service.context import Context
from orchestrator.telemetry import Telemetry

COUNT_EVERY_SECONDS: Final = 15.0


class Counting:
    """Puts the database's counts into the telemetry, at most once in `every` seconds however many ask."""

    def __init__(
        self,
        ctx: Context,
        telemetry: Telemetry,
        *,
        every: float = COUNT_EVERY_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ctx = ctx
        self._telemetry = telemetry
        self._every = every
        self._monotonic = monotonic
        self._due = 0.0
        self._turn = asyncio.Lock()

    async def refresh(self) -> None:
        """Count again when that is due. With the database away the last counts stay, and the figures say so."""
        async with self._turn:
            if self._monotonic() < self._due:
                return
            try:
                found = await health.counts(self._ctx)
            except Unavailable:
                self._telemetry.set_database_away()
                return
            self._telemetry.set_counts(found.workflows, found.approvals, found.workers)
            self._due = self._monotonic() + self._every
