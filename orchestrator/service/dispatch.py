"""Who calls advance, when: the seam between the queue, which is the workflow rows, and whoever runs segments."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.lease import Lease
from orchestrator.service.context import Context
from orchestrator.store import workflows
from orchestrator.store.db import Connection

log = logging.getLogger("keyturn.dispatch")


class Dispatcher(Protocol):
    """Hands out leases. `busy` after a claim says that there may be more in some milliseconds: look again soon."""

    busy: bool

    async def claim(self, running: int, suspects: int) -> list[Lease]:
        """Lease what is due; `running` segments, of them `suspects` doubtful ones, are under way here already."""
        ...


class Claimer:
    """The dispatcher over the workflow rows: one statement claims up to the free capacity."""

    def __init__(self, ctx: Context, owner: str, catalog: Catalog, lease_seconds: float, capacity: int) -> None:
        self._ctx = ctx
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._capacity = capacity
        self.busy = False
        entries = catalog.entries.values()
        self._limits = {entry.name: entry.max_running for entry in entries if entry.max_running is not None}
        self._free_graphs = [entry.name for entry in entries if entry.max_running is None]

    async def claim(self, running: int, suspects: int) -> list[Lease]:
        """Lease up to the free capacity; of workflows claimed before without progress at most one runs here."""
        leases: list[Lease] = []
        self.busy = False
        free = self._capacity - running
        if free > 0 and self._free_graphs:
            async with self._ctx.db.connection() as conn:
                leases += await self._claim(conn, self._free_graphs, free, suspects)
        if free - len(leases) > 0 and self._limits:
            doubtful = suspects + sum(lease.doubtful for lease in leases)
            try:
                leases += await self._claim_limited(free - len(leases), doubtful)
            except Exception:
                # What was claimed already must be run, or it would wait for its lease to end.
                if not leases:
                    raise
                log.warning("graphs with a limit could not be claimed this time", exc_info=True)
        return leases

    async def _claim_limited(self, free: int, suspects: int) -> list[Lease]:
        leases: list[Lease] = []
        async with self._ctx.db.transaction() as conn:
            self.busy = not await workflows.lock_limited(conn)
            if self.busy:
                return []
            running = await workflows.count_running(conn, list(self._limits), self._ctx.clock())
            for graph, room in self._rooms(running).items():
                if room > 0 and free - len(leases) > 0:
                    doubtful = suspects + sum(lease.doubtful for lease in leases)
                    leases += await self._claim(conn, [graph], min(room, free - len(leases)), doubtful)
        return leases

    def _rooms(self, running: Mapping[str, int]) -> Mapping[str, int]:
        return {graph: limit - running.get(graph, 0) for graph, limit in self._limits.items()}

    async def _claim(self, conn: Connection, graphs: Sequence[str], free: int, suspects: int) -> list[Lease]:
        rows = await workflows.claim(
            conn,
            {
                "graphs": list(graphs), "free": free, "suspects": max(0, 1 - suspects), "owner": self._owner,
                "lease": self._lease_seconds, "now": self._ctx.clock(),
            },
        )  # fmt: skip
        return [Lease.from_row(row) for row in rows]
