"""The routes of `/sessions`: conversations with a graph. The service decides; here is only HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from orchestrator.service import conversing, histories, sessions
from orchestrator.service.feeds import OfThread
from orchestrator.service.sessions import Limits
from orchestrator.web.auth import Ctx, Editor, Presented, Reader, Submitter, Using
from orchestrator.web.feeds import After, Types, feed
from orchestrator.web.sse import LastEventId, Limit
from orchestrator.web.workflows import IdempotencyKey
from orchestrator.wire import CancelRequest
from orchestrator.wire_feeds import FeedPage
from orchestrator.wire_sessions import (
    MessageRequest,
    MessageTaken,
    SessionHistory,
    SessionPage,
    SessionRecord,
    SessionRequest,
    SessionStarted,
)

router = APIRouter(tags=["sessions"])


@router.post("/sessions", status_code=201, responses={200: {"model": SessionStarted, "description": "Sent before"}})
async def start(
    parts: Using, who: Submitter, body: SessionRequest, response: Response, idempotency_key: IdempotencyKey = None
) -> SessionStarted:
    """Begin a session, and with `message` or `input` its first run. Past the cap of open ones it is refused (429)."""
    limits = Limits(parts.settings.session_idle_seconds, parts.settings.session_limit)
    started = await sessions.start(parts.context, who, body, limits, idempotency_key)
    if started.replayed:
        response.status_code = 200
    response.headers["Location"] = f"/sessions/{started.session_id}"
    return started


@router.get("/sessions")
async def page(
    ctx: Ctx,
    who: Reader,
    *,
    all: Annotated[bool, Query(description="Also those that have ended")] = False,  # noqa: A002 - the query's name
    cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Most of the ended ones on a page")] = 50,
) -> SessionPage:
    """The caller's own sessions: those that are open, newest first."""
    return await sessions.page(ctx, who, ended=all, cursor=cursor, limit=limit)


@router.get("/sessions/{session_id}")
async def get(ctx: Ctx, who: Reader, session_id: str) -> SessionRecord:
    """A session: its state, and what it waits for."""
    return await sessions.get(ctx, who, session_id)


@router.post(
    "/sessions/{session_id}/messages",
    status_code=201,
    responses={200: {"model": MessageTaken, "description": "It answered a question, or was sent before"}},
)
async def send(
    ctx: Ctx,
    who: Editor,
    session_id: str,
    body: MessageRequest,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> MessageTaken:
    """Say something: it answers the question that waits, else it begins the next run."""
    taken = await conversing.send(ctx, who, session_id, body, idempotency_key)
    if taken.replayed or taken.did == "answered":
        response.status_code = 200
    return taken


@router.get("/sessions/{session_id}/messages")
async def history(
    ctx: Ctx,
    who: Reader,
    session_id: str,
    *,
    after: Annotated[str | None, Query(max_length=200, description="The `id` of the entry to go on after")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
) -> SessionHistory:
    """What was said, asked, decided and answered, and what came of it, oldest first."""
    return await histories.history(ctx, who, session_id, after, limit)


@router.get(
    "/sessions/{session_id}/events",
    response_model=FeedPage,
    responses={200: {"content": {"text/event-stream": {}}, "description": "A page of events, or the live stream"}},
)
async def events(
    request: Request,
    parts: Using,
    who: Reader,
    presented: Presented,
    *,
    session_id: str,
    after: After = None,
    types: Types = None,
    limit: Limit = 100,
    last_event_id: LastEventId = None,
) -> Response:
    """What happens in all runs of a session, from its beginning: server-sent and live, or one page as JSON."""
    scope = OfThread(await sessions.thread_key(parts.context, who, session_id))
    wanted = types.split(",") if types else ()
    return await feed(
        request, parts, who, presented, scope, after=after, last_event_id=last_event_id, types=wanted, limit=limit
    )


@router.delete("/sessions/{session_id}")
async def end(ctx: Ctx, who: Submitter, session_id: str, body: CancelRequest | None = None) -> SessionRecord:
    """End a session. What it runs or asks is cancelled; to let that go on, leave the session alone instead."""
    return await sessions.end(ctx, who, session_id, body.reason if body else "")
