"""`edit`, `withdraw`, `break-glass`, `review`, `batch`, `link`: what is done with a request besides deciding it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from pydantic import ValidationError

from orchestrator.cli.credentials import UsageError
from orchestrator.cli.decisions import Revision, approval_of, show_decided
from orchestrator.cli.durations import parse_duration
from orchestrator.cli.output import Column, Output, complain
from orchestrator.cli.session import NAME_ONE, REFUSED, AsJson, Profile, Session, Url, connect, show_choices
from orchestrator.cli.workflows import assign, read_input
from orchestrator.wire import BatchItem, BatchResult, BatchResults, Edited, Json

app = typer.Typer()
Subject = Annotated[str, typer.Argument(help="An approval's or a workflow's id", metavar="ID")]
_OK: Final = 200
# So many the server takes at once.
_AT_ONCE: Final = 100


@app.command()
def edit(
    subject: Subject,
    *,
    action: Annotated[
        str | None, typer.Option(help="The whole action as JSON, `@file`, or `-` for standard input", metavar="JSON")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="One field of the present action, dots lead inward: `arguments.version=v2`"),
    ] = None,
    justification: Annotated[str, typer.Option("--justification", "--reason", help="Why it is changed")] = "",
    revision: Revision = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Change what is asked for: all votes are void, it is judged anew, and you cannot approve it."""
    with connect(url, profile, as_json=as_json) as session:
        if action is None and not assignments:
            raise UsageError("say what to change: one field with --set, or the whole action with --action")
        approval_id = approval_of(session, subject)
        if action is None:
            present = session.client.approval(approval_id)
            content: Json = json.loads(json.dumps(present.action or {}))
            # What is changed is what was read: not what somebody else makes of it meanwhile.
            revision = present.revision if revision is None else revision
        else:
            content = read_input(action, [], "--action")
        for assignment in assignments or []:
            assign(content, assignment)
        _show_edited(
            session.output,
            session.client.edit(approval_id, content, justification=justification, revision=revision),
        )


def _show_edited(output: Output, edited: Edited) -> None:
    if output.as_json:
        output.json(edited)
        return
    output.facts(
        (str(one["path"]), f"{_value(one.get('before'))} -> {_value(one.get('after'))}") for one in edited.changes
    )
    became = "it waits for votes anew" if edited.state == "pending" else f"it is {edited.state}"
    output.line(f"{edited.workflow_id}: revision {edited.revision}, {edited.risk_level} risk; {became}")


def _value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@app.command()
def withdraw(
    subject: Subject,
    *,
    reason: Annotated[str, typer.Option(help="Why")] = "",
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Take back what you asked for; its workflow ends with it."""
    with connect(url, profile, as_json=as_json) as session:
        client = session.client
        end = client.withdraw_workflow if subject.startswith("wf-") else client.withdraw
        show_decided(session.output, end(subject, reason))


@app.command("break-glass")
def break_glass(
    subject: Subject,
    *,
    justification: Annotated[str, typer.Option("--justification", "--reason", help="Why it cannot wait")],
    revision: Revision = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Run at once what others have not approved, through a freeze too; a review is owed for it."""
    with connect(url, profile, as_json=as_json) as session:
        approval_id = approval_of(session, subject)
        show_decided(session.output, session.client.break_glass(approval_id, justification, revision=revision))


@app.command()
def review(
    subject: Subject,
    *,
    note: Annotated[str, typer.Option(help="What you found")],
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Review what somebody ran by break-glass."""
    with connect(url, profile, as_json=as_json) as session:
        show_decided(session.output, session.client.review(_owing(session, subject), note))


def _owing(session: Session, subject: str) -> str:
    """The approval that an id means: its own, or the one of a workflow whose review is owed."""
    if not subject.startswith("wf-"):
        return subject
    broken = [one for one in session.client.status(subject).approvals if one.review_by is not None]
    owed = [one for one in broken if one.reviewed_by is None] or broken[-1:]
    if len(owed) == 1:
        return owed[0].approval_id
    if owed:
        show_choices(session.output, [one.model_dump() for one in owed], NAME_ONE)
    else:
        complain(f"nobody broke the glass for {subject}")
    raise typer.Exit(REFUSED)


@app.command()
def batch(
    file: Annotated[
        str, typer.Argument(help="Lines of JSON, one decision each; `-` is standard input", metavar="[FILE]")
    ] = "-",
    *,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Decide many requests, each judged alone; exit 1 when any is refused."""
    with connect(url, profile, as_json=as_json) as session:
        decisions = list(_decisions(file))
        if not decisions:
            raise UsageError(f"{file}: there is no decision; write one a line, as JSON")
        results: list[BatchResult] = []
        for first in range(0, len(decisions), _AT_ONCE):
            results += session.client.batch(decisions[first : first + _AT_ONCE]).results
        _show_results(session.output, results)
        if any(one.status != _OK for one in results):
            raise typer.Exit(REFUSED)


def _decisions(file: str) -> Iterator[BatchItem]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield BatchItem.model_validate_json(line)
            except ValidationError as error:
                told = "; ".join(": ".join([*map(str, one["loc"]), one["msg"]]) for one in error.errors())
                raise UsageError(f"{file}, line {number}: {told}") from None


def _show_results(output: Output, results: Sequence[BatchResult]) -> None:
    if output.as_json:
        output.json(BatchResults(results=results))
        return
    rows = [(one.approval_id, one.status, one.code, one.state or one.detail) for one in results]
    columns = [Column("APPROVAL"), Column("HTTP"), Column("CODE"), Column("TOLD", fold=True)]
    output.rows(columns, rows, "")


@app.command()
def link(
    subject: Subject,
    person: Annotated[str, typer.Argument(help="Who is to decide by it; for anybody but you it needs `admin`")],
    *,
    verdict: Annotated[Literal["approve", "reject"], typer.Option(help="What it decides")] = "approve",
    expires_in: Annotated[
        timedelta, typer.Option(help="How long it is good for, at most 7d", parser=parse_duration, metavar="TIME")
    ] = timedelta(days=1),
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Make a link by which a person decides this once."""
    with connect(url, profile, as_json=as_json) as session:
        made = session.client.link(approval_of(session, subject), person, verdict, expires_in=expires_in)
        session.output.json(made) if as_json else session.output.line(made.url)
