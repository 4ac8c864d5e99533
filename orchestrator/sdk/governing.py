"""The calls that do something with a request besides deciding it, and those by which others decide; see `calls`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from orchestrator.sdk.request import Call, path_of, post
from orchestrator.wire import (
    BatchItem,
    BatchRequest,
    BatchResults,
    BreakGlassRequest,
    Decided,
    DelegationList,
    DelegationRecord,
    DelegationRequest,
    Edited,
    EditRequest,
    LinkRecord,
    LinkRequest,
    ReviewRequest,
    WithdrawRequest,
)


def edit(approval_id: str, action: Mapping[str, object], justification: str, revision: int | None) -> Call[Edited]:
    """Change what is asked for."""
    request = EditRequest(action=dict(action), justification=justification, revision=revision)
    return post(path_of("approvals", approval_id, "edit"), Edited, request)


def withdraw(approval_id: str, reason: str) -> Call[Decided]:
    """End one's own request."""
    return post(path_of("approvals", approval_id, "withdraw"), Decided, WithdrawRequest(reason=reason))


def withdraw_workflow(workflow_id: str, reason: str) -> Call[Decided]:
    """End what one's own workflow asks for."""
    return post(path_of("workflows", workflow_id, "withdraw"), Decided, WithdrawRequest(reason=reason))


def break_glass(approval_id: str, justification: str, revision: int | None, digest: str | None) -> Call[Decided]:
    """Run at once what others have not approved."""
    request = BreakGlassRequest(justification=justification, revision=revision, digest=digest)
    return post(path_of("approvals", approval_id, "break-glass"), Decided, request)


def review(approval_id: str, note: str) -> Call[Decided]:
    """Review what was run by break-glass."""
    return post(path_of("approvals", approval_id, "review"), Decided, ReviewRequest(note=note))


def batch(decisions: Sequence[BatchItem]) -> Call[BatchResults]:
    """Several decisions, each judged alone."""
    return post("/approvals/batch", BatchResults, BatchRequest(decisions=list(decisions)))


def delegations() -> Call[list[DelegationRecord]]:
    """The delegations that have not ended."""
    return Call("GET", "/delegations", lambda content: list(DelegationList.model_validate_json(content).delegations))


def delegate(
    to: str, until: datetime, from_person: str | None, starts_at: datetime | None, reason: str
) -> Call[DelegationRecord]:
    """Let somebody decide in one's place."""
    request = DelegationRequest(from_=from_person, to=to, starts_at=starts_at, ends_at=until, reason=reason)
    return post("/delegations", DelegationRecord, request)


def end_delegation(delegation_id: str) -> Call[DelegationRecord]:
    """End a delegation."""
    return Call("DELETE", path_of("delegations", delegation_id), DelegationRecord.model_validate_json)


def link(
    approval_id: str, person: str, verdict: Literal["approve", "reject"], expires_in: timedelta
) -> Call[LinkRecord]:
    """A link that decides once."""
    request = LinkRequest(person=person, verdict=verdict, ttl_seconds=expires_in.total_seconds())
    return post(path_of("approvals", approval_id, "links"), LinkRecord, request)
