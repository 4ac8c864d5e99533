"""A worker that is alive works: no error in one of its loops ends that loop."""

from __future__ import annotations

from psycopg import AsyncConnection

from tests.faults.conftest import Farm


async def test_a_worker_goes_on_after_an_error_that_nobody_foresaw(farm: Farm) -> None:
    worker = farm.worker()
    await farm.completed(await farm.submit("steps"))
    async with await AsyncConnection.connect(farm.database_url, autocommit=True) as conn:
        await conn.execute("ALTER TABLE keyturn.workflows RENAME TO elsewhere")
        # The claims and the sweep, at least.
        await farm.said(worker, "UndefinedTable", times=2)
        await conn.execute("ALTER TABLE keyturn.elsewhere RENAME TO workflows")
    await farm.completed(await farm.submit("steps"))
    assert worker.alive
    await farm.check()
