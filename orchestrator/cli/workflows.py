"""`submit`, `list`, `status`, `cancel`, `retry`, `graph`, `events`, `watch`: workflows on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal, cast

import typer

from orchestrator.cli.credentials import UsageError
from orchestrator.cli.durations import parse_duration
from orchestrator.cli.output import Column, Output, ago, needs
from orchestrator.cli.session import REFUSED, AsJson, Profile, Session, Url, WorkflowId, connect
from orchestrator.cli.watching import event_line, task_cells, watch_case, watch_workflow
from orchestrator.sdk.calls import SubmitOptions
from orchestrator.wire import ApprovalRecord, Json, VoteRecord, WorkflowStatus

app = typer.Typer()
_EXPLAINED: Final = 10


@app.command()
def submit(
    graph: Annotated[str, typer.Argument(help="The graph's name")],
    *,
    values: Annotated[
        str, typer.Option("--input", "-i", help="The input as JSON, `@file`, or `-` for standard input", metavar="JSON")
    ] = "{}",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="One field of the input, dots lead inward: `parameters.table=log`"),
    ] = None,
    title: Annotated[str, typer.Option(help="What people will read")] = "",
    case_id: Annotated[str | None, typer.Option(help="The case this belongs to")] = None,
    priority: Annotated[int, typer.Option(help="Higher first", min=-100, max=100)] = 0,
    on_behalf_of: Annotated[str | None, typer.Option(help="Who wants this done")] = None,
    mode: Annotated[
        Literal["interactive", "autonomous"], typer.Option(help="Whether it may ask questions")
    ] = "interactive",
    deadline: Annotated[
        timedelta | None,
        typer.Option(help="The total time it may take, such as 2h", parser=parse_duration, metavar="TIME"),
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Sent again with the same key, it is not done again")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Watch until it has finished; exit 1 unless it completed")
    ] = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Submit a workflow."""
    with connect(url, profile, as_json=as_json) as session:
        options = SubmitOptions(
            title=title,
            case_id=case_id,
            priority=priority,
            on_behalf_of=on_behalf_of,
            mode=mode,
            deadline=None if deadline is None else deadline.total_seconds(),
        )
        content = read_input(values, assignments or [])
        submitted = session.client.submit(graph, content, idempotency_key=idempotency_key, **options)
        if wait:
            _finish(session, submitted.workflow_id)
        elif as_json:
            session.output.json(submitted)
        else:
            session.output.line(submitted.workflow_id)


