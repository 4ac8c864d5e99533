"""The commands put together, and what a failure outside of a session means for the exit code."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, cast

import typer

from orchestrator.cli import admin, audit, decisions, delegations, governing, inbox, policy, processes, workflows
from orchestrator.cli.output import complain
from orchestrator.cli.session import REFUSED, UNREACHABLE, USAGE
from orchestrator.core.errors import InvalidInput, KeyturnError, Unavailable

app = typer.Typer(
    name="keyturn",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run automations that must not act alone: submit, look, approve.",
)
for part in (workflows.app, decisions.app, governing.app, processes.app, inbox.app):
    app.registered_commands.extend(part.registered_commands)
app.add_typer(admin.people_app, name="people")
app.add_typer(admin.keys_app, name="keys")
app.add_typer(policy.policy_app, name="policy")
app.add_typer(audit.audit_app, name="audit")
app.add_typer(delegations.delegate_app, name="delegate")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("keyturn"))
        raise typer.Exit


@app.callback()
def keyturn(
    *,
    # As a callback it is done before a command is missed.
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and end", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Run automations that must not act alone: submit, look, approve."""


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def demo(context: typer.Context) -> None:
    """Show everything once, with a Postgres of its own, and leave nothing running."""
    # Loaded by name and only now: it brings the whole of Keyturn along.
    module = importlib.import_module("orchestrator.cli.demo")
    play = cast("Callable[[list[str]], int]", module.main)
    raise typer.Exit(play(context.args))


def run() -> None:
    """Run the command line and exit: 0 done, 1 refused or failed, 2 usage, 3 not reachable."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character shows a question mark, and the command still works.
            stream.reconfigure(errors="replace")
    try:
        app()
    except KeyturnError as error:
        complain(error.detail)
        sys.exit(_code(error))


def _code(error: KeyturnError) -> int:
    if isinstance(error, Unavailable):
        return UNREACHABLE
    return USAGE if isinstance(error, InvalidInput) else REFUSED
