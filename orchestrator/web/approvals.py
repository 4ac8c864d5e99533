"""The routes of decisions: the queue, votes by workflow or by approval, answers, and why. The service decides."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from orchestrator.core.model import Level, Route
from orchestrator.service import approvals, explain
from orchestrator.web.auth import Ctx, Decider, Reader
from orchestrator.web.workflows import Exact, IdempotencyKey
from orchestrator.wire import (
    AnswerRequest,
    ApprovalRecord,
    ApproveRequest,
    Decided,
    ExplainRequest,
    Explanation,
    PendingList,
    RejectRequest,
    VoteRequest,
)

router = APIRouter(tags=["approvals"])


# Included before the routes of one workflow: "pending" is not an id.
@router.get("/workflows/pending")
async def pending(
    ctx: Ctx,
    who: Reader,
    *,
    risk: Level | None = None,
    route: Route | None = None,
    role: Exact = None,
    mine: Annotated[bool, Query(description="Only what the caller could decide")] = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> PendingList:
    """What waits for a decision: urgent first, then by due time."""
    return await approvals.pending(ctx, who, risk=risk, route=route, role=role, mine=mine, limit=limit)


@router.post("/workflows/{workflow_id}/approve")
async def approve(
    ctx: Ctx, who: Decider, workflow_id: str, body: ApproveRequest | None = None, idempotency_key: IdempotencyKey = None
) -> Decided:
    """Vote for the workflow's pending approval; with several, `approval_id` is needed."""
    return await approvals.approve(ctx, who, workflow_id, body or ApproveRequest(), idempotency_key)


@router.post("/workflows/{workflow_id}/reject")
async def reject(
    ctx: Ctx, who: Decider, workflow_id: str, body: RejectRequest | None = None, idempotency_key: IdempotencyKey = None
) -> Decided:
    """Vote against the workflow's pending approval; with several, `approval_id` is needed."""
    return await approvals.reject(ctx, who, workflow_id, body or RejectRequest(), idempotency_key)


@router.get("/approvals/{approval_id}")
async def get(ctx: Ctx, who: Reader, approval_id: str) -> ApprovalRecord:
    """An approval whole."""
    return await approvals.get(ctx, who, approval_id)


@router.post("/approvals/{approval_id}/votes")
async def vote(
    ctx: Ctx, who: Decider, approval_id: str, body: VoteRequest, idempotency_key: IdempotencyKey = None
) -> Decided:
    """Vote on this approval."""
    return await approvals.vote(ctx, who, approval_id, body, idempotency_key)


@router.post("/approvals/{approval_id}/answer")
async def answer(
    ctx: Ctx, who: Decider, approval_id: str, body: AnswerRequest, idempotency_key: IdempotencyKey = None
) -> Decided:
    """Answer this question."""
    return await approvals.answer(ctx, who, approval_id, body, idempotency_key)


@router.get("/approvals/{approval_id}/explain")
async def explain_approval(ctx: Ctx, who: Reader, approval_id: str, person: Exact = None) -> Explanation:
    """Why this approval is needed, who can decide it, and why `person` cannot."""
    return await explain.approval(ctx, who, approval_id, person)


@router.post("/policy/explain")
async def explain_action(ctx: Ctx, who: Reader, body: ExplainRequest) -> Explanation:
    """What the rules would say of an action; nothing is written."""
    return await explain.action(ctx, who, body)
