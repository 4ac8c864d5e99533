"""`session start|send|show|list|end`: conversations with a graph on the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Literal, cast

import typer

from orchestrator.cli.credentials import UsageError
from orchestrator.cli.durations import parse_duration
from orchestrator.cli.output import Column, Output, ago, safe
from orchestrator.cli.session import AsJson, Profile, Session, Url, connect
from orchestrator.cli.workflows import json_or_text, read_input
from orchestrator.sdk.sessions import SessionOptions
from orchestrator.wire import PendingApproval
from orchestrator.wire_sessions import SessionHistory, SessionMessage, SessionRecord

session_app = typer.Typer(no_args_is_help=True, help="Conversations with a graph")
SessionId = Annotated[str, typer.Argument(help="The session's id", metavar="SESSION_ID")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for what comes of it")]
_WAIT_SECONDS = 300.0


@session_app.command()
def start(
    graph: Annotated[str, typer.Argument(help="The graph's name")],
    message: Annotated[str | None, typer.Argument(help="What to say first")] = None,
    *,
    values: Annotated[
        str | None, typer.Option("--input", "-i", help="A whole input as JSON, `@file`, or `-`", metavar="JSON")
    ] = None,
    mode: Annotated[
        Literal["interactive", "autonomous"], typer.Option(help="Whether it may ask questions")
    ] = "interactive",
    title: Annotated[str, typer.Option(help="What people will read")] = "",
    case_id: Annotated[str | None, typer.Option(help="The case this belongs to")] = None,
    idle: Annotated[
        timedelta | None,
        typer.Option(help="It ends when nothing was done for so long, such as 10m", parser=parse_duration),
    ] = None,
    no_wait: NoWait = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Begin a session."""
    with connect(url, profile, as_json=as_json) as session:
        options = SessionOptions(mode=mode, title=title, case_id=case_id)
        if message is not None:
            options["message"] = message
        if values is not None:
            if message is not None:
                raise UsageError("say a message or give --input, not both")
            options["input"] = read_input(values, [])
        if idle is not None:
            options["idle_seconds"] = idle.total_seconds()
        started = session.client.create_session(graph, **options)
        if not as_json:
            session.output.line(started.session_id)
        if started.workflow_id is not None and not no_wait:
            _outcome(session, started.session_id, started.workflow_id)
        elif as_json:
            session.output.json(started)


@session_app.command()
def send(
    session_id: SessionId,
    message: Annotated[str, typer.Argument(help="What to say; an answer that is to be no text, as JSON")],
    *,
    approval_id: Annotated[str | None, typer.Option("--approval-id", help="Which question it answers")] = None,
    no_wait: NoWait = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Say something: it answers the question that waits, else it begins the next run."""
    with connect(url, profile, as_json=as_json) as session:
        asked = session.client.session(session_id).pending
        content = _content(message, asked, approval_id)
        taken = session.client.say(session_id, content, approval_id=approval_id)
        if no_wait:
            session.output.json(taken) if as_json else session.output.line(f"{taken.did}: {taken.workflow_id}")
        else:
            _outcome(session, session_id, taken.workflow_id)


def _content(message: str, asked: Sequence[PendingApproval], approval_id: str | None) -> object:
    """A text, unless the question that is meant wants something else."""
    meant = [one for one in asked if one.kind == "question" and approval_id in (None, one.approval_id)]
    question = (meant[0].question or {}) if len(meant) == 1 else {}
    kind = cast("Mapping[str, object]", question.get("schema") or {}).get("type", "string")
    if kind == "string":
        return message
    yes_no = {"yes": True, "no": False} if kind == "boolean" else {}
    return yes_no.get(message.lower(), json_or_text(message))


def _history(session: Session, session_id: str, after: str | None) -> list[SessionMessage]:
    found: list[SessionMessage] = []
    more = True
    while more:
        page: SessionHistory = session.client.messages(session_id, after, 200)
        found += page.messages
        more, after = page.more and bool(page.messages), found[-1].id if found else after
    return found


def _outcome(session: Session, session_id: str, workflow_id: str) -> None:
    """Wait until the run has ended or asks something, and tell what has come of what was said last."""
    session.client.wait(workflow_id, _WAIT_SECONDS)
    # The run's entries begin behind the first number there could be.
    record, entries = session.client.session(session_id), _history(session, session_id, f"{workflow_id}.0")
    said = max((n for n, one in enumerate(entries) if one.type in ("message", "answer")), default=-1)
    _show(session.output, record, entries[said + 1 :])


def _show(output: Output, record: SessionRecord, entries: Sequence[SessionMessage]) -> None:
    if output.as_json:
        output.json({**record.model_dump(mode="json"), "messages": [one.model_dump(mode="json") for one in entries]})
        return
    for one in entries:
        output.line(_line(one))
    for asked in record.pending:
        how = f"keyturn session send {record.session_id} … --approval-id {asked.approval_id}"
        if asked.kind == "approval":
            how = f"keyturn approve {asked.workflow_id} --approval-id {asked.approval_id}"
        output.line(f"waits: {safe(asked.description)}   {how}")
    if record.note:
        output.line(record.note)


def _line(one: SessionMessage) -> str:
    content = one.content if isinstance(one.content, str) else json.dumps(one.content, ensure_ascii=False)
    by = one.by if one.role == "user" else one.role
    return f"{safe(by)} {one.type}: {safe(content)}"


@session_app.command()
def show(session_id: SessionId, *, url: Url = None, profile: Profile = None, as_json: AsJson = False) -> None:
    """Show a session and its history."""
    with connect(url, profile, as_json=as_json) as session:
        record, entries = session.client.session(session_id), _history(session, session_id, None)
        if not as_json:
            names = (
                "session_id",
                "state",
                "graph",
                "mode",
                "title",
                "person",
                "workflow_id",
                "ends_at",
                "ended_reason",
            )
            session.output.facts((name, getattr(record, name)) for name in names)
        _show(session.output, record, entries)


@session_app.command("list")
def list_sessions(
    *,
    all_: Annotated[bool, typer.Option("--all", help="Also those that have ended")] = False,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """List your sessions: those that are open, newest first."""
    with connect(url, profile, as_json=as_json) as session:
        page = session.client.sessions(ended=all_, limit=200)
        if as_json:
            session.output.json(page)
            return
        rows = [
            (one.session_id, one.state, one.graph, one.title, ago(one.last_activity) if session.output.terminal
             else one.last_activity.isoformat(timespec="seconds")) for one in page.sessions
        ]  # fmt: skip
        names = ("SESSION", "STATE", "GRAPH", "TITLE", "LAST ACTIVITY")
        session.output.rows([Column(name, fold=name == "TITLE") for name in names], rows, "There is no open session.")


@session_app.command()
def end(
    session_id: SessionId,
    *,
    reason: Annotated[str, typer.Option(help="Why")] = "",
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """End a session; what it runs or asks is cancelled."""
    with connect(url, profile, as_json=as_json) as session:
        ended = session.client.end_session(session_id, reason)
        session.output.json(ended) if as_json else session.output.line(f"{ended.session_id}: {ended.state}")
