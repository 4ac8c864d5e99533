"""What a status shows is of one moment, however many statements it is read with."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.service import workflows
from orchestrator.service.context import Context
from orchestrator.store.db import Database
from tests.faults.proxy import Cut, Proxy
from tests.harness import APPS, running


@pytest.mark.parametrize("read", ["FROM keyturn.events", "SELECT a.*"])
async def test_a_status_tells_of_nothing_that_is_newer_than_its_workflow(database_url: str, read: str) -> None:
    # Whoever waits for more behind the last event would otherwise wait for what it was told of already.
    async with running(database_url, app=APPS / "late.json") as keyturn, Proxy(database_url).running() as proxy:
        db = Database(proxy.url)
        await db.open()
        ctx = Context(db, keyturn.ctx.governance)
        workflow = await keyturn.submit("batch")
        proxy.arm()
        await workflows.status(ctx, keyturn.me, workflow)
        (reading_it,) = [point for point in proxy.seen if point.name.startswith("SELECT") and read in point.name]
        cut = Cut(reading_it, "stalled")
        proxy.arm(cut)
        reading = asyncio.create_task(workflows.status(ctx, keyturn.me, workflow))
        await cut.done.wait()
        async with keyturn.working():
            await keyturn.until(workflow, "waiting")
        proxy.flow()
        told = await reading
        await db.close()
    assert told.status == "ready"
    assert [event.type for event in told.history] == ["workflow-submitted"]
    assert told.approvals == []
