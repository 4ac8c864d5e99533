"""`keyturn up`: Postgres, migrations, first key, API and worker in one process, and their common end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from orchestrator.cli.credentials import FILE_NAME, Credentials, read_credentials, write_credentials
from orchestrator.cli.processes import say
from orchestrator.cli.running import keep_loaded, run_async, stop_on_signals, worker_context
from orchestrator.config import POLICIES_FILE, read_text
from orchestrator.core.errors import InvalidDocument, KeyturnError, NotFound, Unauthenticated
from orchestrator.embedded import EmbeddedPostgres
from orchestrator.engine.catalog import Catalog, load_catalog
from orchestrator.service import identity, policies, signing
from orchestrator.service.context import Context
from orchestrator.service.schema import prepare_database
from orchestrator.settings import Settings, default_data_dir
from orchestrator.web.app import create_app
from orchestrator.web.parts import Parts
from orchestrator.web.server import address, bind, serve
from orchestrator.worker import Worker

# Runbooks name their databases; `local` is this one unless the operator says otherwise.
LOCAL_CONNECTION: Final = "KEYTURN_CONNECTION_LOCAL"
_LOOK_SECONDS: Final = 0.5

_log: Final = logging.getLogger(__name__)


def run_up(settings: Settings, *, as_json: bool = False) -> None:
    """Run until a signal, then drain; raises DirectoryInUse when another process runs in the data directory."""
    # Runbooks run inside this process and read where things are from its environment.
    os.environ |= {"KEYTURN_DATA_DIR": str(settings.data_dir), "KEYTURN_CONFIG_DIR": str(settings.config_dir)}
    if settings.anchor_key_file is None:
        settings = settings.model_copy(update={"anchor_key_file": settings.data_dir / signing.FILE_NAME})
    with contextlib.ExitStack() as stack:
        postgres = None
        if settings.database_url is None:
            postgres = stack.enter_context(EmbeddedPostgres(settings.data_dir))
            settings = settings.model_copy(update={"database_url": postgres.url})
        # Behind the directory's lock, so that a second `up` is told of the first and not of its port.
        listener = stack.enter_context(contextlib.closing(bind(settings.host, settings.port)))
        run_async(_Up(settings, postgres, listener, as_json).run())


@dataclass(frozen=True, slots=True)
class _Up:
    """One `keyturn up`: its settings, its Postgres if it has one, and the socket it serves on."""

    settings: Settings
    postgres: EmbeddedPostgres | None
    listener: socket.socket
    as_json: bool

    async def run(self) -> None:
        """Prepare the database, then serve and work until a signal."""
        stop = stop_on_signals()
        database_url = self.settings.require_database_url()
        await prepare_database(database_url, self.settings.migrations_dir)
        os.environ.setdefault(LOCAL_CONNECTION, database_url)
        async with worker_context(self.settings) as context:
            credentials = await _credentials(context, self.settings, address(self.listener))
            await _publish_policies(context, self.settings)
            gates = context.governance.rules.gates
            async with load_catalog(self.settings.app, gates) as catalog, _kept_running(self.postgres):
                await self._serve_and_work(context, catalog, stop, credentials)

    async def _serve_and_work(
        self, context: Context, catalog: Catalog, stop: asyncio.Event, credentials: Path | None
    ) -> None:
        started = asyncio.Event()
        if self.settings.anchor_key_file is not None:
            signing.ensure_key(self.settings.anchor_key_file)
        application = create_app(self.settings)
        worker = Worker(context, catalog, self.settings)
        api = cast("Parts", application.state.parts).context.db
        keep_loaded()
        try:
            with worker.hearing(api):
                async with asyncio.TaskGroup() as group:
                    group.create_task(serve(application, self.listener, stop, started), name="api")
                    group.create_task(worker.run(stop), name="worker")
                    group.create_task(self._announce(started, sorted(catalog.entries), credentials), name="announce")
        except ExceptionGroup as failed:
            # One of them broke and took the other along: the first cause is what to tell.
            raise failed.exceptions[0] from None

    async def _announce(self, started: asyncio.Event, graphs: list[str], credentials: Path | None) -> None:
        await started.wait()
        url, settings = address(self.listener), self.settings
        lines = [
            f"Keyturn is up on {url}",
            f"  graphs       {', '.join(graphs)}  ({settings.app})",
            f"  rules        {settings.config_dir / 'hitl'}",
            f"  data         {settings.data_dir}",
        ]
        if credentials is not None:
            lines.append(f"  credentials  {credentials}  (person {identity.FIRST_PERSON})")
        where = "" if settings.data_dir == default_data_dir() else f"KEYTURN_DATA_DIR={settings.data_dir} "
        lines.append(f"Stop it with Ctrl-C. In another terminal: {where}keyturn list-pending")
        file = None if credentials is None else str(credentials)
        say("\n".join(lines), as_json=self.as_json, url=url, graphs=graphs, credentials=file, pid=os.getpid())


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


async def _publish_policies(context: Context, settings: Settings) -> None:
    """Let the configuration folder's policies decide, if they have changed; raises InvalidDocument."""
    file = settings.config_dir / POLICIES_FILE
    if not file.exists():
        return
    problems: list[str] = []
    text = read_text(file, problems)
    if problems:
        raise InvalidDocument(tuple(problems))
    await policies.publish_own(context, settings.namespace, text, str(file))


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
