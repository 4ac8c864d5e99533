"""Each call of the REST interface as a value; those of governance are in `governing`. Nothing is sent from here.

The sync and the async client share all of this, so neither repeats the other.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, TypedDict

from orchestrator.sdk.request import Call, get, path_of, post
from orchestrator.wire import (
    AnswerRequest,
    ApprovalRecord,
    ApproveRequest,
    AuditPage,
    CancelRequest,
    ChainHead,
    Changed,
    Decided,
    EventPage,
    ExplainRequest,
    Explanation,
    GraphView,
    HeadsRequest,
    KeyList,
    KeyRecord,
    KeyRequest,
    NewKey,
    PendingList,
    PeopleList,
    PersonRecord,
    PersonRequest,
    PolicyBookRecord,
    PolicyPublished,
    PolicyText,
    PolicyVersionList,
    Ready,
    RejectRequest,
    SimulateRequest,
    Simulation,
    SubmitRequest,
    Submitted,
    Until,
    Verification,
    VoteRequest,
    WorkflowPage,
    WorkflowRecord,
    WorkflowStatus,
)
from orchestrator.wire_progress import TaskList, TaskProgress

_VERIFY_SECONDS: Final = 60.0
Permission = Literal["submit", "read", "decide", "act_as", "admin", "audit"]


class SubmitOptions(TypedDict, total=False):
    """What a submission may carry besides its graph and input; `deadline` is the total time-out in seconds."""

    title: str
    case_id: str | None
    priority: int
    on_behalf_of: str | None
    launched_by: str | None
    mode: Literal["interactive", "autonomous"]
    deadline: float | None


class PageOptions(TypedDict, total=False):
    """Which workflows a list shows; `cursor` is the `next_cursor` of the page before."""

    status: str | None
    graph: str | None
    case_id: str | None
    risk: str | None
    q: str | None
    cursor: str | None
    limit: int


class PendingOptions(TypedDict, total=False):
    """Which approvals the queue shows; `mine` only what the caller could decide."""

    risk: str | None
    route: str | None
    role: str | None
    mine: bool
    limit: int


class DecisionOptions(TypedDict, total=False):
    """Which approval a decision is for, and in whose place; `revision` and `digest` say what the voter has seen."""

    approval_id: str | None
    acting_for: str | None
    revision: int | None
    digest: str | None


class AuditOptions(TypedDict, total=False):
    """Which events a page of the audit trail shows; `after` is the `next_cursor` of the page before."""

    type: str | None
    actor: str | None
    after: str | None
    limit: int


def submit(
    graph: str, values: Mapping[str, object] | None, options: SubmitOptions, idempotency_key: str | None = None
) -> Call[Submitted]:
    """Submit a workflow. Without a key of yours it gets one, so that it may safely be sent again."""
    request = SubmitRequest(graph=graph, input=dict(values or {}), **options)
    return post("/workflows", Submitted, request, idempotency_key or uuid.uuid4().hex)


def page(options: PageOptions) -> Call[WorkflowPage]:
    """List workflows, newest first."""
    return get("/workflows", WorkflowPage, dict(**options))


def workflow(workflow_id: str) -> Call[WorkflowRecord]:
    """A workflow whole."""
    return get(path_of("workflows", workflow_id), WorkflowRecord)


def status(workflow_id: str) -> Call[WorkflowStatus]:
    """A workflow's short status."""
    return get(path_of("workflows", workflow_id, "status"), WorkflowStatus)


def cancel(workflow_id: str, reason: str) -> Call[Changed]:
    """Cancel a workflow."""
    return post(path_of("workflows", workflow_id, "cancel"), Changed, CancelRequest(reason=reason))


def retry(workflow_id: str) -> Call[Changed]:
    """Let a failed workflow go on."""
    return Call("POST", path_of("workflows", workflow_id, "retry"), Changed.model_validate_json)


def graph(workflow_id: str) -> Call[GraphView]:
    """A workflow's graph with the state of each node."""
    return get(path_of("workflows", workflow_id, "graph"), GraphView, {"format": "json"})


def progress(workflow_id: str) -> Call[TaskProgress]:
    """How far a workflow is."""
    return get(path_of("workflows", workflow_id, "progress"), TaskProgress)


def tasks() -> Call[TaskList]:
    """The caller's live view."""
    return get(path_of("tasks"), TaskList)


def drawing(workflow_id: str, picture: Literal["mermaid", "svg"]) -> Call[str]:
    """A workflow's graph as text of that format."""
    return Call("GET", path_of("workflows", workflow_id, "graph"), bytes.decode, {"format": picture})


def events(workflow_id: str, after: int, limit: int) -> Call[EventPage]:
    """A page of a workflow's events."""
    return get(path_of("workflows", workflow_id, "events"), EventPage, {"after": after, "limit": limit})


def pending(options: PendingOptions) -> Call[PendingList]:
    """The approval queue."""
    return get("/workflows/pending", PendingList, dict(**options))


def approval(approval_id: str) -> Call[ApprovalRecord]:
    """An approval whole."""
    return get(path_of("approvals", approval_id), ApprovalRecord)


def approve(
    workflow_id: str, justification: str, options: DecisionOptions, idempotency_key: str | None
) -> Call[Decided]:
    """Vote for a workflow's pending approval."""
    request = ApproveRequest(justification=justification, **options)
    return post(path_of("workflows", workflow_id, "approve"), Decided, request, idempotency_key)


