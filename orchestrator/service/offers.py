"""What workers offer, remembered for a moment: a busy client must not cost a look-up of its graph per workflow.

A newer version of a graph is therefore pinned by new workflows within a second of its first offer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from orchestrator.store import fleet
from orchestrator.store.db import Database, Params

_REMEMBER_SECONDS: Final = 1.0
_REMEMBER_AT_MOST: Final = 256


class Offers:
    """The newest offer of each graph, looked up at most once a second. What is not offered is looked up every time."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._known: dict[str, tuple[Params, float]] = {}

    async def newest(self, db: Database, graph: str) -> Params | None:
        """The newest offer of `graph`; None when no worker ever offered it. Raises Unavailable."""
        now = self._monotonic()
        offer, until = self._known.get(graph, (None, 0.0))
        if offer is not None and now < until:
            return offer
        async with db.connection() as conn:
            found = await fleet.newest(conn, graph)
        if found is not None:
            if len(self._known) >= _REMEMBER_AT_MOST:
                self._known.clear()
            self._known[graph] = (found, now + _REMEMBER_SECONDS)
        return found
