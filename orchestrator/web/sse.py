"""Server-sent events on the wire: how one is written, where a client goes on, and what an answer of them looks like.

Nothing here knows where events come from.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable
from typing import Annotated, Final

from fastapi import Header, Query
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from orchestrator.core.errors import InvalidInput
from orchestrator.wire import EventRecord

SIGN_OF_LIFE: Final = b": still here\n\n"
MAX_CURSOR: Final = 2**63 - 1
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

LastEventId = Annotated[str | None, Header()]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most events of a JSON page")]


def framed(event: EventRecord, cursor: int) -> bytes:
    """One event on the wire. ASCII only, as some clients take other Unicode line ends for the end of a line."""
    data = json.dumps(event.model_dump(mode="json"), separators=(",", ":"))
    return format_sse_event(event=event.type, data_str=data, id=str(cursor))


def wants_json(accept: str) -> bool:
    """Whether a client prefers a JSON page to the stream, by what its `Accept` header names first."""
    kinds = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    if "text/event-stream" in kinds:
        return "application/json" in kinds and kinds.index("application/json") < kinds.index("text/event-stream")
    return "application/json" in kinds


def cursor(last_event_id: str | None, after: int | None) -> int | None:
    """Where to begin. The header wins: a browser that reconnects sends it with the address it began with."""
    if last_event_id is None or not last_event_id.strip():
        return after
    text = last_event_id.strip()
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MAX_CURSOR)) or int(text) > MAX_CURSOR:
        raise InvalidInput("Last-Event-ID: the `id:` of an event, which is a whole number, is expected")
    return int(text)


def streamed(lines: AsyncIterable[bytes]) -> StreamingResponse:
    """The answer that sends each of `lines` as soon as there is one and the client has taken most of those before."""
    return StreamingResponse(lines, media_type="text/event-stream", headers=_HEADERS)
