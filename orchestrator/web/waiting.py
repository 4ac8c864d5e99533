"""`GET /workflows/{id}/wait`: the status as soon as the workflow needs a person or has ended. Nothing is polled.

Who waits is woken by the hub, and holds no connection to the database meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query

from orchestrator.core.model import Status
from orchestrator.service import workflows
from orchestrator.web.auth import Presented, Reader, Using
from orchestrator.wire import Until, WorkflowStatus

LONGEST_SECONDS: Final = 60.0
# Where in the hub the status stands among the pages of events, which begin at 0.
_STATUS: Final = -1

router = APIRouter(tags=["workflows"])


@router.get("/workflows/{workflow_id}/wait")
async def wait(
    parts: Using,
    who: Reader,
    presented: Presented,
    *,
    workflow_id: str,
    timeout: Annotated[float, Query(ge=0, le=LONGEST_SECONDS, description="Seconds")] = 30.0,  # noqa: ASYNC109 - the query's name
    until: Annotated[Until, Query(description="`settled`: waiting for a person, or ended")] = "settled",
) -> WorkflowStatus:
    """The short status as soon as the workflow is there, or at the time-out as it is then."""
    hub, place = parts.hub, (who.namespace, workflow_id, _STATUS)
    ends, late = asyncio.get_running_loop().time() + timeout, False
    with hub.follow(workflow_id) as woken:
        while True:
            # Before reading: what happens from here on wakes us again.
            woken.clear()
            status = await hub.read(place, lambda: workflows.status(parts.context, who, workflow_id))
            now = Status(status.status)
            if now.finished or (until == "settled" and now.settled) or late or hub.stopping:
                return status
            late = not await _woken(woken, ends)
            # A key that was revoked meanwhile is told nothing more.
            await parts.keyring.authenticate(presented)


async def _woken(woken: asyncio.Event, ends: float) -> bool:
    """Whether there was a wake-up before the time was over."""
    try:
        async with asyncio.timeout_at(ends):
            await woken.wait()
    except TimeoutError:
        return False
    return True
