"""Request and response models of the REST interface, shared by the API and the client.

Shapes only: what a field means and who may send it is decided below. Field names are the wire's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Json = dict[str, object]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=4000)]
# It is part of addresses, where neither control characters nor dots alone arrive as they were sent.
_CASE_ID = r"^[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f.][^\x00-\x1f\x7f]*$"
CaseId = Annotated[str, Field(min_length=1, max_length=200, pattern=_CASE_ID)]
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
    case_id: CaseId | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    on_behalf_of: Name | None = None
    launched_by: Name | None = None
    mode: Literal["interactive", "autonomous"] = "interactive"
    deadline: Annotated[float, Field(gt=0, le=31_536_000)] | None = None


class ApproveRequest(Request):
    """`POST /workflows/{id}/approve`."""

    justification: Text = ""
    approved_by: Name | None = None
    acting_for: Name | None = None
    revision: int | None = None
    approval_id: Name | None = None
    digest: str | None = None


class RejectRequest(Request):
    """`POST /workflows/{id}/reject`."""

    reason: Text = ""
    rejected_by: Name | None = None
    acting_for: Name | None = None
    revision: int | None = None
    approval_id: Name | None = None
    digest: str | None = None


class VoteRequest(Request):
    """`POST /approvals/{id}/votes`: the same decision named by approval."""

    verdict: Literal["approve", "reject"]
    justification: Text = ""
    voter: Name | None = None
    acting_for: Name | None = None
    revision: int | None = None
    digest: str | None = None


class EditRequest(Request):
    """`POST /approvals/{id}/edit`: the whole action as it should be."""

    action: Json
    revision: int | None = None
    justification: Text = ""


class WithdrawRequest(Request):
    """`POST /workflows/{id}/withdraw` and `POST /approvals/{id}/withdraw`."""

    reason: Text = ""


class BreakGlassRequest(Request):
    """`POST /approvals/{id}/break-glass`."""

    justification: Text = ""
    revision: int | None = None
    digest: str | None = None


class ReviewRequest(Request):
    """`POST /approvals/{id}/review`: somebody else has looked at what was run by break-glass."""

    note: Text = ""


class BatchItem(VoteRequest):
    """One decision of a batch."""

    approval_id: Name


class BatchRequest(Request):
    """`POST /approvals/batch`: each is judged alone."""

    decisions: Annotated[Sequence[BatchItem], Field(min_length=1, max_length=100)]


class DelegationRequest(Request):
    """`POST /delegations`: `to` decides in `from`'s place from `starts_at` to `ends_at` (exclusive)."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    from_: Annotated[Name | None, Field(alias="from")] = None
    to: Name
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime
    reason: Text = ""


class LinkDecision(Request):
    """`POST /links/{token}`: all else is in the link."""

    justification: Text = ""


class LinkRequest(Request):
    """`POST /approvals/{id}/links`: a link by which `person` decides `verdict` once, within `ttl_seconds`."""

    person: Name
    verdict: Literal["approve", "reject"]
    ttl_seconds: Annotated[float, Field(gt=0, le=604_800)] = 86_400


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
    flags: Sequence[str]


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
    acting_for: str | None = None


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
    # How the votes were counted last: who fills a slot under which role, who is against, what does not count and why.
    filled: Mapping[str, str]
    dissent: Sequence[str]
    void: Sequence[Json]
    bypassed: Sequence[str]
    editable: bool
    last_editor: str | None
    terms: Json
    escalated_at: datetime | None
    review_by: datetime | None
    reviewed_by: str | None
    # Each message that was to be sent about it, and how it fares; told when one approval is looked at.
    notifications: Sequence[Json] = ()


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
    """`GET /workflows/{id}/events` as JSON: `status` is the workflow's at the same moment, `more` says that there are
    more events already, `finished` that no more will come.
    """

    success: Literal[True] = True
    events: Sequence[EventRecord]
    next_seq: int
    status: str
    more: bool
    finished: bool


class Decided(Response):
    """The answer to what was done with a request."""

    success: Literal[True] = True
    workflow_id: str
    approval_id: str
    status: str
    code: Literal["recorded", "resolved", "replayed", "withdrawn", "revised", "auto_approved", "reviewed"]
    state: str
    resolved_by: str | None
    resolved_at: datetime | None


class Edited(Decided):
    """The answer to an edit: the revision that waits now, and what differs from the one before. Secrets are masked."""

    revision: int
    digest: str
    risk_level: str
    changes: Sequence[Json]


class BatchResult(Response):
    """What became of one decision of a batch; `status` is the HTTP status it would have had alone."""

    approval_id: str
    status: int
    code: str
    detail: str | None = None
    state: str | None = None
    workflow_id: str | None = None


class BatchResults(Response):
    """`POST /approvals/batch`: in the order they came."""

    success: Literal[True] = True
    results: Sequence[BatchResult]


class DelegationRecord(Response):
    """Who decides in whose place, and when."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    delegation_id: str
    from_: Annotated[str, Field(alias="from")]
    to: str
    starts_at: datetime
    ends_at: datetime
    reason: str
    created_by: str
    revoked_at: datetime | None


class DelegationList(Response):
    """`GET /delegations`."""

    success: Literal[True] = True
    delegations: Sequence[DelegationRecord]


class LinkRecord(Response):
    """A link that decides once."""

    success: Literal[True] = True
    url: str
    expires_at: datetime


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
    policy_reason: str = ""
    frozen_until: datetime | None = None
    flags: Sequence[str] = ()


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


class PolicyText(Request):
    """`POST /policy/publish`: an approval-policies.yaml whole. `file` is what it is called, for messages."""

    text: Annotated[str, Field(max_length=1_000_000)]
    file: Name = "approval-policies.yaml"


class SimulateRequest(PolicyText):
    """`POST /policy/simulate`: a file tried on the newest `limit` requests."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class PolicyVersion(Response):
    """What was published under one number; `versions` holds the number of each policy in it."""

    version: int
    file: str
    digest: str
    versions: Mapping[str, int]
    published_by: str
    published_at: datetime


class PolicyBookRecord(PolicyVersion):
    """`GET /policy/versions/{version}`: with the text as it was published."""

    text: str


class PolicyVersionList(Response):
    """`GET /policy/versions`: newest first; `current` is the one that decides, 0 while none is published."""

    success: Literal[True] = True
    current: int
    versions: Sequence[PolicyVersion]


class PolicyPublished(PolicyVersion):
    """The answer to publishing: `changed` is false where the same text is published already."""

    success: Literal[True] = True
    changed: bool


class PolicyOutcome(Response):
    """What a request needs under some policies. `can_decide` are people as they are now."""

    policy: str
    route: str
    stages: Sequence[Sequence[Json]]
    deny_threshold: int
    justification_required: bool
    can_decide: Sequence[str]


class PolicyDifference(Response):
    """A past request that would have gone otherwise. `lacking` could decide it and could not any more; `added` the
    other way round. `changed` names what differs.
    """

    approval_id: str
    workflow_id: str
    requested_at: datetime
    risk_level: str
    description: str
    changed: Sequence[str]
    before: PolicyOutcome
    after: PolicyOutcome
    lacking: Sequence[str]
    added: Sequence[str]
    troubles: Sequence[str]


class Simulation(Response):
    """`POST /policy/simulate`: of `replayed` requests those that would have gone otherwise. Nothing was written."""

    success: Literal[True] = True
    replayed: int
    differences: Sequence[PolicyDifference]


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
