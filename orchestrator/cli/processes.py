"""`up`, `serve`, `worker`, `migrate`, `bootstrap`: the commands that run processes or prepare a database."""

from __future__ import annotations

import contextlib
import json
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
AsJson = Annotated[bool, typer.Option("--json", help="Print what there is to know as JSON")]
DataDir = Annotated[Path | None, typer.Option(help="Where Postgres and the credentials live", metavar="FOLDER")]


@app.command()
def up(
    *, app: App = None, host: Host = None, port: Port = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Run everything in one process: API, worker and, without KEYTURN_DATABASE_URL, a Postgres of its own."""
    from orchestrator.cli.up import run_up
    from orchestrator.settings import load_settings
    from orchestrator.telemetry import configure_logging

    settings = load_settings(app=app, host=host, port=port, data_dir=data_dir)
    configure_logging(settings.log_level if "log_level" in settings.model_fields_set else "warning")
    run_up(settings, as_json=as_json)


@app.command()
def serve(*, host: Host = None, port: Port = None, as_json: AsJson = False) -> None:
    """Run the API only; any number of these share a database."""
    from orchestrator.cli.running import run_async

    settings = _settings(host=host, port=port)
    run_async(_serve(settings, as_json=as_json))


@app.command()
def worker(*, app: App = None, as_json: AsJson = False) -> None:
    """Run a worker; any number of these, on any machines, share a database."""
    from orchestrator.cli.running import run_async

    settings = _settings(app=app)
    run_async(_work(settings, as_json=as_json))


@app.command()
def migrate(*, as_json: AsJson = False) -> None:
    """Bring the database in KEYTURN_DATABASE_URL to this release."""
    from orchestrator.cli.running import run_async

    run_async(_migrate(_settings(), as_json=as_json))


@app.command()
def bootstrap(*, as_json: AsJson = False) -> None:
    """Make the first person of a new database, and print their key, this once."""
    from orchestrator.cli.running import run_async

    run_async(_bootstrap(_settings(), as_json=as_json))


def say(text: str, *, as_json: bool, **facts: object) -> None:
    """Tell a person the text, or a program the facts as one line of JSON."""
    typer.echo(json.dumps(facts) if as_json else text)


def _settings(**given: object) -> Settings:
    from orchestrator.settings import load_settings
    from orchestrator.telemetry import configure_logging

    settings = load_settings(**given)
    settings.require_database_url()
    configure_logging(settings.log_level)
    return settings


async def _serve(settings: Settings, *, as_json: bool) -> None:
    from orchestrator.cli.running import keep_loaded, stop_on_signals
    from orchestrator.web.app import create_app
    from orchestrator.web.server import address, bind, serve

    application = create_app(settings)
    with contextlib.closing(bind(settings.host, settings.port)) as listener:
        url = address(listener)
        say(f"Keyturn's API is on {url}", as_json=as_json, url=url)
        keep_loaded()
        await serve(application, listener, stop_on_signals())


async def _work(settings: Settings, *, as_json: bool) -> None:
    from orchestrator.cli.running import keep_loaded, stop_on_signals, worker_context
    from orchestrator.engine.catalog import load_catalog
    from orchestrator.worker import Worker

    async with (
        worker_context(settings) as context,
        load_catalog(settings.app, context.governance.rules.gates) as catalog,
    ):
        running = Worker(context, catalog, settings, watched=True)
        graphs = sorted(catalog.entries)
        told = f"Keyturn's worker {running.worker_id} runs {', '.join(graphs)}"
        say(told, as_json=as_json, worker_id=running.worker_id, graphs=graphs)
        keep_loaded()
        await running.run(stop_on_signals())


async def _migrate(settings: Settings, *, as_json: bool) -> None:
    from orchestrator.service.schema import prepare_database

    report = await prepare_database(settings.require_database_url(), settings.migrations_dir)
    applied = [*report.applied, *report.components]
    told = "\n".join(f"applied {label}" for label in applied) or "the database is up to date"
    say(told, as_json=as_json, applied=applied)


async def _bootstrap(settings: Settings, *, as_json: bool) -> None:
    from orchestrator.cli.running import worker_context
    from orchestrator.service import identity

    async with worker_context(settings) as context:
        made = await identity.bootstrap(context, settings.namespace)
    if made is None:
        raise TransitionConflict(
            f"namespace {settings.namespace} has people already; one who may administer adds more: keyturn people add"
        )
    say(made.key, as_json=as_json, person=made.person, key=made.key)
