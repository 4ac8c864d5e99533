"""`people` and `keys`: who there is, which roles they hold, and the keys that prove who they are."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

import typer
from pydantic import TypeAdapter

from orchestrator.cli.durations import parse_duration
from orchestrator.cli.output import Column
from orchestrator.cli.session import AsJson, Profile, Url, connect
from orchestrator.sdk.calls import Permission

people_app = typer.Typer(no_args_is_help=True, help="People and their roles")
keys_app = typer.Typer(no_args_is_help=True, help="API keys")


_ORDINARY: Final = ("submit", "read", "decide")
_PERMISSION_HELP: Final = "submit, read, decide, act_as, admin or audit; repeat it. Without any: submit, read, decide"
_PERMISSIONS: Final = TypeAdapter(list[Permission])


@people_app.command("list")
def list_people(*, url: Url = None, profile: Profile = None, as_json: AsJson = False) -> None:
    """List everybody and their roles."""
    with connect(url, profile, as_json=as_json) as session:
        found = session.client.people()
        if as_json:
            session.output.json(found)
            return
        rows = [(one.person, ", ".join(one.roles), one.name, one.email) for one in found]
        columns = [Column("PERSON"), Column("ROLES", fold=True), Column("NAME", fold=True), Column("E-MAIL")]
        session.output.rows(columns, rows, "There is nobody.")


@people_app.command("add")
def add_person(
    person: Annotated[str, typer.Argument(help="The person's id")],
    *,
    name: Annotated[str, typer.Option(help="The name people read")] = "",
    email: Annotated[str | None, typer.Option(help="Where notifications go")] = None,
    roles: Annotated[list[str] | None, typer.Option("--role", "-r", help="A role the person holds; repeat it")] = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Add a person, or replace what is known of one: afterwards they hold exactly these roles."""
    with connect(url, profile, as_json=as_json) as session:
        found = session.client.put_person(person, name=name, email=email, roles=roles or [])
        told = f"{found.person}: {', '.join(found.roles) or 'no roles'}"
        session.output.json(found) if as_json else session.output.line(told)


@keys_app.command("list")
def list_keys(*, url: Url = None, profile: Profile = None, as_json: AsJson = False) -> None:
    """List keys, without their secrets."""
    with connect(url, profile, as_json=as_json) as session:
        found = session.client.keys()
        if as_json:
            session.output.json(found)
            return
        rows = [
            (one.key_id, one.person, ", ".join(one.permissions), one.label, _state(one.revoked_at, one.expires_at))
            for one in found
        ]
        columns = [Column("KEY"), Column("PERSON"), Column("PERMISSIONS", fold=True), Column("LABEL"), Column("STATE")]
        session.output.rows(columns, rows, "There are no keys.")


@keys_app.command("add")
def add_key(
    person: Annotated[str, typer.Argument(help="Whose key it is")],
    *,
    permissions: Annotated[list[str] | None, typer.Option("--permission", "-p", help=_PERMISSION_HELP)] = None,
    label: Annotated[str, typer.Option(help="What it is for")] = "",
    expires_in: Annotated[
        timedelta | None,
        typer.Option(help="How long it is good for, such as 30d", parser=parse_duration, metavar="TIME"),
    ] = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is printed this once."""
    with connect(url, profile, as_json=as_json) as session:
        chosen = _PERMISSIONS.validate_python(permissions or _ORDINARY)
        made = session.client.create_key(person, chosen, label=label, expires_in=expires_in)
        session.output.json(made) if as_json else session.output.line(made.key)


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's id, the part between the underscores")],
    *,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """End a key; it is refused within a second."""
    with connect(url, profile, as_json=as_json) as session:
        ended = session.client.revoke_key(key_id)
        session.output.json(ended) if as_json else session.output.line(f"{ended.key_id} is revoked")


def _state(revoked_at: object, expires_at: object) -> str:
    if revoked_at is not None:
        return "revoked"
    return f"until {expires_at}" if expires_at is not None else "good"
