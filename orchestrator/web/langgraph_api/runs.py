"""`/threads/{id}/runs` and `/runs` of the LangGraph API: begun, resumed, waited for, followed, joined and cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Literal, cast
from urllib.parse import quote

from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse, Response, StreamingResponse

from orchestrator.core.errors import InvalidInput, NotFound, Unsupported
from orchestrator.service import assistants, conversations, runs, states
from orchestrator.service.context import Caller, Context
from orchestrator.service.runs import Run
from orchestrator.service.threads import Thread
from orchestrator.web.auth import Ctx, Editor, Presented, Reader, Submitter, Using
from orchestrator.web.langgraph_api import shapes, streams
from orchestrator.web.langgraph_api.visit import visit
from orchestrator.wire_langgraph import RunCreate, RunsCancel

router = APIRouter(tags=["runs"])
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]
Modes = Annotated[list[str] | None, Query()]
LastEventId = Annotated[str | None, Header()]
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
# What a client may not do to a thread, and what it can do instead.
_COMMANDS = {
    "goto": "nobody jumps past what a graph asks; answer it (`resume`), or leave it undone by an update of the state as"
    ' `"__end__"`',
    "update": "a thread's state is changed by its graph alone; send an input, or answer what it asks (`resume`)",
}


# Beginning


async def _begun(ctx: Context, who: Caller, thread: Thread, body: RunCreate) -> Run:
    # Who joins later gets the modes that were asked for.
    kwargs: dict[str, object] = {"stream_mode": list(streams.modes_of(body.stream_mode))}
    graph = (await assistants.find(ctx, body.assistant_id)).graph
    _check(body)
    await states.check_head(ctx, thread, body.checkpoint_id or shapes.checkpoint_id_of(body.checkpoint))
    command = {key: value for key, value in (body.command or {}).items() if value is not None}
    if not command:
        return await runs.start(
            ctx, who, thread, graph=graph, content=_content(body.input), metadata=body.metadata, kwargs=kwargs
        )
    for name, why in _COMMANDS.items():
        if command.get(name):
            raise Unsupported(f"`command.{name}` is not taken: {why}", field=f"command.{name}")
    if "resume" not in command:
        raise InvalidInput("`command` holds no `resume`; send the answer there, or an `input` without a command")
    if body.input not in (None, {}, []):
        raise InvalidInput("a run has an `input` or a `command`; send the answer first, and the input when it is done")
    if thread.graph is not None and graph != thread.graph:
        raise InvalidInput(f"the thread belongs to graph {thread.graph!r}, not to {graph!r}", graph=thread.graph)
    return await runs.resume(
        ctx, who, thread, command["resume"], metadata=body.metadata, kwargs={**kwargs, "resumes": True}
    )


def _content(given: object) -> Mapping[str, object]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InvalidInput("`input` is an object with what the graph takes")
    return cast("dict[str, object]", given)


def _check(body: RunCreate) -> None:
    """Refuse what would change how the graph runs."""
    configurable = body.config.get("configurable")
    named = {
        "interrupt_before": body.interrupt_before, "interrupt_after": body.interrupt_after, "context": body.context,
        "config.configurable": configurable, "webhook": body.webhook, "after_seconds": body.after_seconds,
    }  # fmt: skip
    given = [name for name, value in named.items() if value]
    if given:
        why = "how a graph runs and where it stops is its author's and the policies'"
        if given[0] in ("webhook", "after_seconds"):
            why = "nothing is called when a run ends, and no run is put off"
        detail = f"`{given[0]}` is not taken: {why}"
        raise Unsupported(f"{detail}; leave it out", field=given[0])


async def _thread(ctx: Context, who: Caller, thread_id: str, body: RunCreate) -> Thread:
    try:
        return await conversations.find(ctx, who, thread_id)
    except NotFound:
        if body.if_not_exists != "create":
            raise
    return await conversations.create(ctx, who, thread_id, if_exists="do_nothing")


async def _own_thread(ctx: Context, who: Caller, body: RunCreate) -> Thread:
    """The thread of a run that was sent without one: it is kept, as somebody may be asked on it."""
    if body.command:
        raise InvalidInput("a run without a thread has nothing to resume; send the command to the thread that waits")
    # Looked for first: no thread is made for a run that cannot be.
    await assistants.find(ctx, body.assistant_id)
    _check(body)
    return await conversations.create(ctx, who)


def _located(run: Run, end: str) -> dict[str, str]:
    """Where the run is, and where to go on when the connection breaks."""
    at = f"/threads/{quote(run.thread_id, safe='')}/runs/{run.run_id}"
    return {**_HEADERS, "Content-Location": at, "Location": f"{at}{end}"}


def _created(run: Run) -> JSONResponse:
    return JSONResponse(shapes.run(run), status_code=201, headers=_located(run, ""))


async def _followed(parts: Using, who: Caller, presented: str, run: Run, modes: tuple[str, ...]) -> Response:
    at = await visit(parts, who, presented, run)
    return _sse(streams.lines(at, run, modes, run.after_seq), run)


def _sse(lines: AsyncIterator[bytes], run: Run) -> Response:
    return StreamingResponse(lines, media_type="text/event-stream", headers=_located(run, "/stream"))


async def _waited(parts: Using, who: Caller, presented: str, run: Run) -> Response:
    at = await visit(parts, who, presented, run)
    return StreamingResponse(
        streams.awaited(at, run), media_type="application/json", headers=_located(run, "/join")
    )  # fmt: skip


@router.post("/threads/{thread_id}/runs", response_model=None, status_code=201)
async def create(ctx: Ctx, who: Editor, thread_id: str, body: RunCreate) -> Response:
    """Begin a run, or answer what the thread asks; the answer does not wait for it."""
    streams.modes_of(body.stream_mode)
    return _created(await _begun(ctx, who, await _thread(ctx, who, thread_id, body), body))


@router.post("/threads/{thread_id}/runs/stream", response_model=None)
async def stream(parts: Using, who: Editor, presented: Presented, thread_id: str, body: RunCreate) -> Response:
    """The same, followed to its pause or its end."""
    modes = streams.modes_of(body.stream_mode)
    ctx = parts.context
    run = await _begun(ctx, who, await _thread(ctx, who, thread_id, body), body)
    return await _followed(parts, who, presented, run, modes)


@router.post("/threads/{thread_id}/runs/wait", response_model=None)
async def wait(parts: Using, who: Editor, presented: Presented, thread_id: str, body: RunCreate) -> Response:
    """The same, answered with the thread's values when the run pauses or ends."""
    ctx = parts.context
    run = await _begun(ctx, who, await _thread(ctx, who, thread_id, body), body)
    return await _waited(parts, who, presented, run)


