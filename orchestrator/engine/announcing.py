"""Telling of steps between barriers, so that watchers of a long node see it run. Nothing of a graph is kept here."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.engine.lease import Lease
from orchestrator.engine.persist import until_stored
from orchestrator.store import events, workflows
from orchestrator.store.db import Clock, Database
from orchestrator.store.events import Event
from orchestrator.store.heads import heads


async def tell_once(db: Database, lease: Lease, actor: str, told: Sequence[Event], clock: Clock) -> None:
    """Append events of `actor`, once also when a reply is lost; nothing else of `actor` may be appended meanwhile.

    LeaseLost when the workflow is somebody else's.
    """
    workflow_id = lease.workflow_id
    head: int | None = None

    async def attempt() -> None:
        nonlocal head
        async with db.transaction() as conn:
            await workflows.hold(conn, workflow_id, lease.epoch)
            if head is None:
                head = (await heads(conn, [workflow_id]))[workflow_id]
            elif await events.noted_since(conn, workflow_id, actor, head):
                return
            await events.append(conn, workflow_id, told, clock())

    await until_stored(attempt)
