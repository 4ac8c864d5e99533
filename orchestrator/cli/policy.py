"""`policy`: checking a policy file, publishing it, trying it on past requests, and what was published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from orchestrator.cli.output import Column, Output, ago, needed
from orchestrator.cli.session import AsJson, Profile, Url, connect
from orchestrator.core.errors import InvalidInput

if TYPE_CHECKING:
    from orchestrator.wire import PolicyDifference, PolicyOutcome

policy_app = typer.Typer(no_args_is_help=True, help="Approval policies")

File = Annotated[
    Path | None,
    typer.Argument(help="The policy file; without one, that of the configuration folder", metavar="[FILE]"),
]
_NAMES: Final = {"justification_required": "justification", "can_decide": "who can decide"}


@policy_app.command()
def check(file: File = None, *, as_json: AsJson = False) -> None:
    """Check a policy file here, without a server; every mistake is told with its file and line."""
    from orchestrator.config import load_governance
    from orchestrator.core.policy_file import PolicyBook
    from orchestrator.settings import load_settings

    settings = load_settings()
    where, text = _read(file)
    book = PolicyBook.load(text, str(where), load_governance(settings.config_dir).rules.roles)
    output = Output(as_json=as_json)
    if as_json:
        output.json({"file": str(where), "policies": [policy.name for policy in book.policies]})
        return
    count = len(book.policies)
    output.line(f"{where}: {count} {'policy' if count == 1 else 'policies'}, no mistakes")


@policy_app.command()
def publish(file: File = None, *, url: Url = None, profile: Profile = None, as_json: AsJson = False) -> None:
    """Let the policies of a file decide from now on; the same text again changes nothing."""
    where, text = _read(file)
    with connect(url, profile, as_json=as_json) as session:
        done = session.client.publish_policies(text, file=where.name)
        if as_json:
            session.output.json(done)
        elif done.changed:
            session.output.line(f"version {done.version} is published: {_named(done.versions) or 'no policies'}")
        else:
            session.output.line(f"version {done.version} is this text already; nothing has changed")


@policy_app.command()
def simulate(
    file: File = None,
    *,
    limit: Annotated[int, typer.Option(help="How many past requests, newest first", min=1, max=1000)] = 100,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Tell which past requests would have gone otherwise with a file; nothing is written."""
    where, text = _read(file)
    with connect(url, profile, as_json=as_json) as session:
        found = session.client.simulate_policies(text, file=where.name, limit=limit)
        if as_json:
            session.output.json(found)
            return
        session.output.line(f"{len(found.differences)} of {found.replayed} requests would have gone otherwise")
        for one in found.differences:
            _show(session.output, one)


@policy_app.command()
def versions(*, url: Url = None, profile: Profile = None, as_json: AsJson = False) -> None:
    """List what was published, newest first."""
    with connect(url, profile, as_json=as_json) as session:
        found = session.client.policy_versions()
        if as_json:
            session.output.json(found)
            return
        rows = [(one.version, ago(one.published_at), one.published_by, one.file, _named(one.versions))
                for one in found.versions]  # fmt: skip
        columns = [Column("VERSION"), Column("PUBLISHED"), Column("BY"), Column("FILE"), Column("POLICIES", fold=True)]
        session.output.rows(columns, rows, "No policies are published; the defaults of the risk levels decide.")


def _read(file: Path | None) -> tuple[Path, str]:
    """The file that is meant and its text; raises InvalidDocument when it cannot be read."""
    from orchestrator.config import POLICIES_FILE, read_text
    from orchestrator.settings import load_settings

    where = file or load_settings().config_dir / POLICIES_FILE
    problems: list[str] = []
    text = read_text(where, problems)
    if problems:
        raise InvalidInput("\n".join(problems))
    return where, text


def _named(versions: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _show(output: Output, one: PolicyDifference) -> None:
    output.line()
    output.facts(
        [
            ("approval", one.approval_id),
            ("what", one.description),
            ("risk", one.risk_level),
            *(
                (_NAMES.get(name, name), f"{_told(one.before, name)} -> {_told(one.after, name)}")
                for name in one.changed
            ),
            ("could no more", ", ".join(one.lacking)),
            ("could as well", ", ".join(one.added)),
            *(("trouble", trouble) for trouble in one.troubles),
        ]
    )


def _told(outcome: PolicyOutcome, name: str) -> str:
    if name == "stages":
        return ", then ".join(needed(stage) for stage in outcome.stages)
    if name == "can_decide":
        return ", ".join(outcome.can_decide) or "nobody"
    value = getattr(outcome, name)
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