# Without a thread


@router.post("/runs", response_model=None, status_code=201)
async def create_alone(ctx: Ctx, who: Submitter, body: RunCreate) -> Response:
    """Begin a run on a thread of its own."""
    return _created(await _begun(ctx, who, await _own_thread(ctx, who, body), body))


@router.post("/runs/stream", response_model=None)
async def stream_alone(parts: Using, who: Submitter, presented: Presented, body: RunCreate) -> Response:
    """The same, followed to its pause or its end."""
    modes = streams.modes_of(body.stream_mode)
    run = await _begun(parts.context, who, await _own_thread(parts.context, who, body), body)
    return await _followed(parts, who, presented, run, modes)


@router.post("/runs/wait", response_model=None)
async def wait_alone(parts: Using, who: Submitter, presented: Presented, body: RunCreate) -> Response:
    """The same, answered with the thread's values when the run pauses or ends."""
    run = await _begun(parts.context, who, await _own_thread(parts.context, who, body), body)
    return await _waited(parts, who, presented, run)


# Runs that there are


@router.get("/threads/{thread_id}/runs", response_model=None)
async def listed(
    ctx: Ctx, who: Reader, thread_id: str, limit: Limit = 10, offset: Offset = 0, status: str | None = None
) -> JSONResponse:
    """A thread's runs, newest first."""
    found = await runs.of_thread(ctx, who, await conversations.find(ctx, who, thread_id))
    wanted = [one for one in found if status is None or one.status == status]
    return JSONResponse([shapes.run(one) for one in wanted[offset : offset + limit]])


