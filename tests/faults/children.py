"""What runs inside the processes that tests/faults/process.py starts. Imported once, by the process they fork from."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os

from orchestrator.cli.running import stop_on_signals, worker_context
from orchestrator.engine.catalog import load_catalog
from orchestrator.settings import load_settings
from orchestrator.web.app import create_app
from orchestrator.web.server import bind, serve
from orchestrator.worker import Worker
from tests.faults import planted
from tests.faults.process import ApiSpec, WorkerSpec

# Imported here so that every worker need not.
importlib.import_module("tests.apps.fault_graphs")


def work(spec: WorkerSpec) -> None:
    """A worker, until SIGTERM."""
    logging.basicConfig(filename=spec.log, level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(message)s")
    for plant in spec.plants:
        planted.plant(plant)
    asyncio.run(_work(spec))


async def _work(spec: WorkerSpec) -> None:
    settings = load_settings(database_url=spec.database_url, app=spec.app, **spec.settings)
    async with (
        worker_context(settings) as context,
        load_catalog(settings.app, context.governance.rules.gates) as catalog,
    ):
        worker = Worker(context, catalog, settings, worker_id=f"w{os.getpid()}", watched=True)
        await worker.run(stop_on_signals())


def serve_api(spec: ApiSpec) -> None:
    """An API, until SIGTERM."""
    logging.basicConfig(filename=spec.log, level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(message)s")
    asyncio.run(_serve(spec))


async def _serve(spec: ApiSpec) -> None:
    settings = load_settings(database_url=spec.database_url)
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        spec.port.send(listener.getsockname()[1])
        spec.port.close()
        await serve(create_app(settings), listener, stop_on_signals())
