"""`list-pending`, `approve`, `reject`, `answer`, `explain`: decisions on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

import typer

from orchestrator.cli.credentials import UsageError
from orchestrator.cli.output import Column, Output, ago, complain, needs
from orchestrator.cli.session import (
    CHOOSE,
    NAME_ONE,
    REFUSED,
    ApprovalId,
    AsJson,
    Profile,
    Session,
    Url,
    WorkflowId,
    connect,
    show_choices,
)
from orchestrator.cli.workflows import json_or_text, read_input
from orchestrator.sdk.calls import DecisionOptions
from orchestrator.wire import ApprovalRecord, Decided, ExplainRequest, Explanation, PendingApproval

app = typer.Typer()
Key = Annotated[
    str | None, typer.Option("--idempotency-key", help="Sent again with the same key, nothing more happens")
]
ActingFor = Annotated[
    str | None, typer.Option("--acting-for", help="In whose place you decide, if they have asked you to")
]
Revision = Annotated[int | None, typer.Option("--revision", help="The revision you looked at")]


@app.command("list-pending")
def list_pending(
    *,
    risk: Annotated[str | None, typer.Option(help="Only this risk level")] = None,
    route: Annotated[str | None, typer.Option(help="Only this route: QUICK or FULL")] = None,
    role: Annotated[str | None, typer.Option(help="Only what this role may decide")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only what you may decide")] = False,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """List what waits for a decision: urgent first, then by due time."""
    with connect(url, profile, as_json=as_json) as session:
        found = session.client.pending(risk=risk, route=route, role=role, mine=mine, limit=limit)
        output = session.output
        if as_json:
            output.json(found)
            return
        rows = [
            (
                one.workflow_id,
                one.approval_id,
                one.risk_level,
                one.description or one.title or one.node,
                one.requested_by,
                _who(one),
                f"{'overdue, ' if one.overdue else ''}{ago(one.due_at)}" if output.terminal else one.due_at.isoformat(),
            )
            for one in found.workflows
        ]
        if output.terminal:
            # The approval's id is needed only where a workflow has several.
            rows = [(one[0], *one[2:]) for one in rows]
        names = ["WORKFLOW", *([] if output.terminal else ["APPROVAL"]), "RISK", "WHAT", "BY", "NEEDS", "DUE"]
        output.rows(
            [Column(name, fold=name in ("WHAT", "NEEDS")) for name in names], rows, "Nothing waits for a decision."
        )


def _who(one: PendingApproval) -> str:
    """Whose decision a request needs, and what is unusual about it."""
    flags = f" ({', '.join(one.flags)})" if one.flags else ""
    return f"{' or '.join(one.approvers) or one.kind}{flags}"


@app.command()
def approve(
    workflow_id: WorkflowId,
    *,
    approval_id: ApprovalId = None,
    justification: Annotated[str, typer.Option("--justification", "--reason", help="Why it may run")] = "",
    acting_for: ActingFor = None,
    revision: Revision = None,
    idempotency_key: Key = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Approve what a workflow waits for."""
    with connect(url, profile, as_json=as_json) as session:
        options = _seen(session, workflow_id, approval_id, revision)
        options["acting_for"] = acting_for
        decided = session.client.approve(workflow_id, justification, idempotency_key=idempotency_key, **options)
        show_decided(session.output, decided)


