"""The routes of decisions: the queue, votes by workflow or by approval, answers, and why. The service decides."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from orchestrator.core.errors import KeyturnError
from orchestrator.core.model import Level, Route
from orchestrator.service import acting, approvals, breaking, explain, links
from orchestrator.web.auth import Ctx, Decider, Editor, Reader, Submitter
from orchestrator.web.problems import status_of
from orchestrator.web.workflows import Exact, IdempotencyKey
from orchestrator.wire import (
    AnswerRequest,
    ApprovalRecord,
    ApproveRequest,
    BatchRequest,
    BatchResult,
    BatchResults,
    BreakGlassRequest,
    Decided,
    Edited,
    EditRequest,
    ExplainRequest,
    Explanation,
    LinkRecord,
    LinkRequest,
    PendingList,
    RejectRequest,
    ReviewRequest,
    VoteRequest,
    WithdrawRequest,
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


@router.post("/approvals/batch")
async def batch(ctx: Ctx, who: Decider, body: BatchRequest) -> BatchResults:
    """Up to 100 decisions, each judged alone; each has its own result."""
    outcomes = await approvals.batch(ctx, who, body)
    asked = [one.approval_id for one in body.decisions]
    return BatchResults(results=[_result(*pair) for pair in zip(asked, outcomes, strict=True)])


def _result(approval_id: str, outcome: Decided | KeyturnError) -> BatchResult:
    if isinstance(outcome, KeyturnError):
        status = status_of(outcome)
        return BatchResult(approval_id=approval_id, status=status, code=outcome.code, detail=outcome.detail)
    return BatchResult(
        approval_id=approval_id, status=200, code=outcome.code, state=outcome.state, workflow_id=outcome.workflow_id
    )


@router.post("/approvals/{approval_id}/edit")
async def edit(
    ctx: Ctx, who: Editor, approval_id: str, body: EditRequest, idempotency_key: IdempotencyKey = None
) -> Edited:
    """Change what is asked: the next revision, judged anew; all votes are void, and the editor cannot approve it."""
    return await acting.edit(ctx, who, approval_id, body, idempotency_key)


@router.post("/approvals/{approval_id}/withdraw")
async def withdraw(
    ctx: Ctx,
    who: Submitter,
    approval_id: str,
    body: WithdrawRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Decided:
    """End one's own request, and its workflow with it."""
    return await acting.withdraw(ctx, who, approval_id, body or WithdrawRequest(), idempotency_key)


@router.post("/workflows/{workflow_id}/withdraw")
async def withdraw_workflow(
    ctx: Ctx,
    who: Submitter,
    workflow_id: str,
    body: WithdrawRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Decided:
    """The same by the workflow."""
    return await acting.withdraw_workflow(ctx, who, workflow_id, body or WithdrawRequest(), idempotency_key)


@router.post("/approvals/{approval_id}/break-glass")
async def break_glass(
    ctx: Ctx,
    who: Decider,
    approval_id: str,
    body: BreakGlassRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Decided:
    """Run at once what others have not approved, through a freeze too; everybody skipped is told, a review is owed."""
    return await breaking.break_glass(ctx, who, approval_id, body or BreakGlassRequest(), idempotency_key)


@router.post("/approvals/{approval_id}/review")
async def review(
    ctx: Ctx,
    who: Decider,
    approval_id: str,
    body: ReviewRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Decided:
    """Review what was run by break-glass."""
    return await breaking.review(ctx, who, approval_id, body or ReviewRequest(), idempotency_key)


@router.post("/approvals/{approval_id}/links", status_code=201)
async def link(request: Request, ctx: Ctx, who: Decider, approval_id: str, body: LinkRequest) -> LinkRecord:
    """A link by which a person decides once."""
    return await links.create(ctx, who, approval_id, body, str(request.base_url).rstrip("/"))


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