@app.command("list")
def list_workflows(
    *,
    status: Annotated[str | None, typer.Option(help="Only those in this status")] = None,
    graph: Annotated[str | None, typer.Option(help="Only those of this graph")] = None,
    case_id: Annotated[str | None, typer.Option(help="Only those of this case")] = None,
    risk: Annotated[str | None, typer.Option(help="Only those of this risk level")] = None,
    query: Annotated[
        str | None, typer.Option("--query", "-q", help="Only those whose title or id has this text")
    ] = None,
    cursor: Annotated[str | None, typer.Option(help="`next_cursor` of the page before")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """List workflows, newest first."""
    with connect(url, profile, as_json=as_json) as session:
        page = session.client.workflows(
            status=status, graph=graph, case_id=case_id, risk=risk, q=query, cursor=cursor, limit=limit
        )
        if as_json:
            session.output.json(page)
            return
        rows = [
            (
                one.workflow_id,
                one.status,
                one.risk_level,
                one.graph,
                one.title,
                one.requester,
                _when(session, one.created_at),
            )
            for one in page.workflows
        ]
        columns = [Column("WORKFLOW"), Column("STATUS"), Column("RISK"), Column("GRAPH"), Column("TITLE", fold=True),
                   Column("BY"), Column("SUBMITTED")]  # fmt: skip
        session.output.rows(columns, rows, "There are no such workflows.")
        if page.next_cursor and session.output.terminal:
            session.output.line(f"More: --cursor {page.next_cursor}")


@app.command()
def status(workflow_id: WorkflowId, *, url: Url = None, profile: Profile = None, as_json: AsJson = False) -> None:
    """Show a workflow's status, its approvals and its latest events."""
    with connect(url, profile, as_json=as_json) as session:
        found = session.client.status(workflow_id)
        if as_json:
            session.output.json(found)
        else:
            show_status(session.output, found, _deciders(session, found))


def _deciders(session: Session, found: WorkflowStatus) -> Mapping[str, Sequence[str]]:
    """Who can still decide each request that waits; of a great many only the first."""
    waiting = [one.approval_id for one in found.approvals if one.state == "pending" and one.kind == "approval"]
    return {one: session.client.explain(one).can_decide for one in waiting[:_EXPLAINED]}


@app.command()
def watch(
    workflow_id: Annotated[str | None, typer.Argument(help="The workflow's id", metavar="WORKFLOW_ID")] = None,
    *,
    case: Annotated[
        str | None, typer.Option(help="Follow a case instead, until interrupted", metavar="CASE_ID")
    ] = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Follow a workflow until it has finished; exit 1 unless it completed."""
    if (workflow_id is None) == (case is None):
        both = "either a workflow or a case with --case, not both"
        raise typer.BadParameter("name a workflow, or a case with --case" if case is None else f"name {both}")
    with connect(url, profile, as_json=as_json) as session:
        if workflow_id is not None:
            _finish(session, workflow_id)
        elif case is not None:
            watch_case(session, case)


@app.command()
def tasks(*, url: Url = None, profile: Profile = None, as_json: AsJson = False) -> None:
    """Show how far your own long tasks are, and those that ended lately."""
    with connect(url, profile, as_json=as_json) as session:
        found = session.client.tasks()
        if as_json:
            session.output.json(found)
            return
        columns = [Column("WORKFLOW"), Column("STATE"), Column("DONE"), Column("LEFT"), Column("TITLE", fold=True),
                   Column("SAYS", fold=True)]  # fmt: skip
        session.output.rows(columns, [task_cells(task) for task in found.tasks], "You have no tasks now.")
        if found.more and session.output.terminal:
            session.output.line(f"And {found.more} more: keyturn list")


@app.command()
def cancel(
    workflow_id: WorkflowId,
    *,
    reason: Annotated[str, typer.Option(help="Why")] = "",
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a workflow that is queued, running or waiting."""
    with connect(url, profile, as_json=as_json) as session:
        changed = session.client.cancel(workflow_id, reason)
        session.output.json(changed) if as_json else session.output.line(f"{changed.workflow_id} is {changed.status}")


@app.command()
def retry(workflow_id: WorkflowId, *, url: Url = None, profile: Profile = None, as_json: AsJson = False) -> None:
    """Let a failed workflow go on from its last checkpoint."""
    with connect(url, profile, as_json=as_json) as session:
        changed = session.client.retry(workflow_id)
        session.output.json(changed) if as_json else session.output.line(f"{changed.workflow_id} is {changed.status}")


@app.command()
def graph(
    workflow_id: WorkflowId,
    *,
    picture: Annotated[Literal["mermaid", "svg", "json"], typer.Option("--format", help="How to draw it")] = "mermaid",
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Draw a workflow's graph, with where it stands."""
    with connect(url, profile, as_json=as_json) as session:
        if as_json or picture == "json":
            session.output.json(session.client.graph(workflow_id))
        else:
            session.output.text(session.client.drawing(workflow_id, picture))


@app.command()
def events(
    workflow_id: WorkflowId,
    *,
    after: Annotated[int, typer.Option(help="Only events after this number", min=0)] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the workflow has finished")] = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Print a workflow's events, one a line."""
    with connect(url, profile, as_json=as_json) as session:
        if follow:
            for event in session.client.follow(workflow_id, after=after):
                session.output.json(event) if as_json else session.output.line(event_line(event))
            return
        page = session.client.events(workflow_id, after, 1000)
        if as_json:
            session.output.json(page)
        else:
            for event in page.events:
                session.output.line(event_line(event))


def read_input(values: str, assignments: list[str], option: str = "--input") -> Json:
    """A JSON object from the options that say what is in it; raises UsageError."""
    text = values
    if values == "-":
        text = sys.stdin.read()
    elif values.startswith("@"):
        try:
            text = Path(values[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{option} {values}: {error.strerror}") from None
    try:
        content: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{option} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f'{option}: a JSON object is needed, such as {{"table": "log"}}')
    result = cast("Json", content)
    for assignment in assignments:
        assign(result, assignment)
    return result


def json_or_text(text: str) -> object:
    """`text` as JSON when it is that, as it is otherwise."""
    try:
        return cast("object", json.loads(text))
    except json.JSONDecodeError:
        return text


def assign(content: Json, assignment: str) -> None:
    """Set one field as `--set` says; raises UsageError."""
    name, sign, value = assignment.partition("=")
    if not sign or not name:
        raise UsageError(f"--set {assignment}: write NAME=VALUE")
    *outer, last = name.split(".")
    inner = content
    for part in outer:
        found = inner.setdefault(part, {})
        if not isinstance(found, dict):
            raise UsageError(f"--set {assignment}: {part} is not an object")
        inner = cast("Json", found)
    inner[last] = json_or_text(value)


def _finish(session: Session, workflow_id: str) -> None:
    ended = watch_workflow(session, workflow_id)
    if ended.status != "completed":
        raise typer.Exit(REFUSED)


def _when(session: Session, at: object) -> object:
    return ago(at) if session.output.terminal else at  # pyright: ignore[reportArgumentType]


def show_status(
    output: Output, found: WorkflowStatus, deciders: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> None:
    """A status for people; `deciders` are those who can decide an approval, by its id."""
    output.facts(
        [
            ("workflow", found.workflow_id),
            ("title", found.title),
            ("graph", found.graph),
            ("status", found.status),
            ("reason", found.reason),
            ("note", found.note),
            ("risk", found.risk_level),
            ("at", found.node),
            ("case", found.case_id),
            ("requester", found.requester),
            ("submitted", found.created_at.isoformat(timespec="seconds")),
            ("finished", found.finished_at.isoformat(timespec="seconds") if found.finished_at else None),
            ("error", json.dumps(found.error, ensure_ascii=False) if found.error else None),
        ]
    )
    for approval in found.approvals:
        output.line()
        output.facts(_approval_facts(approval, deciders.get(approval.approval_id, ())))
    if found.history:
        output.line()
    for event in found.history:
        output.line(event_line(event))


def _asked_facts(approval: ApprovalRecord) -> list[tuple[str, object]]:
    """What would run, or what is asked, whole: somebody is to decide about exactly this."""
    asked = {**(approval.action or {}), **(approval.question or {})}
    told = [(name.replace("_", " "), value) for name, value in asked.items() if value not in (None, "", [], {})]
    facts: list[tuple[str, object]] = [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)) for name, value in told
    ]
    if approval.kind == "question":
        facts.append(("answer with", f"keyturn answer {approval.workflow_id} ANSWER"))
    return facts


def _approval_facts(approval: ApprovalRecord, deciders: Sequence[str]) -> list[tuple[str, object]]:
    pending = approval.state == "pending"
    voided = {(one.get("person"), one.get("revision")): one.get("reason") for one in approval.void}
    reasons = " ".join(str(reason.get("text") or reason.get("rule")) for reason in approval.reasons)
    return [
        ("approval", approval.approval_id),
        ("state", approval.state),
        ("what", approval.description),
        ("risk", approval.risk_level),
        ("because", reasons),
        ("flags", ", ".join(approval.flags)),
        ("revision", approval.revision if approval.revision > 1 else None),
        ("edited by", approval.last_editor),
        ("approvers", " or ".join(approval.approvers)),
        *needs(approval.stages),
        ("can decide", ", ".join(deciders)),
        *(_asked_facts(approval) if pending else []),
        ("due", approval.due_at.isoformat(timespec="seconds") if pending else None),
        ("expires", approval.expires_at.isoformat(timespec="seconds") if pending else None),
        *(("approved", f"{name} as {role}") for name, role in approval.filled.items()),
        ("decided by", approval.resolved_by),
        ("bypassed", ", ".join(approval.bypassed)),
        ("review by", _review_due(approval)),
        ("reviewed by", approval.reviewed_by),
        *(("vote", _vote(vote, voided.get((vote.voter, vote.revision)))) for vote in approval.votes),
    ]


def _review_due(approval: ApprovalRecord) -> str | None:
    due = approval.review_by if approval.reviewed_by is None else None
    return due and due.isoformat(timespec="seconds")


def _vote(vote: VoteRecord, void: object) -> str:
    whose = f" for {vote.acting_for}" if vote.acting_for else ""
    return f"{vote.verdict} by {vote.voter}{whose}{f' (void: {void})' if void else ''}: {vote.justification}".rstrip(
        ": "
    )
