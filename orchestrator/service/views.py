"""Rows as the wire shows them. Secrets are masked here, for every channel alike (rule 25)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from orchestrator.core.asking import terms_of
from orchestrator.core.canonical import redact
from orchestrator.core.deadlines import passed
from orchestrator.core.model import Requirement
from orchestrator.store.db import Params
from orchestrator.wire import (
    ApprovalRecord,
    EventRecord,
    Json,
    PendingApproval,
    VoteRecord,
    WorkflowRecord,
    WorkflowStatus,
    WorkflowSummary,
)


def masked(value: object) -> Any:
    """A JSON value with its secrets hidden."""
    return redact(value)


def masked_action(row: Params) -> Any:
    """The action of an approval's row with its secrets hidden; where it was edited, those that it had before too."""
    return redact.beside(row["action"], row["payload"] if row["revision"] > 1 else None)


def requirement_of(row: Params) -> Requirement:
    """The requirement kept on an approval row."""
    return Requirement.from_json(cast("Mapping[str, Any]", row["requirement"]))


def _queue_fields(row: Params, now: datetime) -> dict[str, Any]:
    requirement = requirement_of(row)
    return {
        "workflow_id": row["workflow_id"],
        "approval_id": row["approval_id"],
        "kind": row["kind"],
        "graph": row["graph"],
        "title": row["title"],
        "node": row["node"],
        "risk_level": row["risk_level"],
        "route": row["route"],
        "description": row["description"],
        "action": masked_action(row),
        "question": masked(row["question"]),
        "requested_by": row["requester"],
        "requested_at": row["requested_at"],
        "approvers": sorted(requirement.roles),
        "due_at": row["due_at"],
        "expires_at": row["expires_at"],
        "overdue": row["state"] == "pending" and passed(row["due_at"], now),
        "priority": "urgent" if row["urgent"] else "normal",
        "confidence": row["confidence"],
        "revision": row["revision"],
        "digest": row["digest"],
        "justification_required": requirement.justification_on_decision,
        "flags": row["flags"],
    }


def pending_approval(row: Params) -> PendingApproval:
    """One line of the queue; the row carries `now`."""
    return PendingApproval(**_queue_fields(row, row["now"]))


def approval_record(row: Params, votes: Iterable[Params], now: datetime) -> ApprovalRecord:
    """An approval whole."""
    void = {(one["person"], one["revision"]): one["reason"] for one in _counted(row)["void"]}
    return ApprovalRecord(
        **_queue_fields(row, now),
        state=row["state"],
        dialect=row["dialect"],
        reasons=row["reasons"],
        policy=row["policy"],
        policy_versions=row["policy_versions"],
        stages=cast("Mapping[str, Any]", row["requirement"])["stages"],
        votes=[
            _vote(vote, void) for vote in votes if vote["approval_id"] == row["approval_id"] and not vote["superseded"]
        ],
        decision=masked(row["decision"]),
        resolved_by=row["resolved_by"],
        resolved_at=row["resolved_at"],
        delivered_at=row["delivered_at"],
        executed_at=row["executed_at"],
        lapses_at=row["lapses_at"],
        **_counted(row),
        bypassed=row["bypassed"],
        editable=row["editable"],
        last_editor=row["last_editor"],
        terms=terms_of(row).to_json(),
        escalated_at=row["escalated_at"],
        review_by=row["review_by"],
        reviewed_by=row["reviewed_by"],
        notifications=row.get("notifications", ()),
    )


def filled_of(row: Params) -> dict[str, str]:
    """Who fills a slot, and under which role, as the votes were counted last."""
    tally = cast("Mapping[str, Any]", row["tally"] or {})
    return {one["person"]: one["role"] for one in tally.get("filled", ())}


def _counted(row: Params) -> dict[str, Any]:
    tally = cast("Mapping[str, Any]", row["tally"] or {})
    return {
        "filled": filled_of(row),
        "dissent": tally.get("dissent", ()),
        "void": tally.get("void", ()),
    }


def _vote(row: Params, void: Mapping[tuple[str, int], str]) -> VoteRecord:
    """A vote, and why it does not count as far as that was found when votes were counted last."""
    kept: dict[str, Any] = {name: row[name] for name in VoteRecord.model_fields}
    kept["void_reason"] = void.get((row["voter"], row["revision"]))
    return VoteRecord(**kept)


def event_record(row: Params) -> EventRecord:
    """One event; its data was masked when it was written."""
    return EventRecord(**{name: row[name] for name in EventRecord.model_fields})


def summary(row: Params) -> WorkflowSummary:
    """One line of a list."""
    return WorkflowSummary(**_summary_fields(row))


def _summary_fields(row: Params) -> dict[str, Any]:
    return {name: row[name] for name in WorkflowSummary.model_fields}


def workflow_record(row: Params, approvals: Sequence[ApprovalRecord]) -> WorkflowRecord:
    """A workflow whole."""
    return WorkflowRecord(
        **_summary_fields(row),
        graph_version=row["graph_version"],
        mode=row["mode"],
        priority=row["priority"],
        on_behalf_of=row["on_behalf_of"],
        launched_by=row["launched_by"],
        deadline_at=row["deadline_at"],
        attempts=row["attempts"],
        input=cast("Json", masked(row["input"])),
        result=masked(row["result"]),
        error=masked(row["error"]),
        approvals=approvals,
    )


def workflow_status(
    row: Params, approvals: Sequence[ApprovalRecord], history: Sequence[EventRecord], note: str | None
) -> WorkflowStatus:
    """The short status."""
    return WorkflowStatus(
        **_summary_fields(row), error=masked(row["error"]), approvals=approvals, history=history, note=note
    )
