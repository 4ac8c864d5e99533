"""Request and response models of the REST interface, shared by the API and the client.

Shapes only: what a field means and who may send it is decided below. Field names are the wire's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Json = dict[str, object]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=4000)]
# What a wait is for: that the workflow needs a person or has ended, or its end.
Until = Literal["settled", "ended"]


class Request(BaseModel):
    """Base of request bodies: unknown fields are refused, so that a typo never passes for consent."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Response(BaseModel):
    """Base of response bodies."""

    model_config = ConfigDict(frozen=True)


class SubmitRequest(Request):
    """`POST /workflows`. `deadline` is the total time-out in seconds; `priority` higher first, -100 to 100."""

    graph: Name
    input: Json = Field(default_factory=dict)
    title: Annotated[str, Field(max_length=500)] = ""
    case_id: Name | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    on_behalf_of: Name | None = None
    launched_by: Name | None = None
    mode: Literal["interactive", "autonomous"] = "interactive"
    deadline: Annotated[float, Field(gt=0, le=31_536_000)] | None = None


class ApproveRequest(Request):
    """`POST /workflows/{id}/approve`."""

    justification: Text = ""
    approved_by: Name | None = None
    revision: int | None = None
    approval_id: Name | None = None
    digest: str | None = None


class RejectRequest(Request):
    """`POST /workflows/{id}/reject`."""

    reason: Text = ""
    rejected_by: Name | None = None
    revision: int | None = None
    approval_id: Name | None = None
    digest: str | None = None


class VoteRequest(Request):
    """`POST /approvals/{id}/votes`: the same decision named by approval."""

    verdict: Literal["approve", "reject"]
    justification: Text = ""
    voter: Name | None = None
    revision: int | None = None
    digest: str | None = None


class AnswerRequest(Request):
    """`POST /approvals/{id}/answer`: any JSON value, checked against what the question accepts."""

    answer: object
    answered_by: Name | None = None


class CancelRequest(Request):
    """`POST /workflows/{id}/cancel`."""

    reason: Text = ""


class PersonRequest(Request):
    """`POST /people`: creates or replaces a person and the roles they hold."""

    person: Name
    name: Text = ""
    email: Annotated[str, Field(max_length=320)] | None = None
    roles: Sequence[Name] = ()


class KeyRequest(Request):
    """`POST /keys`: a new credential of a person. `expires_in` in seconds."""

    person: Name
    permissions: Sequence[Literal["submit", "read", "decide", "act_as", "admin", "audit"]]
    label: Annotated[str, Field(max_length=200)] = ""
    expires_in: Annotated[float, Field(gt=0)] | None = None


class Submitted(Response):
    """A workflow is accepted and durable."""

    success: Literal[True] = True
    workflow_id: str
    status: str
    replayed: bool = False


class PendingApproval(Response):
    """One line of the queue. Secrets in `action` are masked; `approvers` are roles."""

    workflow_id: str
    approval_id: str
    kind: str
    graph: str
    title: str
    node: str
    risk_level: str
    route: str
    description: str
    action: Json | None
    question: Json | None
    requested_by: str
    requested_at: datetime
    approvers: Sequence[str]
    due_at: datetime
    expires_at: datetime
    overdue: bool
    priority: Literal["urgent", "normal"]
    confidence: float | None
    revision: int
    digest: str
    justification_required: bool


class PendingList(Response):
    """`GET /workflows/pending`."""

    success: Literal[True] = True
    workflows: Sequence[PendingApproval]


class VoteRecord(Response):
    """One counted vote."""

    voter: str
    verdict: str
    revision: int
    at: datetime
    justification: str
    via: str | None
    void_reason: str | None


class ApprovalRecord(PendingApproval):
    """An approval whole: the queue line, why it is needed, who voted and how it ended."""

    state: str
    dialect: str
    reasons: Sequence[Json]
    policy: str
    policy_versions: Sequence[str]
    stages: Sequence[Sequence[Json]]
    votes: Sequence[VoteRecord]
    decision: Json | None
    resolved_by: str | None
    resolved_at: datetime | None
    delivered_at: datetime | None
    executed_at: datetime | None
    lapses_at: datetime | None


class EventRecord(Response):
    """One event; `seq` is the cursor."""

    workflow_id: str
    seq: int
    at: datetime
    type: str
    actor: str
    data: Json


