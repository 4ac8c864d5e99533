"""`/threads` of the LangGraph API: made, found, described, copied, put away; and their states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from orchestrator.core.errors import Unsupported
from orchestrator.service import conversations, states
from orchestrator.service.conversations import Wanted
from orchestrator.service.threads import Thread
from orchestrator.web.auth import Ctx, Editor, Reader, Submitter
from orchestrator.web.langgraph_api import shapes
from orchestrator.wire_langgraph import (
    CheckpointWanted,
    HistoryWanted,
    StateUpdate,
    ThreadCreate,
    ThreadPatch,
    ThreadSearch,
)

router = APIRouter(tags=["threads"])
Limit = Annotated[int, Query(ge=1, le=1000)]
_END = ("__end__", "END")


@router.post("/threads", response_model=None)
async def create(ctx: Ctx, who: Submitter, body: ThreadCreate | None = None) -> JSONResponse:
    """A new thread, under an id of the caller's or of ours."""
    wanted = body or ThreadCreate.model_validate({})
    if wanted.supersteps:
        raise Unsupported(
            "a thread begins empty: its state is what its graph makes of its inputs; leave `supersteps` out"
        )
    made = await conversations.create(
        ctx, who, wanted.thread_id, metadata=wanted.metadata, if_exists=wanted.if_exists or "raise"
    )
    return await _told(ctx, who, made, wanted.metadata)


async def _told(ctx: Ctx, who: Reader, found: Thread, sent: Mapping[str, object]) -> JSONResponse:
    """The thread, of which somebody who may not read sees what they sent."""
    if "read" not in who.permissions:
        return JSONResponse(shapes.thread(replace(found, metadata=sent), states.ThreadState()))
    return JSONResponse(shapes.thread(found, await states.state(ctx, who, found)))


@router.post("/threads/search", response_model=None)
async def search(ctx: Ctx, who: Reader, body: ThreadSearch | None = None) -> JSONResponse:
    """Threads with their values and what they wait for; workflows that were begun otherwise are among them."""
    wanted = body or ThreadSearch.model_validate({})
    found = await conversations.search(ctx, who, _wanted(wanted))
    note = not wanted.select or "interrupts" in wanted.select
    values = await states.newest(ctx, who, found, note=note)
    rows = [shapes.thread(*pair) for pair in zip(found, values, strict=True)]
    return JSONResponse([shapes.selected(row, wanted.select) for row in rows])


@router.post("/threads/count", response_model=None)
async def count(ctx: Ctx, who: Reader, body: ThreadSearch | None = None) -> JSONResponse:
    """How many threads there are of a kind."""
    return JSONResponse(await conversations.count(ctx, who, _wanted(body or ThreadSearch.model_validate({}))))


def _wanted(body: ThreadSearch) -> Wanted:
    if body.values or body.extract:
        raise Unsupported("threads are found by their metadata, status and ids; leave `values` and `extract` out")
    return Wanted(
        body.metadata, body.ids, body.status, body.sort_by or "created_at", body.sort_order == "asc", body.limit,
        body.offset,
    )  # fmt: skip


@router.get("/threads/{thread_id}", response_model=None)
async def get(ctx: Ctx, who: Reader, thread_id: str) -> JSONResponse:
    """A thread."""
    found = await conversations.find(ctx, who, thread_id)
    return JSONResponse(shapes.thread(found, await states.state(ctx, who, found)))


@router.patch("/threads/{thread_id}", response_model=None)
async def patch(ctx: Ctx, who: Submitter, thread_id: str, body: ThreadPatch) -> JSONResponse:
    """Add to a thread's metadata."""
    found = await conversations.patch(ctx, who, await conversations.find(ctx, who, thread_id), body.metadata)
    return await _told(ctx, who, found, body.metadata)


@router.delete("/threads/{thread_id}", response_model=None, status_code=204)
async def delete(ctx: Ctx, who: Submitter, thread_id: str) -> Response:
    """Show a thread no more; what happened on it stays in the trail."""
    await conversations.delete(ctx, who, await conversations.find(ctx, who, thread_id))
    return Response(status_code=204)


@router.post("/threads/{thread_id}/copy", response_model=None)
async def copy(ctx: Ctx, who: Submitter, thread_id: str) -> JSONResponse:
    """A new thread with the state of this one, and with nothing of what this one asks."""
    made = await conversations.copy(ctx, who, await conversations.find(ctx, who, thread_id))
    return JSONResponse(shapes.thread(made, await states.state(ctx, who, made)))


@router.get("/threads/{thread_id}/state", response_model=None)
async def state(ctx: Ctx, who: Reader, thread_id: str) -> JSONResponse:
    """A thread's newest state."""
    found = await conversations.find(ctx, who, thread_id)
    return JSONResponse(shapes.state(found, await states.state(ctx, who, found)))


@router.get("/threads/{thread_id}/state/{checkpoint_id}", response_model=None)
async def state_at(ctx: Ctx, who: Reader, thread_id: str, checkpoint_id: str) -> JSONResponse:
    """A thread's state at one of its checkpoints."""
    found = await conversations.find(ctx, who, thread_id)
    return JSONResponse(shapes.state(found, await states.state(ctx, who, found, checkpoint_id)))


@router.post("/threads/{thread_id}/state/checkpoint", response_model=None)
async def state_of(ctx: Ctx, who: Reader, thread_id: str, body: CheckpointWanted) -> JSONResponse:
    """The same, by a checkpoint as states have it."""
    found = await conversations.find(ctx, who, thread_id)
    wanted = shapes.checkpoint_id_of(body.checkpoint)
    return JSONResponse(shapes.state(found, await states.state(ctx, who, found, wanted)))


@router.post("/threads/{thread_id}/state", response_model=None)
async def update(ctx: Ctx, who: Editor, thread_id: str, body: StateUpdate) -> JSONResponse:
    """Leave what a thread asks undone (`as_node: "__end__"` and no values); no other change is taken."""
    if body.as_node not in _END or body.values not in (None, {}, []):
        detail = (
            "a thread's state is changed by its graph alone: what runs must be what was approved. To leave undone what"
            ' it asks, send `as_node: "__end__"` without values; to go on, send a run with an input or a resume'
        )
        raise Unsupported(detail)
    found = await conversations.find(ctx, who, thread_id)
    await states.check_head(ctx, found, body.checkpoint_id or shapes.checkpoint_id_of(body.checkpoint))
    await conversations.ignore(ctx, who, found)
    head = await states.head(ctx, found) if "read" in who.permissions else None
    return JSONResponse({"checkpoint": shapes.checkpoint(thread_id, head)})


@router.post("/threads/{thread_id}/history", response_model=None)
async def history(ctx: Ctx, who: Reader, thread_id: str, body: HistoryWanted | None = None) -> JSONResponse:
    """A thread's stored states, newest first."""
    wanted = body or HistoryWanted.model_validate({})
    return await _history(ctx, who, thread_id, wanted.limit, shapes.checkpoint_id_of(wanted.before))


@router.get("/threads/{thread_id}/history", response_model=None)
async def history_page(
    ctx: Ctx, who: Reader, thread_id: str, limit: Limit = 10, before: Annotated[str | None, Query()] = None
) -> JSONResponse:
    """The same, asked for by its address."""
    return await _history(ctx, who, thread_id, limit, before)


async def _history(ctx: Ctx, who: Reader, thread_id: str, limit: int, before: str | None) -> JSONResponse:
    found = await conversations.find(ctx, who, thread_id)
    listed = await states.history(ctx, who, found, limit, before)
    return JSONResponse([shapes.state(found, one) for one in listed])