@app.command()
def reject(
    workflow_id: WorkflowId,
    *,
    approval_id: ApprovalId = None,
    reason: Annotated[str, typer.Option("--reason", "--justification", help="Why it may not run")] = "",
    acting_for: ActingFor = None,
    revision: Revision = None,
    idempotency_key: Key = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Reject what a workflow waits for."""
    with connect(url, profile, as_json=as_json) as session:
        options = _seen(session, workflow_id, approval_id, revision)
        options["acting_for"] = acting_for
        decided = session.client.reject(workflow_id, reason, idempotency_key=idempotency_key, **options)
        show_decided(session.output, decided)


def _seen(session: Session, workflow_id: str, approval_id: str | None, revision: int | None) -> DecisionOptions:
    """What is decided on: the request as it is now, named so that it is decided on as it is now or not at all. Where
    several are meant, or none, the server says so.
    """
    asked = session.client.status(workflow_id).approvals
    if approval_id is not None:
        meant = [one for one in asked if one.approval_id == approval_id]
    else:
        ended = [one for one in asked if one.resolved_at is not None]
        last = sorted(ended, key=lambda one: str(one.resolved_at))[-1:]
        meant = [one for one in asked if one.state == "pending"] or last
    if len(meant) != 1:
        return {"approval_id": approval_id, "revision": revision}
    (one,) = meant
    if revision not in (None, one.revision):
        # What they looked at is another revision, and has another digest.
        return {"approval_id": one.approval_id, "revision": revision}
    return {"approval_id": one.approval_id, "revision": one.revision, "digest": one.digest}


@app.command()
def answer(
    workflow_id: WorkflowId,
    value: Annotated[str, typer.Argument(help="The answer: JSON, or else text", metavar="ANSWER")],
    *,
    approval_id: ApprovalId = None,
    text: Annotated[bool, typer.Option("--text", help="Take the answer as text even if it could be JSON")] = False,
    idempotency_key: Key = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Answer the question that a workflow waits for."""
    with connect(url, profile, as_json=as_json) as session:
        asked = pending_one(session, workflow_id, approval_id)
        given = value if text else _answer(value, asked)
        show_decided(session.output, session.client.answer(asked.approval_id, given, idempotency_key=idempotency_key))


def _answer(value: str, asked: ApprovalRecord) -> object:
    """JSON, or else text; where a boolean is asked for, `yes` and `no` are one too."""
    schema = cast("Mapping[str, object]", (asked.question or {}).get("schema") or {})
    yes_no = {"yes": True, "no": False} if schema.get("type") == "boolean" else {}
    return yes_no.get(value.lower(), json_or_text(value))


@app.command()
def explain(
    subject: Annotated[str | None, typer.Argument(help="An approval's or a workflow's id", metavar="[ID]")] = None,
    *,
    action: Annotated[
        str | None, typer.Option(help="Instead of an id: an action as JSON, `@file` or `-`, for a dry run of the rules")
    ] = None,
    requester: Annotated[str | None, typer.Option(help="With --action: who would ask")] = None,
    confidence: Annotated[float | None, typer.Option(help="With --action: an agent's confidence, 0 to 100")] = None,
    person: Annotated[str | None, typer.Option(help="And why not this person?")] = None,
    url: Url = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Say why something needs approval, and who can give it."""
    with connect(url, profile, as_json=as_json) as session:
        if (subject is None) == (action is None):
            raise UsageError("give either an id, or an action with --action")
        if action is not None:
            content = read_input(action, [], "--action")
            request = ExplainRequest(action=content, requester=requester, confidence=confidence, person=person)
            found = session.client.explain_action(request)
        else:
            found = session.client.explain(approval_of(session, cast("str", subject)), person)
        if as_json:
            session.output.json(found)
        else:
            _show_explanation(session.output, found)


def approval_of(session: Session, subject: str) -> str:
    """The approval that an id means: its own, or the pending one of a workflow."""
    return pending_one(session, subject, how=NAME_ONE).approval_id if subject.startswith("wf-") else subject


def pending_one(
    session: Session, workflow_id: str, approval_id: str | None = None, *, how: str = CHOOSE
) -> ApprovalRecord:
    """The approval of this id, or the workflow's one pending one; else the choices are said and the command ends."""
    found = session.client.status(workflow_id)
    named = next((one for one in found.approvals if one.approval_id == approval_id), None)
    if named is not None:
        return named
    if approval_id is not None:
        complain(f"{workflow_id} has no approval {approval_id}")
        raise typer.Exit(REFUSED)
    waiting = [one for one in found.approvals if one.state == "pending"]
    if len(waiting) == 1:
        return waiting[0]
    if waiting:
        show_choices(session.output, [one.model_dump() for one in waiting], how)
        raise typer.Exit(REFUSED)
    ended = [one for one in found.approvals if one.resolved_at is not None]
    if ended:
        # What was decided last: the server says how, and who did it.
        return ended[-1]
    complain(f"{workflow_id} is {found.status} and waits for nothing")
    raise typer.Exit(REFUSED)


def show_decided(output: Output, decided: Decided) -> None:
    """What became of a decision."""
    if output.as_json:
        output.json(decided)
        return
    told = f"{decided.workflow_id}: {decided.state}"
    if decided.code == "recorded":
        told += "; the vote is counted, more are needed"
    elif decided.code == "replayed":
        told += "; it was decided so before"
    elif decided.code == "reviewed":
        told += "; the review is done"
    output.line(told)


def _show_explanation(output: Output, found: Explanation) -> None:
    output.facts(
        [
            ("risk", found.risk_level),
            ("route", found.route),
            ("policy", f"{found.policy} ({', '.join(found.policy_versions)})"),
            ("chosen as", found.policy_reason),
            ("frozen until", found.frozen_until),
            ("forbidden by", found.forbidden_by),
            *(("because", f"{reason.get('text')} [{reason.get('rule')}]") for reason in found.reasons),
            ("flags", ", ".join(found.flags)),
            *needs(found.stages),
            *(("approved", f"{name} as {role}") for name, role in found.filled.items()),
            ("can decide", ", ".join(found.can_decide)),
            *((f"not {name}", why) for name, why in found.why_not.items()),
        ]
    )
