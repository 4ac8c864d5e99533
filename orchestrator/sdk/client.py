"""`Keyturn`, the sync client of Keyturn's REST interface, and the names that users of either client import.

It only sends what `calls` and `governing` describe and reads the answer as they say. Nothing of the server may be
imported here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Literal, Self, TypeVar

import httpx
from typing_extensions import Unpack

from orchestrator.sdk import calls, governing, transport
from orchestrator.sdk.async_client import AsyncKeyturn
from orchestrator.sdk.calls import (
    AuditOptions,
    DecisionOptions,
    PageOptions,
    PendingOptions,
    Permission,
    SubmitOptions,
)
from orchestrator.sdk.following import Following, Waiting
from orchestrator.sdk.inbox import Inbox
from orchestrator.sdk.request import ApiError, Call, ClientError, Problem, Unreachable
from orchestrator.sdk.transport import BROKEN, DEFAULT_URL, TRIES
from orchestrator.wire import (
    ApprovalRecord,
    AuditPage,
    BatchItem,
    BatchResults,
    ChainHead,
    Changed,
    Decided,
    DelegationRecord,
    Edited,
    EventPage,
    EventRecord,
    ExplainRequest,
    Explanation,
    GraphView,
    KeyRecord,
    LinkRecord,
    NewKey,
    PendingList,
    PersonRecord,
    PolicyBookRecord,
    PolicyPublished,
    PolicyText,
    PolicyVersionList,
    Ready,
    SimulateRequest,
    Simulation,
    Submitted,
    Until,
    Verification,
    VoteRequest,
    WorkflowPage,
    WorkflowRecord,
    WorkflowStatus,
)
from orchestrator.wire_progress import TaskList, TaskProgress

__all__ = ["DEFAULT_URL", "ApiError", "AsyncKeyturn", "ClientError", "Keyturn", "Problem", "Unreachable"]

T = TypeVar("T")


class Keyturn(Inbox):
    """A sync client, for one thread at a time. Use it in a `with` statement, or call `close`.

    Methods raise ApiError for a refusal, Unreachable when no answer comes, ValueError for what cannot be sent at all.
    A 503 is tried again for calls that change nothing when repeated. `timeout` is in seconds for each call.
    """

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None, *, timeout: float = 10.0) -> None:
        self.url = url
        self._http = httpx.Client(**transport.options(url, key, timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """Send one call and return its answer; again after a 503 when that is safe."""
        for tried in range(1, TRIES + 1):
            try:
                response = self._http.request(call.method, call.path, **transport.request(call))
            except httpx.TransportError as error:
                raise transport.unreachable(self.url, error) from error
            pause = transport.pause(call, response, tried)
            if pause is None:
                return call.outcome(response.status_code, response.content)
            time.sleep(pause)
        message = "the last try returns its answer"
        raise AssertionError(message)

    def submit(
        self,
        graph: str,
        values: Mapping[str, object] | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Submitted:
        """Submit a workflow; it is durable when this returns."""
        return self.send(calls.submit(graph, values, options, idempotency_key))

    def workflows(self, **options: Unpack[PageOptions]) -> WorkflowPage:
        """A page of workflows, newest first."""
        return self.send(calls.page(options))

    def workflow(self, workflow_id: str) -> WorkflowRecord:
        """A workflow whole."""
        return self.send(calls.workflow(workflow_id))

    def status(self, workflow_id: str) -> WorkflowStatus:
        """A workflow's short status, with its approvals and latest events."""
        return self.send(calls.status(workflow_id))

    def cancel(self, workflow_id: str, reason: str = "") -> Changed:
        """Cancel a workflow that is queued, running or waiting."""
        return self.send(calls.cancel(workflow_id, reason))

    def retry(self, workflow_id: str) -> Changed:
        """Let a failed workflow go on from its last checkpoint."""
        return self.send(calls.retry(workflow_id))

    def graph(self, workflow_id: str) -> GraphView:
        """A workflow's graph with the state of each node."""
        return self.send(calls.graph(workflow_id))

    def progress(self, workflow_id: str) -> TaskProgress:
        """How far a workflow is: its steps, percent, elapsed and remaining seconds."""
        return self.send(calls.progress(workflow_id))

    def tasks(self) -> TaskList:
        """Your own tasks that are queued, run, wait or ended lately, newest first."""
        return self.send(calls.tasks())

    def drawing(self, workflow_id: str, picture: Literal["mermaid", "svg"] = "mermaid") -> str:
        """A workflow's graph as Mermaid or SVG text."""
        return self.send(calls.drawing(workflow_id, picture))

    def events(self, workflow_id: str, after: int = 0, limit: int = 100) -> EventPage:
        """A page of a workflow's events."""
        return self.send(calls.events(workflow_id, after, limit))

    def pending(self, **options: Unpack[PendingOptions]) -> PendingList:
        """What waits for a decision: urgent first, then by due time."""
        return self.send(calls.pending(options))

    def approval(self, approval_id: str) -> ApprovalRecord:
        """An approval whole."""
        return self.send(calls.approval(approval_id))

    def approve(
        self,
        workflow_id: str,
        justification: str = "",
        *,
        idempotency_key: str | None = None,
        **options: Unpack[DecisionOptions],
    ) -> Decided:
        """Vote for a workflow's pending approval."""
        return self.send(calls.approve(workflow_id, justification, options, idempotency_key))

    def reject(
        self,
        workflow_id: str,
        reason: str = "",
        *,
        idempotency_key: str | None = None,
        **options: Unpack[DecisionOptions],
    ) -> Decided:
        """Vote against a workflow's pending approval."""
        return self.send(calls.reject(workflow_id, reason, options, idempotency_key))

    def vote(self, approval_id: str, request: VoteRequest, *, idempotency_key: str | None = None) -> Decided:
        """Vote on an approval by its own id."""
        return self.send(calls.vote(approval_id, request, idempotency_key))

    def answer(self, approval_id: str, value: object, *, idempotency_key: str | None = None) -> Decided:
        """Answer a question with a JSON value."""
        return self.send(calls.answer(approval_id, value, idempotency_key))

    def edit(
        self, approval_id: str, action: Mapping[str, object], *, justification: str = "", revision: int | None = None
    ) -> Edited:
        """Change what is asked for to this whole action: all votes are void, and it is judged anew."""
        return self.send(governing.edit(approval_id, action, justification, revision))

    def withdraw(self, approval_id: str, reason: str = "") -> Decided:
        """End one's own request, and its workflow with it."""
        return self.send(governing.withdraw(approval_id, reason))

    def withdraw_workflow(self, workflow_id: str, reason: str = "") -> Decided:
        """The same by the workflow."""
        return self.send(governing.withdraw_workflow(workflow_id, reason))

    def break_glass(
        self, approval_id: str, justification: str, *, revision: int | None = None, digest: str | None = None
    ) -> Decided:
        """Run at once what others have not approved; a review is owed for it."""
        return self.send(governing.break_glass(approval_id, justification, revision, digest))

    def review(self, approval_id: str, note: str) -> Decided:
        """Say what was found of something that was run by break-glass."""
        return self.send(governing.review(approval_id, note))

    def batch(self, decisions: Sequence[BatchItem]) -> BatchResults:
        """Up to 100 decisions, each judged alone; each has its own result."""
        return self.send(governing.batch(decisions))

    def delegations(self) -> list[DelegationRecord]:
        """The delegations that have not ended: one's own, with `admin` everybody's."""
        return self.send(governing.delegations())

    def delegate(
        self,
        to: str,
        until: datetime,
        *,
        from_person: str | None = None,
        starts_at: datetime | None = None,
        reason: str = "",
    ) -> DelegationRecord:
        """Let `to` decide in one's place, or with `admin` in `from_person`'s, until then. Times have a time zone."""
        return self.send(governing.delegate(to, until, from_person, starts_at, reason))

    def end_delegation(self, delegation_id: str) -> DelegationRecord:
        """End a delegation now."""
        return self.send(governing.end_delegation(delegation_id))

    def link(
        self,
        approval_id: str,
        person: str,
        verdict: Literal["approve", "reject"],
        *,
        expires_in: timedelta = timedelta(days=1),
    ) -> LinkRecord:
        """A link by which this person decides once: one's own, or with `admin` anybody's."""
        return self.send(governing.link(approval_id, person, verdict, expires_in))

    def explain(self, approval_id: str, person: str | None = None) -> Explanation:
        """Why an approval is needed, who can decide it, and why `person` cannot."""
        return self.send(calls.explain_approval(approval_id, person))

    def explain_action(self, request: ExplainRequest) -> Explanation:
        """What the rules would say of an action."""
        return self.send(calls.explain_action(request))

    def publish_policies(self, text: str, *, file: str = "approval-policies.yaml") -> PolicyPublished:
        """Let the policies of this file decide from now on."""
        return self.send(calls.publish_policies(PolicyText(text=text, file=file)))

    def simulate_policies(self, text: str, *, file: str = "approval-policies.yaml", limit: int = 100) -> Simulation:
        """What the policies of this file would have changed for the newest requests."""
        return self.send(calls.simulate_policies(SimulateRequest(text=text, file=file, limit=limit)))

    def policy_versions(self) -> PolicyVersionList:
        """What was published, newest first."""
        return self.send(calls.policy_versions())

    def policy_version(self, version: int) -> PolicyBookRecord:
        """One publication with its text."""
        return self.send(calls.policy_version(version))

    def people(self) -> list[PersonRecord]:
        """Everybody of the namespace."""
        return self.send(calls.people())

    def put_person(
        self, person: str, *, name: str = "", email: str | None = None, roles: Sequence[str] = ()
    ) -> PersonRecord:
        """Create a person, or replace their name, e-mail and roles."""
        return self.send(calls.put_person(person, name, email, roles))

    def keys(self) -> list[KeyRecord]:
        """The namespace's keys, also the ended ones."""
        return self.send(calls.keys())

    def create_key(
        self, person: str, permissions: Sequence[Permission], *, label: str = "", expires_in: timedelta | None = None
    ) -> NewKey:
        """A new key of a person; `key` is shown this once."""
        return self.send(calls.create_key(person, permissions, label, expires_in))

    def revoke_key(self, key_id: str) -> KeyRecord:
        """End a key."""
        return self.send(calls.revoke_key(key_id))

    def ready(self) -> Ready:
        """Whether the server can take work, and what is missing."""
        return self.send(calls.ready())

    def follow(
        self, workflow_id: str, *, after: int = 0, timeout: float | None = None, patience: float = 30.0
    ) -> Iterator[EventRecord]:
        """A workflow's events after `after`, then live until it has finished; a lost connection is made again.

        Raises TimeoutError after `timeout` seconds, Unreachable after `patience` seconds without a connection.
        """
        where = Following(workflow_id, after=after, timeout=timeout, patience=patience)
        while True:
            try:
                headers, limits = where.begin()
                with self._http.stream("GET", where.path, headers=headers, timeout=limits) as response:
                    where.answered(response.status_code, b"" if response.is_success else response.read())
                    for chunk in response.iter_bytes():
                        yield from where.feed(chunk)
                        if where.must_renew():
                            break
                if self._ended(where):
                    return
            except BROKEN as error:
                time.sleep(where.pause(error))

    def _ended(self, where: Following) -> bool:
        """Whether there is nothing after where the stream ended: a server that stops ends its streams too."""
        try:
            page = self.events(where.workflow_id, where.cursor, 1)
        except ApiError as error:
            return where.excuse(error)
        return page.finished and not page.events

    def wait(self, workflow_id: str, timeout: float | None = None, *, until: Until = "settled") -> WorkflowStatus:
        """Wait until the workflow waits for a person or has ended (`until="ended"`: only that), and return its status.

        Nothing is polled: the server answers when it is so. Raises TimeoutError after `timeout` seconds.
        """
        waiting = Waiting(workflow_id, until, timeout)
        while True:
            try:
                status = self.send(waiting.call())
                if waiting.over(status):
                    return status
            except (ApiError, Unreachable) as error:
                time.sleep(waiting.bear(error))

    def audit(self, **options: Unpack[AuditOptions]) -> AuditPage:
        """A page of the audit trail, newest first."""
        return self.send(calls.audit(options))

    def verify_audit(self) -> Verification:
        """Check every chain of the namespace, each hash of it computed again, call by call.

        The server does the computing; what it cannot be trusted with is shown by an anchor or an export.
        """
        found: Verification | None = None
        while found is None or found.next_cursor is not None:
            found = calls.together(found, self.send(calls.verify_audit(found and found.next_cursor)))
        return found

    def contains_heads(self, heads: Sequence[ChainHead]) -> Verification:
        """Whether the chains still contain these heads of an anchor, at most 1,000 of them."""
        return self.send(calls.contains_heads(heads))

    def export_audit(
        self, *, since: datetime | None = None, until: datetime | None = None, workflow_id: str | None = None
    ) -> Iterator[bytes]:
        """The audit trail as lines of JSON, piece by piece as it comes; of a span of time, or of one workflow.

        Raises Unreachable when it breaks off: what came is then not the whole.
        """
        return self._pieces(calls.export_audit(since, until, workflow_id))

    def anchor_audit(self) -> Iterator[bytes]:
        """The signed heads of all chains, piece by piece as they come."""
        return self._pieces(calls.anchor_audit())

    def _pieces(self, call: Call[bytes]) -> Iterator[bytes]:
        try:
            with self._http.stream(call.method, call.path, params=call.query, headers=call.headers) as response:
                if not response.is_success:
                    call.outcome(response.status_code, response.read())
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise transport.unreachable(self.url, error) from error
