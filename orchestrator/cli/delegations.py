"""`delegate`: who decides in whose place, and until when."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from orchestrator.cli.durations import parse_time
from orchestrator.cli.output import Column, Output, ago, safe
from orchestrator.cli.session import AsJson, Profile, Url, connect
from orchestrator.wire import DelegationRecord

delegate_app = typer.Typer(no_args_is_help=True, help="Who decides in whose place")
_TIME = "A time, or a length of time from now such as 7d"


@delegate_app.command()
def add(
    person: Annotated[str, typer.Argument(help="Who is to decide in your place")],
    *,
    until: Annotated[datetime, typer.Option(help=_TIME, parser=parse_time, metavar="TIME")],
    starts: Annotated[
        datetime | None, typer.Option(help=f"{_TIME}; at once if left out", parser=parse_time, metavar="TIME")
    ] = None,
    from_person: Annotated[str | None, typer.Option(help="In whose place, if not yours; needs `admin`")] = None,
    reason: Annotated[str, typer.Option(help="Why")] = "",
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Let somebody decide in your place for a span of time."""
    with connect(url, profile, as_json=as_json) as session:
        made = session.client.delegate(person, until, from_person=from_person, starts_at=starts, reason=reason)
        _show(session.output, made, f"from {_time(made.starts_at)} until {_time(made.ends_at)}")


@delegate_app.command("list")
def list_delegations(*, url: Url = None, profile: Profile = None, as_json: AsJson = False) -> None:
    """List the delegations that have not ended: your own, with `admin` everybody's."""
    with connect(url, profile, as_json=as_json) as session:
        found = session.client.delegations()
        if as_json:
            session.output.json(found)
            return
        shown = ago if session.output.terminal else _time
        rows = [
            (one.delegation_id, one.from_, one.to, shown(one.starts_at), shown(one.ends_at), one.reason)
            for one in found
        ]
        names = ("DELEGATION", "FROM", "TO", "STARTS", "ENDS", "REASON")
        session.output.rows([Column(name, fold=name == "REASON") for name in names], rows, "Nobody delegates.")


@delegate_app.command()
def end(
    delegation_id: Annotated[str, typer.Argument(help="The delegation's id", metavar="DELEGATION_ID")],
    *,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """End a delegation now."""
    with connect(url, profile, as_json=as_json) as session:
        _show(session.output, session.client.end_delegation(delegation_id), "has ended")


def _show(output: Output, one: DelegationRecord, told: str) -> None:
    if output.as_json:
        output.json(one)
    else:
        output.line(f"{one.delegation_id}: {safe(one.to)} for {safe(one.from_)} {told}")


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
