"""Events over several workflows, in the order of their `position`: what one may see, a case, a thread.

Whoever follows holds no connection to the database while nothing happens.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from orchestrator.service import feeds
from orchestrator.service.context import Caller
from orchestrator.service.feeds import Everything, OfCase, Scope
from orchestrator.web.auth import Presented, Reader, Using
from orchestrator.web.following import PAGE_BYTES, PAGE_EVENTS, Batch, Follower
from orchestrator.web.parts import Parts
from orchestrator.web.sse import MAX_CURSOR, LastEventId, Limit, cursor, standing, streamed, wants_json
from orchestrator.wire_feeds import FeedPage

_ANSWERS: Final[dict[int | str, dict[str, object]]] = {
    200: {"content": {"text/event-stream": {}}, "description": "A page of events, or the live stream"}
}

router = APIRouter(tags=["events"])
After = Annotated[
    int | None, Query(ge=0, le=MAX_CURSOR, description="The `position` to go on after; 0 is the beginning")
]
Types = Annotated[
    str | None,
    Query(
        max_length=1000, pattern="^[a-z-]+(,[a-z-]+)*$", description="Only events of these types, with commas between"
    ),
]


@router.get("/events", response_model=FeedPage, responses=_ANSWERS)
async def everything(
    request: Request,
    parts: Using,
    who: Reader,
    presented: Presented,
    *,
    after: After = None,
    types: Types = None,
    limit: Limit = 100,
    last_event_id: LastEventId = None,
) -> Response:
    """What happens in all workflows: server-sent from now on, or one page when `Accept` asks for `application/json`."""
    wanted = types.split(",") if types else ()
    return await feed(
        request,
        parts,
        who,
        presented,
        Everything(),
        after=after,
        last_event_id=last_event_id,
        types=wanted,
        limit=limit,
    )


@router.get("/cases/{case_id:path}/events", response_model=FeedPage, responses=_ANSWERS)
async def of_case(
    request: Request,
    parts: Using,
    who: Reader,
    presented: Presented,
    *,
    case_id: str,
    after: After = None,
    types: Types = None,
    limit: Limit = 100,
    last_event_id: LastEventId = None,
) -> Response:
    """What happens in a case, from its beginning: server-sent and live, or one page as JSON."""
    scope, wanted = OfCase(case_id), types.split(",") if types else ()
    return await feed(
        request, parts, who, presented, scope, after=after, last_event_id=last_event_id, types=wanted, limit=limit
    )


async def feed(
    request: Request,
    parts: Parts,
    who: Caller,
    presented: str,
    scope: Scope,
    *,
    after: int | None = None,
    last_event_id: str | None = None,
    types: Sequence[str] = (),
    limit: int = 100,
) -> Response:
    """The events of `scope` behind a position: server-sent and live, or one page when `Accept` asks for JSON.

    `after` and `last_event_id` are positions; the header wins. Without any of the two a page begins at the beginning,
    and so does a stream of a case or a thread; one of everything begins now. `types` are the only ones that are wanted.
    """
    begin = cursor(last_event_id, after)
    if wants_json(request.headers.get("accept", "")):
        page = await feeds.page(parts.context, who, scope, begin or 0, limit=limit, types=types)
        return JSONResponse(page.model_dump(mode="json"))
    if begin is None:
        begin = await feeds.begin(parts.context, scope)
    feeding = Feeding(parts, who, presented, scope, types)
    # Where the answer has begun a refusal could no longer be told.
    await feeding.begin(begin)
    return streamed(_lines(feeding, begin))


async def _lines(feeding: Feeding, begin: int) -> AsyncIterator[bytes]:
    # Who is cut off before the first event goes on from here, too.
    yield standing(begin)
    async for batch in feeding.batches(begin):
        yield standing(feeding.cursor) if batch is None else batch.wire


class Feeding(Follower):
    """One who follows several workflows."""

    def __init__(self, parts: Parts, who: Caller, presented: str, scope: Scope, types: Sequence[str] = ()) -> None:
        super().__init__(parts, who, presented)
        self._scope = scope
        self._types = tuple(sorted(set(types)))

    @property
    def topic(self) -> str:
        """What the scope is called where things are rung."""
        return self._scope.topic(self.who.namespace)

    async def begin(self, after: int) -> Batch:
        """The first batch, with everything that was there before this call where that can be told soon."""
        await self.parts.context.horizon.within(1.0)
        return await super().begin(after)

    async def read(self, after: int) -> Batch:
        """What lies behind a cursor, as far as it is known to be complete: whoever wakes us has looked how far."""
        until = self.parts.context.horizon.known
        place = (self.who.namespace, self.topic, (after, until, self._types))
        return await self.parts.hub.read(place, lambda: self._fetch(after, until))

    async def _fetch(self, after: int, until: int) -> Batch:
        page = await feeds.page(
            self.parts.context, self.who, self._scope, after,
            limit=PAGE_EVENTS, size=PAGE_BYTES, types=self._types, until=until,
        )  # fmt: skip
        return Batch(page.events, page.next_position, page.more)
