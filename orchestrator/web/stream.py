"""`GET /workflows/{id}/events`: the timeline as server-sent events, replayed from a cursor and then followed live.

The events themselves are read by the service; here is only their way to the client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from orchestrator.service import workflows
from orchestrator.web.auth import Presented, Reader, Using
from orchestrator.web.following import Following
from orchestrator.web.sse import MAX_CURSOR, SIGN_OF_LIFE, LastEventId, Limit, cursor, streamed, wants_json
from orchestrator.wire import EventPage

router = APIRouter(tags=["workflows"])
After = Annotated[int | None, Query(ge=0, le=MAX_CURSOR, description="The `seq` to go on after; 0 is the beginning")]


@router.get(
    "/workflows/{workflow_id}/events",
    response_model=EventPage,
    responses={200: {"content": {"text/event-stream": {}}, "description": "A page of events, or the live stream"}},
)
async def events(
    request: Request,
    parts: Using,
    who: Reader,
    presented: Presented,
    *,
    workflow_id: str,
    after: After = None,
    limit: Limit = 100,
    last_event_id: LastEventId = None,
) -> Response:
    """The workflow's events: server-sent and live, or one page when `Accept` asks for `application/json`."""
    begin = cursor(last_event_id, after) or 0
    if wants_json(request.headers.get("accept", "")):
        page = await workflows.events_page(parts.context, who, workflow_id, begin, limit)
        return JSONResponse(page.model_dump(mode="json"))
    following = Following(parts, who, presented, workflow_id)
    # Read before the answer begins, so that a wrong id is a 404 and not a broken stream.
    await following.ready(begin)
    return streamed(_lines(following, begin))


async def _lines(following: Following, begin: int) -> AsyncIterator[bytes]:
    async for batch in following.batches(begin):
        yield SIGN_OF_LIFE if batch is None else batch.wire
