"""The chores: Procrastinate jobs that are neither on the way of a workflow nor in anybody's hurry.

Notifications and retention. What a workflow needs to go on never depends on this queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import procrastinate
from procrastinate.exceptions import UniqueViolation
from procrastinate.jobs import DeleteJobCondition, Job
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from orchestrator.chores.guarded_http import Resolver, system_resolver
from orchestrator.chores.message import Links
from orchestrator.chores.notify import Notifier, PageLinks
from orchestrator.chores.senders import make_senders
from orchestrator.chores.templates import Templates
from orchestrator.config import Governance
from orchestrator.core.errors import Unavailable
from orchestrator.settings import Settings, shipped_config
from orchestrator.store import fleet, idempotency, seen
from orchestrator.store.db import Clock, Database, database_clock, link_options
from orchestrator.store.notices import Backoff

log = logging.getLogger("keyturn.chores")
RETENTION = "keyturn:retention"
# What `keyturn.queue_notices` and `keyturn.queue_deliveries` defer.
FAN_OUT = "keyturn:fan-out"
DELIVER = "keyturn:deliver"
RESCUE = "keyturn:rescue"
QUEUE = "notifications"
IDEMPOTENCY_DAYS = 7
DEAD_WORKER_HOURS = 24
_CONCURRENCY = 8
# A new job is heard of at once; this is how late a repeated attempt may be.
_LOOK_SECONDS = 5.0
_BROKEN_SECONDS = 30
_LAST_WORDS = 0.5


class _Later(Exception):  # noqa: N818 nothing is wrong: the job is to be done again at that time
    def __init__(self, at: datetime) -> None:
        super().__init__(f"again at {at.isoformat()}")
        self.at = at


class _Again(BaseRetryStrategy):
    """A job that says when is done again then; one that a shutdown cut off, at once; one that broke, a little later."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision:
        """Never gives up: the rows know when something is over."""
        if isinstance(exception, _Later):
            return RetryDecision(retry_at=exception.at)
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision()
        if isinstance(exception, Unavailable):
            log.warning("%s: the database is away; again in %s s", job.task_name, _BROKEN_SECONDS)
        else:
            log.error("%s broke; again in %s s", job.task_name, _BROKEN_SECONDS, exc_info=exception)
        return RetryDecision(retry_in={"seconds": _BROKEN_SECONDS})


def _notifier(context: procrastinate.JobContext) -> Notifier:
    return cast("Notifier", cast("Any", context).additional_context["notifier"])


async def retention(context: procrastinate.JobContext, timestamp: int) -> None:
    """Forget what nobody can need any more: old idempotency keys, workers that died long ago, who has seen
    what is decided.
    """
    async with _notifier(context).db.connection() as conn:
        keys = await idempotency.forget(conn, IDEMPOTENCY_DAYS, None)
        dead = await fleet.bury(conn, DEAD_WORKER_HOURS)
        shown = await seen.forget(conn)
    log.info("retention at %s: %s idempotency keys, %s workers, %s seen requests", timestamp, keys, dead, shown)


async def fan_out(context: procrastinate.JobContext, workflow_id: str) -> None:
    """Work out who is told of a workflow's notices."""
    await _notifier(context).fan_out(workflow_id)


async def deliver(context: procrastinate.JobContext, delivery_id: str, channel: str) -> None:
    """Make one attempt at a delivery."""
    again = await _notifier(context).deliver(delivery_id, channel)
    if again is not None:
        raise _Later(again)


async def rescue(context: procrastinate.JobContext, timestamp: int) -> None:
    """Put back what a dead worker had taken, and make jobs for what has none."""
    jobs = context.app.job_manager
    stalled = [job for job in await jobs.get_stalled_jobs() if job.id is not None and job.id != context.job.id]
    for job in stalled:
        # One that waits already may have only one of its kind waiting.
        with contextlib.suppress(UniqueViolation):
            await jobs.retry_job(job)
    workflows, deliveries = await _notifier(context).late()
    for workflow_id in workflows:
        await context.app.configure_task(FAN_OUT, queue=QUEUE).defer_async(workflow_id=workflow_id)
    for delivery_id, channel in deliveries:
        await context.app.configure_task(DELIVER, queue=QUEUE).defer_async(delivery_id=delivery_id, channel=channel)
    if stalled or workflows or deliveries:
        counts = (timestamp, len(stalled), len(workflows), len(deliveries))
        log.warning("rescue at %s: %s stalled jobs, %s workflows with lost notices, %s lost deliveries", *counts)


async def _autocommit(conn: AsyncConnection[DictRow]) -> None:
    # Its listener dies when autocommit comes through the connection keywords instead.
    await conn.set_autocommit(True)


def make_app(url: str) -> procrastinate.App:
    """The application on a pool of its own; open it before use."""
    connector = procrastinate.PsycopgConnector(
        conninfo=url, kwargs=link_options("keyturn-chores"), configure=_autocommit, min_size=1, max_size=3
    )
    app = procrastinate.App(connector=connector)
    for name, periodic, chore in ((RETENTION, "17 * * * *", retention), (RESCUE, "* * * * *", rescue)):
        task = app.task(name=name, queueing_lock=name, pass_context=True)(chore)
        app.periodic(cron=periodic)(task)
    app.task(name=FAN_OUT, queue=QUEUE, pass_context=True, retry=_Again())(fan_out)
    app.task(name=DELIVER, queue=QUEUE, pass_context=True, retry=_Again())(deliver)
    return app


def make_notifier(
    db: Database,
    governance: Governance,
    settings: Settings,
    *,
    clock: Clock = database_clock,
    links: Links | None = None,
    environment: Mapping[str, str] | None = None,
    resolver: Resolver = system_resolver,
) -> Notifier:
    """What tells people, as configured.

    Raises InvalidDocument, with file and line, for a variable that is not set and for a mistake in a template.
    """
    backoff = Backoff(settings.notify_attempts, settings.notify_backoff_seconds, settings.notify_backoff_max_seconds)
    links = links or PageLinks(settings.public_address)
    if not governance.channels.active:
        return Notifier(db, links=links, backoff=backoff, clock=clock)
    given = os.environ if environment is None else environment
    senders = make_senders(governance.channels, given, resolver, settings.notify_timeout_seconds)
    templates = Templates(settings.config_dir, shipped_config())
    return Notifier(db, governance.channels, senders, templates, links, backoff, clock)


async def work(notifier: Notifier) -> None:
    """Do chores until cancelled; returns when the database went away, to be called again."""
    app = make_app(notifier.db.url)
    async with app.open_async():
        await app.run_worker_async(
            install_signal_handlers=False,
            concurrency=_CONCURRENCY,
            additional_context={"notifier": notifier},
            fetch_job_polling_interval=_LOOK_SECONDS,
            abort_job_polling_interval=60.0,
            shutdown_graceful_timeout=_LAST_WORDS,
            # Finished jobs are of no use, and what looks for stalled ones reads them all.
            delete_jobs=DeleteJobCondition.SUCCESSFUL,
        )