def reject(workflow_id: str, reason: str, options: DecisionOptions, idempotency_key: str | None) -> Call[Decided]:
    """Vote against a workflow's pending approval."""
    request = RejectRequest(reason=reason, **options)
    return post(path_of("workflows", workflow_id, "reject"), Decided, request, idempotency_key)


def vote(approval_id: str, request: VoteRequest, idempotency_key: str | None) -> Call[Decided]:
    """Vote on an approval by its own id."""
    return post(path_of("approvals", approval_id, "votes"), Decided, request, idempotency_key)


def answer(approval_id: str, value: object, idempotency_key: str | None) -> Call[Decided]:
    """Answer a question."""
    return post(path_of("approvals", approval_id, "answer"), Decided, AnswerRequest(answer=value), idempotency_key)


def explain_approval(approval_id: str, person: str | None) -> Call[Explanation]:
    """Why an approval is needed, and why `person` cannot decide it."""
    return get(path_of("approvals", approval_id, "explain"), Explanation, {"person": person})


def explain_action(request: ExplainRequest) -> Call[Explanation]:
    """What the rules would say of an action. Nothing is written, so it may be sent again."""
    return post("/policy/explain", Explanation, request)


def publish_policies(request: PolicyText) -> Call[PolicyPublished]:
    """Publish a policy file. The same text again changes nothing."""
    return post("/policy/publish", PolicyPublished, request)


def simulate_policies(request: SimulateRequest) -> Call[Simulation]:
    """What a policy file would have changed. Nothing is written, so it may be sent again."""
    return post("/policy/simulate", Simulation, request)


def policy_versions() -> Call[PolicyVersionList]:
    """What was published, newest first."""
    return get("/policy/versions", PolicyVersionList)


def policy_version(version: int) -> Call[PolicyBookRecord]:
    """One publication with its text."""
    return get(path_of("policy", "versions", str(version)), PolicyBookRecord)


def put_person(person: str, name: str, email: str | None, roles: Sequence[str]) -> Call[PersonRecord]:
    """Create or replace a person."""
    return post("/people", PersonRecord, PersonRequest(person=person, name=name, email=email, roles=list(roles)))


def people() -> Call[list[PersonRecord]]:
    """Everybody of the namespace."""
    return Call("GET", "/people", lambda content: list(PeopleList.model_validate_json(content).people))


def create_key(
    person: str, permissions: Sequence[Permission], label: str, expires_in: timedelta | None
) -> Call[NewKey]:
    """A new key of a person."""
    seconds = None if expires_in is None else expires_in.total_seconds()
    request = KeyRequest(person=person, permissions=list(permissions), label=label, expires_in=seconds)
    return post("/keys", NewKey, request)


def keys() -> Call[list[KeyRecord]]:
    """The namespace's keys."""
    return Call("GET", "/keys", lambda content: list(KeyList.model_validate_json(content).keys))


def revoke_key(key_id: str) -> Call[KeyRecord]:
    """End a key."""
    return Call("DELETE", path_of("keys", key_id), KeyRecord.model_validate_json)


def ready() -> Call[Ready]:
    """Whether the server can take work; a server that cannot answers 503 with the same body."""
    return Call("GET", "/readyz", Ready.model_validate_json, answers=frozenset({503}))


def events_path(workflow_id: str) -> str:
    """Where a workflow's events are streamed from."""
    return path_of("workflows", workflow_id, "events")


def wait(workflow_id: str, until: Until, seconds: float) -> Call[WorkflowStatus]:
    """The status as soon as the workflow is there, or after so many seconds."""
    params = {"until": until, "timeout": f"{seconds:.3f}"}
    path = path_of("workflows", workflow_id, "wait")
    return Call("GET", path, WorkflowStatus.model_validate_json, params, seconds=seconds)


def audit(options: AuditOptions) -> Call[AuditPage]:
    """A page of the audit trail."""
    return get("/audit", AuditPage, dict(**options))


def verify_audit(after: str | None) -> Call[Verification]:
    """Check chains from a cursor on."""
    found = Verification.model_validate_json
    return Call("GET", "/audit/verify", found, {"after": after}, seconds=_VERIFY_SECONDS)


def contains_heads(heads: Sequence[ChainHead]) -> Call[Verification]:
    """Whether the chains still contain these heads."""
    return post("/audit/verify", Verification, HeadsRequest(heads=heads))


def together(one: Verification | None, other: Verification) -> Verification:
    """What two calls have checked, as one answer."""
    if one is None:
        return other
    return Verification(
        ok=one.ok and other.ok,
        chains=one.chains + other.chains,
        events=one.events + other.events,
        findings=[*one.findings, *other.findings],
        next_cursor=other.next_cursor,
    )


def export_audit(since: datetime | None, until: datetime | None, workflow_id: str | None) -> Call[bytes]:
    """The audit trail as lines of JSON; read it as a stream."""
    times = {name: None if at is None else at.isoformat() for name, at in (("since", since), ("until", until))}
    return Call("GET", "/audit/export", bytes, {**times, "workflow_id": workflow_id})


def anchor_audit() -> Call[bytes]:
    """The signed heads of all chains; read it as a stream."""
    return Call("GET", "/audit/anchor", bytes)
