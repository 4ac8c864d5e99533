"""How the whole stands: whether it can take work, and how much there is.

For probes and figures only: it is not about one namespace, tells no names, and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.core.errors import MigrationFault, Unavailable
from orchestrator.service.context import Context
from orchestrator.service.schema import missing_migrations
from orchestrator.store import fleet, gauges
from orchestrator.wire import Ready

# A worker reports every few seconds; one that was silent for longer is taken for gone.
WORKER_SEEN_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Counts:
    """Workflows by status, pending approvals by risk level, and workers seen lately."""

    workflows: dict[str, int]
    approvals: dict[str, int]
    workers: int


async def readiness(ctx: Context, migrations_dir: Path) -> Ready:
    """Whether work can be taken and will be done. It does not raise: what is missing is in the answer."""
    try:
        async with ctx.db.connection() as conn:
            missing = await missing_migrations(conn, migrations_dir)
            workers = 0 if missing else len(await fleet.live(conn, WORKER_SEEN_SECONDS))
    except Unavailable as away:
        return Ready(ready=False, database=False, migrations=False, workers=0, detail=away.detail)
    except MigrationFault as fault:
        return Ready(ready=False, database=True, migrations=False, workers=0, detail=fault.detail)
    detail = "ready"
    if missing:
        detail = f"migrations are missing ({', '.join(missing)}); run `keyturn migrate`"
    elif not workers:
        detail = f"no worker was seen within {WORKER_SEEN_SECONDS:.0f} seconds; start one with `keyturn worker`"
    return Ready(
        ready=not missing and workers > 0, database=True, migrations=not missing, workers=workers, detail=detail
    )


async def counts(ctx: Context) -> Counts:
    """The figures of the whole database; raises Unavailable."""
    async with ctx.db.connection() as conn:
        return Counts(
            await gauges.workflows_by_status(conn),
            await gauges.pending_by_level(conn),
            len(await fleet.live(conn, WORKER_SEEN_SECONDS)),
        )
