"""`keyturn up`: Postgres, migrations, first key, API and worker in one process, and their common end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import typer

from orchestrator.cli.credentials import FILE_NAME, Credentials, read_credentials, write_credentials
from orchestrator.cli.running import run_async, stop_on_signals, worker_context
from orchestrator.core.errors import KeyturnError, NotFound, Unauthenticated
from orchestrator.embedded import EmbeddedPostgres
from orchestrator.engine.catalog import Catalog, load_catalog
from orchestrator.service import identity
from orchestrator.service.context import Context
from orchestrator.service.schema import prepare_database
from orchestrator.settings import Settings
from orchestrator.web.app import create_app
from orchestrator.web.server import address, bind, serve
from orchestrator.worker import Worker

# Runbooks name their databases; `local` is this one unless the operator says otherwise.
LOCAL_CONNECTION: Final = "KEYTURN_CONNECTION_LOCAL"
_LOOK_SECONDS: Final = 0.5

_log: Final = logging.getLogger(__name__)


def run_up(settings: Settings) -> None:
    """Run until a signal, then drain; raises DirectoryInUse when another process runs in the data directory."""
    with contextlib.ExitStack() as stack:
        postgres = None
        if settings.database_url is None:
            postgres = stack.enter_context(EmbeddedPostgres(settings.data_dir))
            settings = settings.model_copy(update={"database_url": postgres.url})
        # Taken before anything else begins: a port in use is said at once.
        listener = stack.enter_context(contextlib.closing(bind(settings.host, settings.port)))
        run_async(_up(settings, postgres, listener))


async def _up(settings: Settings, postgres: EmbeddedPostgres | None, listener: socket.socket) -> None:
    stop = stop_on_signals()
    database_url = settings.require_database_url()
    await prepare_database(database_url, settings.migrations_dir)
    os.environ.setdefault(LOCAL_CONNECTION, database_url)
    async with worker_context(settings) as context:
        credentials = await _credentials(context, settings, address(listener))
        gates = context.governance.rules.gates
        async with load_catalog(settings.app, gates) as catalog, _kept_running(postgres):
            await _run(settings, context, catalog, listener, stop, credentials)


async def _run(
    settings: Settings,
    context: Context,
    catalog: Catalog,
    listener: socket.socket,
    stop: asyncio.Event,
    credentials: Path | None,
) -> None:
    worker = Worker(context, catalog, settings)
    started = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(serve(create_app(settings), listener, stop, started), name="api")
            group.create_task(worker.run(stop), name="worker")
            group.create_task(_announce(settings, catalog, address(listener), started, credentials), name="announce")
    except ExceptionGroup as failed:
        # One of them broke and took the other along: the first cause is what to tell.
        raise failed.exceptions[0] from None


async def _announce(
    settings: Settings, catalog: Catalog, url: str, started: asyncio.Event, credentials: Path | None
) -> None:
    await started.wait()
    typer.echo(f"Keyturn is up on {url}")
    typer.echo(f"  graphs       {', '.join(sorted(catalog.entries))}  ({settings.app})")
    typer.echo(f"  rules        {settings.config_dir / 'hitl'}")
    typer.echo(f"  data         {settings.data_dir}")
    if credentials is not None:
        typer.echo(f"  credentials  {credentials}  (person {identity.FIRST_PERSON})")
    typer.echo("Stop it with Ctrl-C. In another terminal: keyturn list-pending")


async def _credentials(context: Context, settings: Settings, url: str) -> Path | None:
    """See to it that the credentials file has a good key for this address; None when nobody is there to have one."""
    file = settings.data_dir / FILE_NAME
    kept = read_credentials(file)
    key = kept.key if kept is not None and await _is_good(context, kept, settings.namespace) else None
    if key is None:
        try:
            made = await identity.bootstrap(context, settings.namespace)
            made = made or await identity.reissue(context, settings.namespace, "keyturn up")
        except NotFound:
            return None
        key = made.key
    person = identity.FIRST_PERSON
    write_credentials(file, Credentials(url=url, key=key, person=person, namespace=settings.namespace))
    return file


async def _is_good(context: Context, kept: Credentials, namespace: str) -> bool:
    try:
        caller = await identity.authenticate(context, kept.key)
    except Unauthenticated:
        return False
    return caller.namespace == namespace


@contextlib.asynccontextmanager
async def _kept_running(postgres: EmbeddedPostgres | None) -> AsyncGenerator[None]:
    """While the block runs, start our Postgres again whenever it has died."""
    watching = asyncio.create_task(_watch(postgres), name="postgres") if postgres is not None else None
    try:
        yield
    finally:
        if watching is not None:
            watching.cancel()
            # A start that has begun in its thread is not left half way.
            await asyncio.wait([watching])


async def _watch(postgres: EmbeddedPostgres) -> None:
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if postgres.pid is None:
            _log.warning("Postgres has died; starting it again")
            try:
                await asyncio.shield(asyncio.to_thread(postgres.start))
            except KeyturnError as error:
                _log.error("Postgres cannot be started, trying again: %s", error.detail)
