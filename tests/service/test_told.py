"""What running nodes tell between commits: without secrets, and nobody waits for what another one tells."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from orchestrator.service import progress, workflows
from tests.apps import long_tasks
from tests.apps.long_tasks import Board
from tests.harness import APPS, Keyturn, running

SECRET = "correct-horse-battery-staple"
_WAITS = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%note_events%'"


@pytest.fixture
async def tasks(database_url: str) -> AsyncIterator[Keyturn]:
    async with running(database_url, app=APPS / "long_tasks.json") as keyturn:
        yield keyturn
    for board in long_tasks.BOARDS.values():
        for place in board.places.values():
            place.open()
    long_tasks.BOARDS.clear()


def board(name: str) -> Board:
    return long_tasks.BOARDS.setdefault(name, Board(asyncio.get_running_loop()))


async def _waiting(tasks: Keyturn) -> bool:
    async with tasks.ctx.db.connection() as conn:
        return await (await conn.execute(_WAITS)).fetchone() is not None


async def test_neither_sub_steps_nor_what_is_cut_short_tell_a_secret_of_the_input(tasks: Keyturn) -> None:
    board("told").places["repeat"].open()
    async with tasks.working():
        workflow_id = await tasks.submit("indiscreet", board="told", password=SECRET)
        await tasks.until(workflow_id, "completed")
    page = await workflows.events_page(tasks.ctx, tasks.me, workflow_id, 1, 1000)
    told = [event.data for event in page.events if event.type == "progress"]
    assert told
    assert "corre" not in json.dumps(told)
    (step,) = (await progress.of_workflow(tasks.ctx, tasks.me, workflow_id)).steps
    assert max(len(one.name) for one in step.substeps) <= 100
    assert len(step.message) <= 500


async def test_the_first_step_never_runs_twice_at_once_where_its_worker_takes_it_again(tasks: Keyturn) -> None:
    places = board("again").places
    async with tasks.working() as worker:
        workflow_id = await tasks.submit("blocking", board="again")
        await places["block"].until()
        async with tasks.ctx.db.listener("keyturn_events") as heard, asyncio.timeout(10):
            while "step-started" not in await tasks.types(workflow_id):
                async for _ in heard.notifies(timeout=0.5, stop_after=1):
                    break
        # Its lease ran out unnoticed, before anything was committed, and the same worker is the one that takes it over.
        before = worker._running[workflow_id].task  # pyright: ignore[reportPrivateUsage]
        async with tasks.ctx.db.connection() as conn:
            await conn.execute(
                "UPDATE keyturn.workflows SET lease_until = now() - interval '1 second' WHERE workflow_id = %s",
                [workflow_id],
            )
            async with tasks.ctx.db.listener("keyturn_events") as heard:
                worker._wake.set()  # pyright: ignore[reportPrivateUsage]
                await asyncio.wait([before])
                async with asyncio.timeout(10):
                    while (await tasks.types(workflow_id)).count("step-started") < 2:
                        async for _ in heard.notifies(timeout=0.5, stop_after=1):
                            break
        assert places["block"].come == 1
        places["block"].open()
        await tasks.until(workflow_id, "completed")
    assert board("again").ran == ["stopped", "block", "seal"]


async def test_news_of_one_workflow_do_not_wait_for_another_ones_row(tasks: Keyturn) -> None:
    places = {name: board(name).places["next"] for name in ("held", "other")}
    async with tasks.working():
        ids = {name: await tasks.submit("pacing", board=name, changes=2) for name in places}
        for place in places.values():
            await place.until()
        async with tasks.ctx.db.listener("keyturn_events") as heard, tasks.ctx.db.transaction() as conn:
            await conn.execute("SELECT FROM keyturn.workflows WHERE workflow_id = %s FOR UPDATE", [ids["held"]])
            places["held"].go.set()
            async with asyncio.timeout(3):
                # The statement that is to tell it stands behind the row.
                while not await _waiting(tasks):
                    async for _ in heard.notifies(timeout=0.02, stop_after=1):
                        break
                places["other"].go.set()
                while (await progress.of_workflow(tasks.ctx, tasks.me, ids["other"])).percent != 50.0:
                    async for _ in heard.notifies(timeout=0.5, stop_after=1):
                        break
        for name, place in places.items():
            await place.until()
            place.go.set()
            await tasks.until(ids[name], "completed")
    told = await workflows.events_page(tasks.ctx, tasks.me, ids["held"], 0, 100)
    assert [event.data["percent"] for event in told.events if event.type == "progress"][-1] == 100.0
