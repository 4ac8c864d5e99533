"""The routes of `/audit`. Every one of them needs the permission `audit`, which the service checks once more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from orchestrator.service import audit
from orchestrator.service.signing import load_key
from orchestrator.store.audit import Filters
from orchestrator.web.auth import Auditor, Ctx, Using
from orchestrator.web.workflows import Exact
from orchestrator.wire import AuditPage, HeadsRequest, Verification

LINES: Final = "application/x-ndjson"
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_STREAMED: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {LINES: {}}, "description": "Lines of JSON"}}

router = APIRouter(tags=["audit"])
After = Annotated[str | None, Query(max_length=500, description="`next_cursor` of the answer before")]


@router.get("/audit")
async def page(
    ctx: Ctx,
    who: Auditor,
    *,
    after: After = None,
    type: Exact = None,  # noqa: A002 - the query's name
    actor: Exact = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AuditPage:
    """Events of the namespace: its own, then those of its workflows, newest first."""
    return await audit.page(ctx, who, event_type=type, actor=actor, after=after, limit=limit)


@router.get("/audit/verify")
async def verify(
    ctx: Ctx,
    who: Auditor,
    *,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="About how many chains to check")] = 1000,
) -> Verification:
    """Compute the hashes of chains again and tell what is wrong; go on with `next_cursor` until there is none."""
    return await audit.verify(ctx, who, after, limit)


@router.post("/audit/verify")
async def contains(ctx: Ctx, who: Auditor, body: HeadsRequest) -> Verification:
    """Whether the chains still contain these heads of an anchor. Nothing is written."""
    return await audit.contains(ctx, who, body)


@router.get("/audit/export", response_class=StreamingResponse, responses=_STREAMED)
async def export(
    ctx: Ctx,
    who: Auditor,
    *,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
    workflow_id: Exact = None,
) -> StreamingResponse:
    """All events as lines of JSON with their hashes; of a span of time, or of one workflow."""
    return await _streamed(audit.export(ctx, who, Filters(since, until), workflow_id))


@router.get("/audit/anchor", response_class=StreamingResponse, responses=_STREAMED)
async def anchor(ctx: Ctx, parts: Using, who: Auditor) -> StreamingResponse:
    """The signed heads of all chains, to keep elsewhere."""
    return await _streamed(audit.anchor(ctx, who, load_key(parts.settings.anchor_key_file)))


async def _streamed(lines: AsyncIterator[str]) -> StreamingResponse:
    # Read before the answer begins, so that a refusal is a problem and not a broken stream.
    first = await anext(lines, "")

    async def rest() -> AsyncIterator[str]:
        yield first
        async for part in lines:
            yield part

    return StreamingResponse(rest(), media_type=LINES, headers=_HEADERS)
