"""`audit`: the trail listed, proved and exported, and its heads signed, to be kept out of its owner's reach."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from orchestrator.cli.output import Column, Output, complain, safe
from orchestrator.cli.session import REFUSED, AsJson, Profile, Session, Url, connect
from orchestrator.cli.watching import event_line
from orchestrator.sdk import calls
from orchestrator.wire import AuditFinding, ChainHead, Verification

# What proves a file is imported by the command that does: the others start faster without.
if TYPE_CHECKING:
    from orchestrator.core.audit import Head

audit_app = typer.Typer(no_args_is_help=True, help="The audit trail")

_HEADS: Final = 1000
_Out = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file", metavar="FILE", dir_okay=False)]
_Kept = Annotated[
    Path | None,
    typer.Option("--anchor", help="Check against this anchor too", metavar="FILE", exists=True, dir_okay=False),
]
_Exported = Annotated[
    Path | None,
    typer.Option("--file", help="Check this export instead of a server", metavar="FILE", exists=True, dir_okay=False),
]
_Time = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"], help="A time, in UTC"),
]


@audit_app.command("list")
def list_events(
    *,
    kind: Annotated[str | None, typer.Option("--type", help="Only events of this type, such as key-created")] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this person did")] = None,
    limit: Annotated[int, typer.Option(help="At most so many", min=1, max=1000)] = 50,
    after: Annotated[str | None, typer.Option(help="Go on behind an earlier page")] = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """List events: the namespace's own, then those of its workflows, newest first."""
    with connect(url, profile, as_json=as_json) as session:
        page = session.client.audit(type=kind, actor=actor, limit=limit, after=after)
        if as_json:
            session.output.json(page)
            return
        for event in page.events:
            session.output.line(f"{safe(event.workflow_id):<32} {event_line(event)}")
        if page.next_cursor:
            complain(f"There may be more: --after {page.next_cursor}")


@audit_app.command()
def verify(
    *,
    anchor: _Kept = None,
    public_key: Annotated[
        str | None, typer.Option("--public-key", help="The key that must have signed it, 64 hexadecimal digits")
    ] = None,
    file: _Exported = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Compute every chain of events again; exit 1 when anything is wrong.

    Only an anchor that was kept elsewhere shows that a whole chain, or its newest events and their row, were removed.
    """
    if public_key is not None and anchor is None:
        raise typer.BadParameter("it checks an anchor; name one with --anchor", param_hint="--public-key")
    if anchor is not None:
        _check_signature(anchor, public_key)
    if file is not None:
        found = _verified_file(file, anchor)
        _tell(Output(as_json=as_json), found)
    else:
        with connect(url, profile, as_json=as_json) as session:
            found = session.client.verify_audit()
            if anchor is not None:
                found = calls.together(_contained(session, anchor), found)
            _tell(session.output, found)
    if not found.ok:
        raise typer.Exit(REFUSED)


@audit_app.command("anchor")
def make_anchor(*, output: _Out = None, url: Url = None, profile: Profile = None, as_json: AsJson = False) -> None:
    """Print the signed heads of all chains, as lines of JSON, to keep elsewhere."""
    with connect(url, profile, as_json=as_json) as session:
        _save(session.client.anchor_audit(), output)


@audit_app.command()
def export(
    *,
    since: _Time = None,
    until: _Time = None,
    workflow: Annotated[str | None, typer.Option(help="Only this workflow's", metavar="WORKFLOW_ID")] = None,
    output: _Out = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Print all events as lines of JSON, with their hashes."""
    with connect(url, profile, as_json=as_json) as session:
        pieces = session.client.export_audit(since=_utc(since), until=_utc(until), workflow_id=workflow)
        _save(pieces, output)


@audit_app.command("key")
def show_key(
    file: Annotated[Path, typer.Argument(help="Where the key is, or is to be", metavar="FILE", dir_okay=False)],
    *,
    as_json: AsJson = False,
) -> None:
    """Make a key to sign anchors with, unless the file holds one, and print its public half."""
    from orchestrator.service.signing import ensure_key

    found = ensure_key(file)
    Output(as_json=as_json).json({"file": str(file), "public_key": found}) if as_json else typer.echo(found)


def _check_signature(anchor: Path, public_key: str | None) -> None:
    from orchestrator.core.anchors import check_anchor

    with anchor.open(encoding="utf-8") as lines:
        facts = check_anchor(lines, public_key)
    told = f"The anchor of {facts.at} names {facts.chains} chains of {facts.namespace}; its signature is good."
    if public_key is None:
        told += f"\nIt names its own key: compare {facts.public_key} with yours, or give yours with --public-key."
    complain(told)


def _contained(session: Session, anchor: Path) -> Verification | None:
    """Whether the server's chains still contain every head of the anchor."""
    found: Verification | None = None
    with anchor.open(encoding="utf-8") as lines:
        heads = _heads(lines)
        while some := list(islice(heads, _HEADS)):
            wanted = [ChainHead(workflow_id=name, seq=head.seq, hash=head.hash.hex()) for name, head in some]
            answer = session.client.contains_heads(wanted)
            # These chains are counted by the check of the whole trail.
            found = calls.together(found, answer.model_copy(update={"chains": 0}))
    return found


def _heads(lines: Iterable[str]) -> Iterator[tuple[str, Head]]:
    from orchestrator.core.anchors import anchored_heads

    return anchored_heads(lines)


def _verified_file(file: Path, anchor: Path | None) -> Verification:
    from orchestrator.core.audit import check_export, read_export

    anchored: dict[str, Head] = {}
    if anchor is not None:
        with anchor.open(encoding="utf-8") as lines:
            anchored = dict(_heads(lines))
    chains = events = 0
    findings: list[AuditFinding] = []
    with file.open(encoding="utf-8") as lines:
        for check in check_export(read_export(lines), anchored):
            chains, events = chains + 1, events + check.events
            findings += [AuditFinding(workflow_id=f.workflow_id, seq=f.seq, detail=f.detail) for f in check.findings]
    return Verification(ok=not findings, chains=chains, events=events, findings=findings)


def _tell(output: Output, found: Verification) -> None:
    if output.as_json:
        output.json(found)
        return
    columns = [Column("CHAIN"), Column("EVENT"), Column("WHAT IS WRONG", fold=True)]
    if found.findings:
        output.rows(columns, [(one.workflow_id, one.seq, one.detail) for one in found.findings], "")
    told = "All of them verify." if found.ok else _count(found.findings)
    output.line(f"{found.chains} chains with {found.events} events were computed again. {told}")


def _count(findings: Sequence[AuditFinding]) -> str:
    return "One thing is wrong." if len(findings) == 1 else f"{len(findings)} things are wrong."


def _save(pieces: Iterable[bytes], file: Path | None) -> None:
    """Write to standard output, or to a file that gets its name when it is whole. What comes is ASCII."""
    if file is None:
        for piece in pieces:
            sys.stdout.write(piece.decode("ascii"))
        sys.stdout.flush()
        return
    building = file.with_name(f"{file.name}.part")
    try:
        with building.open("wb") as out:
            for piece in pieces:
                out.write(piece)
        building.replace(file)
    finally:
        building.unlink(missing_ok=True)


def _utc(at: datetime | None) -> datetime | None:
    return at and at.replace(tzinfo=UTC)