async def _find(ctx: Context, who: Caller, thread_id: str, run_id: str) -> Run:
    return await runs.find(ctx, who, await conversations.find(ctx, who, thread_id), run_id)


@router.get("/threads/{thread_id}/runs/{run_id}", response_model=None)
async def get(ctx: Ctx, who: Reader, thread_id: str, run_id: str) -> JSONResponse:
    """A run."""
    return JSONResponse(shapes.run(await _find(ctx, who, thread_id, run_id)))


@router.delete("/threads/{thread_id}/runs/{run_id}", response_model=None)
async def delete(ctx: Ctx, who: Submitter, thread_id: str, run_id: str) -> Response:
    """Refused: what ran is part of the trail."""
    await _find(ctx, who, thread_id, run_id)
    raise Unsupported("a run is part of the audit trail and is not deleted; cancel it, or delete its thread")


@router.get("/threads/{thread_id}/runs/{run_id}/join", response_model=None)
async def join(parts: Using, who: Reader, presented: Presented, thread_id: str, run_id: str) -> Response:
    """The thread's values when the run has paused or ended."""
    return await _waited(parts, who, presented, await _find(parts.context, who, thread_id, run_id))


@router.get("/threads/{thread_id}/runs/{run_id}/stream", response_model=None)
async def join_stream(
    parts: Using,
    who: Reader,
    presented: Presented,
    *,
    thread_id: str,
    run_id: str,
    stream_mode: Modes = None,
    last_event_id: LastEventId = None,
) -> Response:
    """The run from behind `Last-Event-ID`, or from its beginning, to its pause or its end."""
    run = await _find(parts.context, who, thread_id, run_id)
    kept = cast("list[str] | None", run.kwargs.get("stream_mode"))
    # Clients send an empty text where they leave the modes out.
    modes = streams.modes_of([one for one in stream_mode or () if one] or kept)
    begin = streams.begin_of(run, last_event_id)
    return _sse(streams.lines(await visit(parts, who, presented, run), run, modes, begin), run)


@router.post("/threads/{thread_id}/runs/{run_id}/cancel", response_model=None)
async def cancel(
    ctx: Ctx,
    who: Submitter,
    thread_id: str,
    run_id: str,
    wait: bool = False,
    action: Literal["interrupt", "rollback"] = "interrupt",
) -> Response:
    """End a run that is queued, running or waiting, at once."""
    run = await _find(ctx, who, thread_id, run_id)
    await _cancel(ctx, who, run, action)
    return Response(status_code=204 if wait else 202)


@router.post("/runs/cancel", response_model=None)
async def cancel_many(
    ctx: Ctx, who: Submitter, body: RunsCancel, action: Literal["interrupt", "rollback"] = "interrupt"
) -> Response:
    """End several runs of a thread."""
    if body.thread_id is None or not body.run_ids or body.status is not None:
        raise Unsupported("name the runs to cancel, by `thread_id` and `run_ids`")
    for run in [await _find(ctx, who, body.thread_id, run_id) for run_id in body.run_ids]:
        await _cancel(ctx, who, run, action)
    return Response(status_code=204)


async def _cancel(ctx: Context, who: Caller, run: Run, action: str) -> None:
    if action == "rollback":
        raise Unsupported("what a run did is not rolled back: its trail stays; cancel it with `action=interrupt`")
    await runs.cancel(ctx, who, run)