class WorkflowSummary(Response):
    """One line of a list of workflows."""

    workflow_id: str
    graph: str
    title: str
    status: str
    reason: str | None
    risk_level: str | None
    node: str | None
    case_id: str | None
    requester: str
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class WorkflowRecord(WorkflowSummary):
    """A workflow whole. `input` and `result` are shown with secrets masked."""

    success: Literal[True] = True
    graph_version: str
    mode: str
    priority: int
    on_behalf_of: str | None
    launched_by: str | None
    deadline_at: datetime | None
    attempts: int
    input: Json
    result: object
    error: Json | None
    approvals: Sequence[ApprovalRecord]


class WorkflowPage(Response):
    """`GET /workflows`: newest first; pass `next_cursor` as `cursor` for the next page."""

    success: Literal[True] = True
    workflows: Sequence[WorkflowSummary]
    next_cursor: str | None


class WorkflowStatus(WorkflowSummary):
    """`GET /workflows/{id}/status`: the short status, its approvals and its latest events. `note` says what keeps it
    from running where nothing else does.
    """

    success: Literal[True] = True
    error: Json | None
    approvals: Sequence[ApprovalRecord]
    history: Sequence[EventRecord]
    note: str | None = None


class EventPage(Response):
    """`GET /workflows/{id}/events` as JSON. `finished` says that no more will come."""

    success: Literal[True] = True
    events: Sequence[EventRecord]
    next_seq: int
    finished: bool


class Decided(Response):
    """The answer to a vote or an answer. `code` is `recorded`, `resolved` or `replayed`."""

    success: Literal[True] = True
    workflow_id: str
    approval_id: str
    status: str
    code: Literal["recorded", "resolved", "replayed"]
    state: str
    resolved_by: str | None
    resolved_at: datetime | None


class Changed(Response):
    """The answer to cancel and retry."""

    success: Literal[True] = True
    workflow_id: str
    status: str


class GraphView(Response):
    """`GET /workflows/{id}/graph?format=json`: nodes with their state (`done`, `current`, `pending-gate` or `todo`)."""

    workflow_id: str
    graph: str
    version: str
    nodes: Sequence[Json]
    edges: Sequence[Json]


class PersonRecord(Response):
    """A person and the roles bound to them."""

    person: str
    name: str
    email: str | None
    roles: Sequence[str]


class PeopleList(Response):
    """`GET /people`."""

    success: Literal[True] = True
    people: Sequence[PersonRecord]


class KeyRecord(Response):
    """A credential, without its secret."""

    key_id: str
    person: str
    permissions: Sequence[str]
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class KeyList(Response):
    """`GET /keys`."""

    success: Literal[True] = True
    keys: Sequence[KeyRecord]


class NewKey(KeyRecord):
    """A credential just made: `key` is shown this once."""

    key: str


class Explanation(Response):
    """Why an action needs whom: the answer of `POST /policy/explain` and of `GET /approvals/{id}/explain`."""

    risk_level: str
    reasons: Sequence[Json]
    forbidden_by: str | None
    route: str
    policy: str
    policy_versions: Sequence[str]
    stages: Sequence[Sequence[Json]]
    filled: Mapping[str, str]
    can_decide: Sequence[str]
    why_not: Mapping[str, str]


class ExplainRequest(Request):
    """`POST /policy/explain`: a dry run of the rules on an action. `person` asks "and why not me?"."""

    action: Json
    requester: Name | None = None
    confidence: float | None = None
    person: Name | None = None


class Ready(Response):
    """`GET /readyz`."""

    ready: bool
    database: bool
    migrations: bool
    workers: int
    detail: str


class AuditEvent(EventRecord):
    """One event of the audit trail; a namespace's own events are those of `@` and its name. `hash` in hex."""

    hash: str


class AuditPage(Response):
    """`GET /audit`: newest first. A page may have few events, or none, and still have a `next_cursor`."""

    success: Literal[True] = True
    events: Sequence[AuditEvent]
    next_cursor: str | None


class AuditFinding(Response):
    """One thing that is wrong with the trail; without `seq` it is the chain as a whole."""

    workflow_id: str
    seq: int | None
    detail: str


class Verification(Response):
    """What was checked and what was found. `ok` is about that only: `next_cursor` says that there is more to check."""

    success: Literal[True] = True
    ok: bool
    chains: int
    events: int
    findings: Sequence[AuditFinding]
    next_cursor: str | None = None


class ChainHead(Request):
    """The head of a chain as it was anchored; `hash` in hex."""

    workflow_id: Name
    seq: Annotated[int, Field(ge=1, le=2**63 - 1)]
    hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class HeadsRequest(Request):
    """`POST /audit/verify`: heads that the chains must still contain."""

    heads: Annotated[Sequence[ChainHead], Field(max_length=1000)]
