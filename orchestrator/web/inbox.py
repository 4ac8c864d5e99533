"""The routes of `/inbox`: capture something, list what was captured, look at one."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from orchestrator.core.model import Status
from orchestrator.service import inbox
from orchestrator.web.auth import Ctx, Reader, Submitter
from orchestrator.web.workflows import Exact, IdempotencyKey
from orchestrator.wire_inbox import Captured, CaptureRequest, InboxPage, InboxRecord

LARGEST_PAGE: Final = 100
FURTHEST: Final = 100_000

router = APIRouter(tags=["inbox"])


@router.post("/inbox", status_code=201, responses={200: {"model": Captured, "description": "Sent before"}})
async def capture(
    ctx: Ctx, who: Submitter, body: CaptureRequest, response: Response, idempotency_key: IdempotencyKey = None
) -> Captured:
    """Capture something. It is durable when this answers, and filed a moment later."""
    captured = await inbox.capture(ctx, who, body, idempotency_key)
    if captured.replayed:
        response.status_code = 200
    response.headers["Location"] = f"/inbox/{captured.id}"
    return captured


@router.get("/inbox")
async def page(
    ctx: Ctx,
    who: Reader,
    *,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = 20,
    offset: Annotated[int, Query(ge=0, le=FURTHEST)] = 0,
    category: Exact = None,
    status: Status | None = None,
) -> InboxPage:
    """What was captured, newest first, with where it was filed or what is asked about it."""
    return await inbox.page(ctx, who, limit=limit, offset=offset, category=category, status=status)


@router.get("/inbox/{workflow_id}")
async def item(ctx: Ctx, who: Reader, workflow_id: str) -> InboxRecord:
    """A capture whole: why it was filed there, what else it could be, what was asked and who answered."""
    return await inbox.item(ctx, who, workflow_id)
