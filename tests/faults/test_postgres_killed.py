"""Postgres is killed under load and comes back: everything that was acknowledged is there, and workers go on alone."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.embedded import EmbeddedPostgres
from orchestrator.service.schema import prepare_database
from tests.conftest import REPOSITORY
from tests.faults.conftest import APP, Farm
from tests.faults.load import Load
from tests.faults.target import Target
from tests.harness import running


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """A server of this test's own, to be killed."""
    folder = Path(tempfile.mkdtemp(prefix="keyturn-tests-"))
    found = EmbeddedPostgres(folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def fragile(server: EmbeddedPostgres, target: Target, tmp_path: Path) -> AsyncIterator[Farm]:
    await prepare_database(server.url, REPOSITORY / "migrations")
    async with running(server.url, app=APP) as keyturn:
        found = Farm(keyturn, target, tmp_path)
        try:
            yield found
        finally:
            found.clear_away()


async def killed_and_restarted(server: EmbeddedPostgres, away: float) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(away)
    await asyncio.to_thread(server.start)


async def under_load(fragile: Farm, server: EmbeddedPostgres, count: int, kills: int) -> None:
    load = Load(fragile)
    workers = [fragile.worker(), fragile.worker()]
    working = asyncio.create_task(load.run(count))
    rounds = 2 * count // (kills + 1)
    for number in range(1, kills + 1):
        # Spread over the life of the load: submissions first, then decisions and what they set free.
        done = number * rounds
        waited = asyncio.create_task(load.until(min(done, count), max(0, done - count)))
        await asyncio.wait({waited, working}, return_when=asyncio.FIRST_COMPLETED)
        waited.cancel()
        await killed_and_restarted(server, away=0.2 * number)
    await working
    assert all(worker.alive for worker in workers)
    assert len(fragile.promised.submitted) == len(fragile.promised.decided) == count
    await fragile.check()


async def test_nothing_acknowledged_is_lost_when_postgres_is_killed_under_load(
    fragile: Farm, server: EmbeddedPostgres
) -> None:
    await under_load(fragile, server, count=24, kills=3)


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_nothing_acknowledged_is_lost_when_postgres_is_killed_again_and_again(
    fragile: Farm, server: EmbeddedPostgres
) -> None:
    await under_load(fragile, server, count=200, kills=10)
