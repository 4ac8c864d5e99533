"""`AsyncKeyturn`, the async client of Keyturn's REST interface. Import it from `orchestrator.sdk.client`.

Method by method the same as the sync client; what both do is in `calls`, `governing`, `request`, `following` and
`transport`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Literal, Self, TypeVar

import httpx
from typing_extensions import Unpack

from orchestrator.sdk import calls, governing, transport
from orchestrator.sdk.calls import (
    AuditOptions,
    DecisionOptions,
    PageOptions,
    PendingOptions,
    Permission,
    SubmitOptions,
)
from orchestrator.sdk.following import Following, Waiting
from orchestrator.sdk.inbox import AsyncInbox
from orchestrator.sdk.request import ApiError, Call, Unreachable
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

T = TypeVar("T")


class AsyncKeyturn(AsyncInbox):
    """The async client; see `Keyturn`. Use it in an `async with` statement, or call `close`."""

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None, *, timeout: float = 10.0) -> None:
        self.url = url
        self._http = httpx.AsyncClient(**transport.options(url, key, timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """Send one call and return its answer; again after a 503 when that is safe."""
        for tried in range(1, TRIES + 1):
            try:
                response = await self._http.request(call.method, call.path, **transport.request(call))
            except httpx.TransportError as error:
                raise transport.unreachable(self.url, error) from error
            pause = transport.pause(call, response, tried)
            if pause is None:
                return call.outcome(response.status_code, response.content)
            await asyncio.sleep(pause)
        message = "the last try returns its answer"
        raise AssertionError(message)

    async def submit(
        self,
        graph: str,
        values: Mapping[str, object] | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Submitted:
        """Submit a workflow; it is durable when this returns."""
        return await self.send(calls.submit(graph, values, options, idempotency_key))

    async def workflows(self, **options: Unpack[PageOptions]) -> WorkflowPage:
        """A page of workflows, newest first."""
        return await self.send(calls.page(options))

    async def workflow(self, workflow_id: str) -> WorkflowRecord:
        """A workflow whole."""
        return await self.send(calls.workflow(workflow_id))

    async def status(self, workflow_id: str) -> WorkflowStatus:
        """A workflow's short status, with its approvals and latest events."""
        return await self.send(calls.status(workflow_id))

    async def cancel(self, workflow_id: str, reason: str = "") -> Changed:
        """Cancel a workflow that is queued, running or waiting."""
        return await self.send(calls.cancel(workflow_id, reason))

    async def retry(self, workflow_id: str) -> Changed:
        """Let a failed workflow go on from its last checkpoint."""
        return await self.send(calls.retry(workflow_id))

    async def graph(self, workflow_id: str) -> GraphView:
        """A workflow's graph with the state of each node."""
        return await self.send(calls.graph(workflow_id))

    async def progress(self, workflow_id: str) -> TaskProgress:
        """How far a workflow is: its steps, percent, elapsed and remaining seconds."""
        return await self.send(calls.progress(workflow_id))

    async def tasks(self) -> TaskList:
        """Your own tasks that are queued, run, wait or ended lately, newest first."""
        return await self.send(calls.tasks())

    async def drawing(self, workflow_id: str, picture: Literal["mermaid", "svg"] = "mermaid") -> str:
        """A workflow's graph as Mermaid or SVG text."""
        return await self.send(calls.drawing(workflow_id, picture))

    async def events(self, workflow_id: str, after: int = 0, limit: int = 100) -> EventPage:
        """A page of a workflow's events."""
        return await self.send(calls.events(workflow_id, after, limit))

    async def pending(self, **options: Unpack[PendingOptions]) -> PendingList:
        """What waits for a decision: urgent first, then by due time."""
        return await self.send(calls.pending(options))

    async def approval(self, approval_id: str) -> ApprovalRecord:
        """An approval whole."""
        return await self.send(calls.approval(approval_id))

    async def approve(
        self,
        workflow_id: str,
        justification: str = "",
        *,
        idempotency_key: str | None = None,
        **options: Unpack[DecisionOptions],
    ) -> Decided:
        """Vote for a workflow's pending approval."""
        return await self.send(calls.approve(workflow_id, justification, options, idempotency_key))

    async def reject(
        self,
        workflow_id: str,
        reason: str = "",
        *,
        idempotency_key: str | None = None,
        **options: Unpack[DecisionOptions],
    ) -> Decided:
        """Vote against a workflow's pending approval."""
        return await self.send(calls.reject(workflow_id, reason, options, idempotency_key))

    async def vote(self, approval_id: str, request: VoteRequest, *, idempotency_key: str | None = None) -> Decided:
        """Vote on an approval by its own id."""
        return await self.send(calls.vote(approval_id, request, idempotency_key))

    async def answer(self, approval_id: str, value: object, *, idempotency_key: str | None = None) -> Decided:
        """Answer a question with a JSON value."""
        return await self.send(calls.answer(approval_id, value, idempotency_key))

    async def edit(
        self, approval_id: str, action: Mapping[str, object], *, justification: str = "", revision: int | None = None
    ) -> Edited:
        """Change what is asked for to this whole action: all votes are void, and it is judged anew."""
        return await self.send(governing.edit(approval_id, action, justification, revision))

    async def withdraw(self, approval_id: str, reason: str = "") -> Decided:
        """End one's own request, and its workflow with it."""
        return await self.send(governing.withdraw(approval_id, reason))

    async def withdraw_workflow(self, workflow_id: str, reason: str = "") -> Decided:
        """The same by the workflow."""
        return await self.send(governing.withdraw_workflow(workflow_id, reason))

    async def break_glass(
        self, approval_id: str, justification: str, *, revision: int | None = None, digest: str | None = None
    ) -> Decided:
        """Run at once what others have not approved; a review is owed for it."""
        return await self.send(governing.break_glass(approval_id, justification, revision, digest))

    async def review(self, approval_id: str, note: str) -> Decided:
        """Say what was found of something that was run by break-glass."""
        return await self.send(governing.review(approval_id, note))

    async def batch(self, decisions: Sequence[BatchItem]) -> BatchResults:
        """Up to 100 decisions, each judged alone; each has its own result."""
        return await self.send(governing.batch(decisions))

    async def delegations(self) -> list[DelegationRecord]:
        """The delegations that have not ended: one's own, with `admin` everybody's."""
        return await self.send(governing.delegations())

    async def delegate(
        self,
        to: str,
        until: datetime,
        *,
        from_person: str | None = None,
        starts_at: datetime | None = None,
        reason: str = "",
    ) -> DelegationRecord:
        """Let `to` decide in one's place, or with `admin` in `from_person`'s, until then. Times have a time zone."""
        return await self.send(governing.delegate(to, until, from_person, starts_at, reason))

    async def end_delegation(self, delegation_id: str) -> DelegationRecord:
        """End a delegation now."""
        return await self.send(governing.end_delegation(delegation_id))

    async def link(
        self,
        approval_id: str,
        person: str,
        verdict: Literal["approve", "reject"],
        *,
        expires_in: timedelta = timedelta(days=1),
    ) -> LinkRecord:
        """A link by which this person decides once: one's own, or with `admin` anybody's."""
        return await self.send(governing.link(approval_id, person, verdict, expires_in))

    async def explain(self, approval_id: str, person: str | None = None) -> Explanation:
        """Why an approval is needed, who can decide it, and why `person` cannot."""
        return await self.send(calls.explain_approval(approval_id, person))

    async def explain_action(self, request: ExplainRequest) -> Explanation:
        """What the rules would say of an action."""
        return await self.send(calls.explain_action(request))

    async def publish_policies(self, text: str, *, file: str = "approval-policies.yaml") -> PolicyPublished:
        """Let the policies of this file decide from now on."""
        return await self.send(calls.publish_policies(PolicyText(text=text, file=file)))

    async def simulate_policies(
        self, text: str, *, file: str = "approval-policies.yaml", limit: int = 100
    ) -> Simulation:
        """What the policies of this file would have changed for the newest requests."""
        return await self.send(calls.simulate_policies(SimulateRequest(text=text, file=file, limit=limit)))

    async def policy_versions(self) -> PolicyVersionList:
        """What was published, newest first."""
        return await self.send(calls.policy_versions())

    async def policy_version(self, version: int) -> PolicyBookRecord:
        """One publication with its text."""
        return await self.send(calls.policy_version(version))

    async def people(self) -> list[PersonRecord]:
        """Everybody of the namespace."""
        return await self.send(calls.people())

    async def put_person(
        self, person: str, *, name: str = "", email: str | None = None, roles: Sequence[str] = ()
    ) -> PersonRecord:
        """Create a person, or replace their name, e-mail and roles."""
        return await self.send(calls.put_person(person, name, email, roles))

    async def keys(self) -> list[KeyRecord]:
        """The namespace's keys, also the ended ones."""
        return await self.send(calls.keys())

    async def create_key(
        self, person: str, permissions: Sequence[Permission], *, label: str = "", expires_in: timedelta | None = None
    ) -> NewKey:
        """A new key of a person; `key` is shown this once."""
        return await self.send(calls.create_key(person, permissions, label, expires_in))

    async def revoke_key(self, key_id: str) -> KeyRecord:
        """End a key."""
        return await self.send(calls.revoke_key(key_id))

    async def ready(self) -> Ready:
        """Whether the server can take work, and what is missing."""
        return await self.send(calls.ready())

    async def follow(
        self,
        workflow_id: str,
        *,
        after: int = 0,
        timeout: float | None = None,  # noqa: ASYNC109 - the same arguments as the sync client's
        patience: float = 30.0,
    ) -> AsyncIterator[EventRecord]:
        """A workflow's events after `after`, then live until it has finished; see `Keyturn.follow`."""
        where = Following(workflow_id, after=after, timeout=timeout, patience=patience)
        while True:
            try:
                headers, limits = where.begin()
                async with self._http.stream("GET", where.path, headers=headers, timeout=limits) as response:
                    where.answered(response.status_code, b"" if response.is_success else await response.aread())
                    async for chunk in response.aiter_bytes():
                        for event in where.feed(chunk):
                            yield event
                        if where.must_renew():
                            break
                if await self._ended(where):
                    return
            except BROKEN as error:
                await asyncio.sleep(where.pause(error))

    async def _ended(self, where: Following) -> bool:
        try:
            page = await self.events(where.workflow_id, where.cursor, 1)
        except ApiError as error:
            return where.excuse(error)
        return page.finished and not page.events

    async def wait(
        self,
        workflow_id: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the same arguments as the sync client's
        *,
        until: Until = "settled",
    ) -> WorkflowStatus:
        """Wait until the workflow waits for a person or has ended; see `Keyturn.wait`."""
        waiting = Waiting(workflow_id, until, timeout)
        while True:
            try:
                status = await self.send(waiting.call())
                if waiting.over(status):
                    return status
            except (ApiError, Unreachable) as error:
                await asyncio.sleep(waiting.bear(error))

    async def audit(self, **options: Unpack[AuditOptions]) -> AuditPage:
        """A page of the audit trail, newest first."""
        return await self.send(calls.audit(options))

    async def verify_audit(self) -> Verification:
        """Check every chain of the namespace, call by call; see `Keyturn.verify_audit`."""
        found: Verification | None = None
        while found is None or found.next_cursor is not None:
            answer = await self.send(calls.verify_audit(found and found.next_cursor))
            found = calls.together(found, answer)
        return found

    async def contains_heads(self, heads: Sequence[ChainHead]) -> Verification:
        """Whether the chains still contain these heads of an anchor, at most 1,000 of them."""
        return await self.send(calls.contains_heads(heads))

    def export_audit(
        self, *, since: datetime | None = None, until: datetime | None = None, workflow_id: str | None = None
    ) -> AsyncIterator[bytes]:
        """The audit trail as lines of JSON, piece by piece as it comes; see `Keyturn.export_audit`."""
        return self._pieces(calls.export_audit(since, until, workflow_id))

    def anchor_audit(self) -> AsyncIterator[bytes]:
        """The signed heads of all chains, piece by piece as they come."""
        return self._pieces(calls.anchor_audit())

    async def _pieces(self, call: Call[bytes]) -> AsyncIterator[bytes]:
        try:
            async with self._http.stream(call.method, call.path, params=call.query, headers=call.headers) as response:
                if not response.is_success:
                    call.outcome(response.status_code, await response.aread())
                async for piece in response.aiter_bytes():
                    yield piece
        except httpx.TransportError as error:
            raise transport.unreachable(self.url, error) from error
