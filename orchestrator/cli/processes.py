"""`up`, `serve`, `worker`, `migrate`, `bootstrap`: the commands that run processes or prepare a database."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.core.errors import TransitionConflict

# What runs a process is imported by the command that runs it: the others start faster without.
if TYPE_CHECKING:
    from orchestrator.settings import Settings

app = typer.Typer()

Host = Annotated[str | None, typer.Option(help="The address to listen on")]
Port = Annotated[int | None, typer.Option(help="The port to listen on, 0 for any free one", min=0, max=65_535)]
App = Annotated[
    Path | None,
    typer.Option("--app", help="The langgraph.json whose graphs are run", metavar="FILE", dir_okay=False),
]
DataDir = Annotated[Path | None, typer.Option(help="Where Postgres and the credentials live", metavar="FOLDER")]


@app.command()
def up(*, app: App = None, host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Run everything in one process: API, worker and, without KEYTURN_DATABASE_URL, a Postgres of its own."""
    from orchestrator.cli.up import run_up
    from orchestrator.settings import load_settings
    from orchestrator.telemetry import configure_logging

    settings = load_settings(app=app, host=host, port=port, data_dir=data_dir)
    configure_logging(settings.log_level if "log_level" in settings.model_fields_set else "warning")
    run_up(settings)


@app.command()
def serve(*, host: Host = None, port: Port = None) -> None:
    """Run the API only; any number of these share a database."""
    from orchestrator.cli.running import run_async

    settings = _settings(host=host, port=port)
    run_async(_serve(settings))


@app.command()
def worker(*, app: App = None) -> None:
    """Run a worker; any number of these, on any machines, share a database."""
    from orchestrator.cli.running import run_async

    settings = _settings(app=app)
    run_async(_work(settings))


@app.command()
def migrate() -> None:
    """Bring the database in KEYTURN_DATABASE_URL to this release."""
    from orchestrator.cli.running import run_async

    run_async(_migrate(_settings()))


@app.command()
def bootstrap() -> None:
    """Make the first person of a new database, and print their key, this once."""
    from orchestrator.cli.running import run_async

    run_async(_bootstrap(_settings()))


def _settings(**given: object) -> Settings:
    from orchestrator.settings import load_settings
    from orchestrator.telemetry import configure_logging

    settings = load_settings(**given)
    settings.require_database_url()
    configure_logging(settings.log_level)
    return settings


async def _serve(settings: Settings) -> None:
    from orchestrator.cli.running import stop_on_signals
    from orchestrator.web.app import create_app
    from orchestrator.web.server import address, bind, serve

    application = create_app(settings)
    with contextlib.closing(bind(settings.host, settings.port)) as listener:
        typer.echo(f"Keyturn's API is on {address(listener)}")
        await serve(application, listener, stop_on_signals())


async def _work(settings: Settings) -> None:
    from orchestrator.cli.running import stop_on_signals, worker_context
    from orchestrator.engine.catalog import load_catalog
    from orchestrator.worker import Worker

    async with (
        worker_context(settings) as context,
        load_catalog(settings.app, context.governance.rules.gates) as catalog,
    ):
        running = Worker(context, catalog, settings, watched=True)
        typer.echo(f"Keyturn's worker {running.worker_id} runs {', '.join(sorted(catalog.entries))}")
        await running.run(stop_on_signals())


async def _migrate(settings: Settings) -> None:
    from orchestrator.service.schema import prepare_database

    report = await prepare_database(settings.require_database_url(), settings.migrations_dir)
    for label in (*report.applied, *report.components):
        typer.echo(f"applied {label}")
    if not report.applied and not report.components:
        typer.echo("the database is up to date")


async def _bootstrap(settings: Settings) -> None:
    from orchestrator.cli.running import worker_context
    from orchestrator.service import identity

    async with worker_context(settings) as context:
        made = await identity.bootstrap(context, settings.namespace)
    if made is None:
        raise TransitionConflict(
            f"namespace {settings.namespace} has people already; one who may administer adds more: keyturn people add"
        )
    typer.echo(made.key)
