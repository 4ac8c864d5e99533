"""Each call of the REST interface as a value: what is sent, and how the answer is read. Nothing is sent from here.

The sync and the async client share all of this, so neither repeats the other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

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

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Params = Mapping[str, str | int | bool | None]
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
    """Which approval a decision is for; `revision` and `digest` say what the voter has seen."""

    approval_id: str | None
    revision: int | None
    digest: str | None


class AuditOptions(TypedDict, total=False):
    """Which events a page of the audit trail shows; `after` is the `next_cursor` of the page before."""

    type: str | None
    actor: str | None
    after: str | None
    limit: int


class Problem(BaseModel):
    """An RFC 9457 problem document. Members beyond these are in `facts`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
    code: str = ""

    @property
    def facts(self) -> Mapping[str, object]:
        """What else the server told: `resolved_by`, `approvals`, `allowed` and the like."""
        return self.model_extra or {}


class ClientError(Exception):
    """Base of what the client raises."""


class ApiError(ClientError):
    """The server answered with a problem: the request was refused, or the server failed. `problem` says which."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem

    @property
    def code(self) -> str:
        """The problem's stable code, such as `already_resolved`."""
        return self.problem.code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status


class Unreachable(ClientError):  # noqa: N818 - said from the caller's side, as the refusals are
    """No answer came: nothing listens there, or the connection broke. A request may or may not have arrived."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and how to read its answer. `answers` are statuses, besides 2xx, whose body `parse` reads;
    `seconds` is how long the server may take its time.
    """

    method: str
    path: str
    parse: Callable[[bytes], T]
    params: Params = field(default_factory=dict[str, "str | int | bool | None"])
    content: bytes | None = None
    idempotency_key: str | None = None
    answers: frozenset[int] = frozenset()
    seconds: float | None = None

    @property
    def repeatable(self) -> bool:
        """Whether sending it again changes nothing more."""
        return self.method == "GET" or self.idempotency_key is not None

    @property
    def headers(self) -> dict[str, str]:
        """The call's own headers."""
        headers = {"Accept": "application/json"}
        if self.content is not None:
            headers["Content-Type"] = "application/json"
        if self.idempotency_key is not None:
            headers["Idempotency-Key"] = self.idempotency_key
        return headers

    @property
    def query(self) -> dict[str, str]:
        """The parameters that were given, as text."""
        given = {name: value for name, value in self.params.items() if value is not None}
        return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}

    def outcome(self, status: int, content: bytes) -> T:
        """The answer, read; raises ApiError when it is a problem, or not what was asked for."""
        if not (200 <= status < 300 or status in self.answers):  # noqa: PLR2004 - HTTP's success
            raise ApiError(problem_of(status, content))
        try:
            return self.parse(content)
        except ValidationError as error:
            detail = f"{self.method} {self.path} was answered with something else than Keyturn's answer: {error}"
            raise ApiError(Problem(status=status, code="not_keyturn", title="Not a Keyturn", detail=detail)) from None


def problem_of(status: int, content: bytes) -> Problem:
    """The problem in an answer; one made up from the status when something in between answered."""
    try:
        return Problem.model_validate_json(content)
    except ValidationError:
        return Problem(status=status, code=f"http_{status}", title=f"HTTP {status}", detail=f"answered HTTP {status}")


def submit(
    graph: str, values: Mapping[str, object] | None, options: SubmitOptions, idempotency_key: str | None = None
) -> Call[Submitted]:
    """Submit a workflow. Without a key of yours it gets one, so that it may safely be sent again."""
    request = SubmitRequest(graph=graph, input=dict(values or {}), **options)
    return _post("/workflows", Submitted, request, idempotency_key or uuid.uuid4().hex)


def page(options: PageOptions) -> Call[WorkflowPage]:
    """List workflows, newest first."""
    return _get("/workflows", WorkflowPage, dict(**options))


def workflow(workflow_id: str) -> Call[WorkflowRecord]:
    """A workflow whole."""
    return _get(_path("workflows", workflow_id), WorkflowRecord)


def status(workflow_id: str) -> Call[WorkflowStatus]:
    """A workflow's short status."""
    return _get(_path("workflows", workflow_id, "status"), WorkflowStatus)


def cancel(workflow_id: str, reason: str) -> Call[Changed]:
    """Cancel a workflow."""
    return _post(_path("workflows", workflow_id, "cancel"), Changed, CancelRequest(reason=reason))


def retry(workflow_id: str) -> Call[Changed]:
    """Let a failed workflow go on."""
    return Call("POST", _path("workflows", workflow_id, "retry"), Changed.model_validate_json)


def graph(workflow_id: str) -> Call[GraphView]:
    """A workflow's graph with the state of each node."""
    return _get(_path("workflows", workflow_id, "graph"), GraphView, {"format": "json"})


def drawing(workflow_id: str, picture: Literal["mermaid", "svg"]) -> Call[str]:
    """A workflow's graph as text of that format."""
    return Call("GET", _path("workflows", workflow_id, "graph"), bytes.decode, {"format": picture})


def events(workflow_id: str, after: int, limit: int) -> Call[EventPage]:
    """A page of a workflow's events."""
    return _get(_path("workflows", workflow_id, "events"), EventPage, {"after": after, "limit": limit})


def pending(options: PendingOptions) -> Call[PendingList]:
    """The approval queue."""
    return _get("/workflows/pending", PendingList, dict(**options))


