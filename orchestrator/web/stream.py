"""`GET /workflows/{id}/events`: the timeline as server-sent events, replayed from a cursor and then followed live.

The events themselves are read by the service; here is only their way to the client.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.sse import format_sse_event

from orchestrator.core.errors import InvalidInput, Unauthenticated, Unavailable
from orchestrator.service import workflows
from orchestrator.service.context import Caller
from orchestrator.web.auth import Presented, Reader, Using
from orchestrator.web.parts import Parts
from orchestrator.wire import EventPage, EventRecord

HEARTBEAT_SECONDS: Final = 15.0
_PAGE: Final = 200
_MAX_SEQ: Final = 2**63 - 1
_AGAIN_SECONDS: Final = 1.0
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

router = APIRouter(tags=["workflows"])
After = Annotated[int | None, Query(ge=0, le=_MAX_SEQ, description="The `seq` to go on after; 0 is the beginning")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most events of a JSON page")]


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
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The workflow's events: server-sent and live, or one page when `Accept` asks for `application/json`."""
    cursor = _cursor(last_event_id, after)
    if wants_json(request.headers.get("accept", "")):
        page = await workflows.events_page(parts.context, who, workflow_id, cursor, limit)
        return JSONResponse(page.model_dump(mode="json"))
    stream = _Stream(parts, who, presented, workflow_id)
    # Read before the answer begins, so that a wrong id is a 404 and not a broken stream.
    first = await stream.page(cursor)
    return StreamingResponse(stream.lines(first, cursor), media_type="text/event-stream", headers=_HEADERS)


def wants_json(accept: str) -> bool:
    """Whether a client prefers a JSON page to the stream, by what its `Accept` header names first."""
    kinds = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    if "text/event-stream" in kinds:
        return "application/json" in kinds and kinds.index("application/json") < kinds.index("text/event-stream")
    return "application/json" in kinds


def _cursor(last_event_id: str | None, after: int | None) -> int:
    """Where to begin. The header wins: a browser that reconnects sends it with the address it began with."""
    if last_event_id is None or not last_event_id.strip():
        return after or 0
    text = last_event_id.strip()
    if not text.isascii() or not text.isdigit() or len(text) > len(str(_MAX_SEQ)) or int(text) > _MAX_SEQ:
        raise InvalidInput("Last-Event-ID: the `id:` of an event, which is a whole number, is expected")
    return int(text)


def as_sse(event: EventRecord) -> bytes:
    """One event on the wire. ASCII only, as some clients take other Unicode line ends for the end of a line."""
    data = json.dumps(event.model_dump(mode="json"), separators=(",", ":"))
    return format_sse_event(event=event.type, data_str=data, id=str(event.seq))


@dataclass(frozen=True, slots=True)
class _Stream:
    """One client that follows one workflow."""

    parts: Parts
    who: Caller
    presented: str
    workflow_id: str

    async def page(self, after: int) -> EventPage:
        """The events after a cursor; one query for all clients at the same place."""
        place = (self.who.namespace, self.workflow_id, after)
        return await self.parts.hub.read(
            place, lambda: workflows.events_page(self.parts.context, self.who, self.workflow_id, after, _PAGE)
        )

    async def lines(self, first: EventPage, cursor: int) -> AsyncIterator[bytes]:
        """Everything after `cursor`, then what comes, until the workflow has finished or the server stops."""
        page: EventPage | None = first
        hub = self.parts.hub
        with hub.follow(self.workflow_id) as woken:
            # Something may have happened between the first page and now.
            woken.set()
            while True:
                for event in page.events if page else ():
                    cursor = event.seq
                    yield as_sse(event)
                if page and page.finished and len(page.events) < _PAGE:
                    return
                if not (page and page.events) and not await _woken(woken):
                    yield b": still here\n\n"
                if hub.stopping:
                    return
                woken.clear()
                try:
                    # A revoked key ends its streams too.
                    await self.parts.keyring.authenticate(self.presented)
                    page = await self.page(cursor)
                except Unavailable:
                    # The client keeps its connection; it goes on here when the database is back.
                    page = None
                    yield b": the database is away\n\n"
                    await asyncio.sleep(_AGAIN_SECONDS)
                    woken.set()
                except Unauthenticated:
                    return


async def _woken(woken: asyncio.Event) -> bool:
    """Whether there was a wake-up before the next sign of life is due."""
    try:
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            await woken.wait()
    except TimeoutError:
        return False
    return True
