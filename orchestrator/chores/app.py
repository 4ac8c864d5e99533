"""The chores: Procrastinate jobs that are neither on the way of a workflow nor in anybody's hurry.

So far retention. What a workflow needs to go on never depends on this queue.
"""

from __future__ import annotations

import logging
from typing import Any, cast

import procrastinate
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from orchestrator.store import fleet, idempotency
from orchestrator.store.db import Database, link_options

log = logging.getLogger("keyturn.chores")
RETENTION = "keyturn:retention"
IDEMPOTENCY_DAYS = 7
DEAD_WORKER_HOURS = 24


async def retention(context: procrastinate.JobContext, timestamp: int) -> None:
    """Forget what nobody can need any more: old idempotency keys, workers that died long ago."""
    db = cast("Database", cast("Any", context).additional_context["db"])
    async with db.connection() as conn:
        keys = await idempotency.forget(conn, IDEMPOTENCY_DAYS, None)
        dead = await fleet.bury(conn, DEAD_WORKER_HOURS)
    log.info("retention at %s: %s idempotency keys, %s workers", timestamp, keys, dead)


async def _autocommit(conn: AsyncConnection[DictRow]) -> None:
    # Its listener dies when autocommit comes through the connection keywords instead.
    await conn.set_autocommit(True)


def make_app(url: str) -> procrastinate.App:
    """The application on a pool of its own; open it before use."""
    connector = procrastinate.PsycopgConnector(
        conninfo=url, kwargs=link_options("keyturn-chores"), configure=_autocommit, min_size=1, max_size=2
    )
    app = procrastinate.App(connector=connector)
    task = app.task(name=RETENTION, queueing_lock=RETENTION, pass_context=True)(retention)
    app.periodic(cron="17 * * * *")(task)
    return app


async def work(db: Database) -> None:
    """Do chores until cancelled; returns when the database went away, to be called again."""
    app = make_app(db.url)
    async with app.open_async():
        await app.run_worker_async(
            install_signal_handlers=False, concurrency=1, additional_context={"db": db}, fetch_job_polling_interval=10.0
        )