def approval(approval_id: str) -> Call[ApprovalRecord]:
    """An approval whole."""
    return _get(_path("approvals", approval_id), ApprovalRecord)


def approve(
    workflow_id: str, justification: str, options: DecisionOptions, idempotency_key: str | None
) -> Call[Decided]:
    """Vote for a workflow's pending approval."""
    request = ApproveRequest(justification=justification, **options)
    return _post(_path("workflows", workflow_id, "approve"), Decided, request, idempotency_key)


def reject(workflow_id: str, reason: str, options: DecisionOptions, idempotency_key: str | None) -> Call[Decided]:
    """Vote against a workflow's pending approval."""
    request = RejectRequest(reason=reason, **options)
    return _post(_path("workflows", workflow_id, "reject"), Decided, request, idempotency_key)


def vote(approval_id: str, request: VoteRequest, idempotency_key: str | None) -> Call[Decided]:
    """Vote on an approval by its own id."""
    return _post(_path("approvals", approval_id, "votes"), Decided, request, idempotency_key)


def answer(approval_id: str, value: object, idempotency_key: str | None) -> Call[Decided]:
    """Answer a question."""
    return _post(_path("approvals", approval_id, "answer"), Decided, AnswerRequest(answer=value), idempotency_key)


def explain_approval(approval_id: str, person: str | None) -> Call[Explanation]:
    """Why an approval is needed, and why `person` cannot decide it."""
    return _get(_path("approvals", approval_id, "explain"), Explanation, {"person": person})


def explain_action(request: ExplainRequest) -> Call[Explanation]:
    """What the rules would say of an action. Nothing is written, so it may be sent again."""
    return _post("/policy/explain", Explanation, request)


def publish_policies(request: PolicyText) -> Call[PolicyPublished]:
    """Publish a policy file. The same text again changes nothing."""
    return _post("/policy/publish", PolicyPublished, request)


def simulate_policies(request: SimulateRequest) -> Call[Simulation]:
    """What a policy file would have changed. Nothing is written, so it may be sent again."""
    return _post("/policy/simulate", Simulation, request)


def policy_versions() -> Call[PolicyVersionList]:
    """What was published, newest first."""
    return _get("/policy/versions", PolicyVersionList)


def policy_version(version: int) -> Call[PolicyBookRecord]:
    """One publication with its text."""
    return _get(_path("policy", "versions", str(version)), PolicyBookRecord)


def put_person(person: str, name: str, email: str | None, roles: Sequence[str]) -> Call[PersonRecord]:
    """Create or replace a person."""
    return _post("/people", PersonRecord, PersonRequest(person=person, name=name, email=email, roles=list(roles)))


def people() -> Call[list[PersonRecord]]:
    """Everybody of the namespace."""
    return Call("GET", "/people", lambda content: list(PeopleList.model_validate_json(content).people))


def create_key(
    person: str, permissions: Sequence[Permission], label: str, expires_in: timedelta | None
) -> Call[NewKey]:
    """A new key of a person."""
    seconds = None if expires_in is None else expires_in.total_seconds()
    request = KeyRequest(person=person, permissions=list(permissions), label=label, expires_in=seconds)
    return _post("/keys", NewKey, request)


def keys() -> Call[list[KeyRecord]]:
    """The namespace's keys."""
    return Call("GET", "/keys", lambda content: list(KeyList.model_validate_json(content).keys))


def revoke_key(key_id: str) -> Call[KeyRecord]:
    """End a key."""
    return Call("DELETE", _path("keys", key_id), KeyRecord.model_validate_json)


def ready() -> Call[Ready]:
    """Whether the server can take work; a server that cannot answers 503 with the same body."""
    return Call("GET", "/readyz", Ready.model_validate_json, answers=frozenset({503}))


def events_path(workflow_id: str) -> str:
    """Where a workflow's events are streamed from."""
    return _path("workflows", workflow_id, "events")


def wait(workflow_id: str, until: Until, seconds: float) -> Call[WorkflowStatus]:
    """The status as soon as the workflow is there, or after so many seconds."""
    params = {"until": until, "timeout": f"{seconds:.3f}"}
    path = _path("workflows", workflow_id, "wait")
    return Call("GET", path, WorkflowStatus.model_validate_json, params, seconds=seconds)


def audit(options: AuditOptions) -> Call[AuditPage]:
    """A page of the audit trail."""
    return _get("/audit", AuditPage, dict(**options))


def verify_audit(after: str | None) -> Call[Verification]:
    """Check chains from a cursor on."""
    found = Verification.model_validate_json
    return Call("GET", "/audit/verify", found, {"after": after}, seconds=_VERIFY_SECONDS)


def contains_heads(heads: Sequence[ChainHead]) -> Call[Verification]:
    """Whether the chains still contain these heads."""
    return _post("/audit/verify", Verification, HeadsRequest(heads=heads))


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


def _path(*parts: str) -> str:
    # An id is one segment, whatever it holds: `..` and `/` must not lead elsewhere.
    return "/" + "/".join(quote(part, safe="").replace(".", "%2E") for part in parts)


def _get(path: str, model: type[M], params: Mapping[str, Any] | None = None) -> Call[M]:
    return Call("GET", path, model.model_validate_json, params or {})


def _post(path: str, model: type[M], request: BaseModel, idempotency_key: str | None = None) -> Call[M]:
    content = request.model_dump_json(exclude_unset=True).encode()
    return Call("POST", path, model.model_validate_json, content=content, idempotency_key=idempotency_key)
