"""The routes of cases: what waits in one, and yes or no to it. What happens in one is streamed by `feeds`."""

from __future__ import annotations

from fastapi import APIRouter

from orchestrator.service import cases
from orchestrator.web.auth import Ctx, Decider, Reader
from orchestrator.web.workflows import IdempotencyKey
from orchestrator.wire import Decided
from orchestrator.wire_feeds import ConfirmationList, ConfirmRequest

router = APIRouter(tags=["cases"])


# A case is called what its owner calls it, with slashes where they like them.
@router.get("/cases/{case_id:path}/confirmations/pending")
async def pending(ctx: Ctx, who: Reader, case_id: str) -> ConfirmationList:
    """What waits in this case: approvals and questions, urgent first."""
    return await cases.pending(ctx, who, case_id)


@router.post("/cases/{case_id:path}/confirmations/{request_id}")
async def confirm(
    ctx: Ctx,
    who: Decider,
    case_id: str,
    request_id: str,
    body: ConfirmRequest,
    idempotency_key: IdempotencyKey = None,
) -> Decided:
    """Yes or no: a vote on an approval, with `note` as its justification, or the answer to a yes-or-no question."""
    return await cases.confirm(ctx, who, case_id, request_id, body, idempotency_key)
