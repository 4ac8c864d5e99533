"""Sessions: conversations with a graph that outlive processes, tabs and people. Begin one, look at it, end it.

A session is a thread of that kind, and each message that begins work is a run of it. What it is at an instant is worked
out from these two (`core.sessions`); kept is only what cannot be: when it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from orchestrator.core.canonical import redact
from orchestrator.core.errors import (
    InvalidInput,
    NotFound,
    NotOwner,
    TooManySessions,
)
from orchestrator.core.model import ApprovalState, Kind, Status
from orchestrator.core.sessions import IDLE, Standing, said
from orchestrator.core.votes import CLOCK
from orchestrator.service import idempotency, threads, views, workflows
from orchestrator.service.context import Caller, Context
from orchestrator.service.settling import settle
from orchestrator.store import approvals, events, sessions
from orchestrator.store import workflows as runs
from orchestrator.store.db import Connection, Params
from orchestrator.store.events import EVENTS_CHANNEL, READY_CHANNEL, Event
from orchestrator.store.workflows import NewWorkflow
from orchestrator.wire import SubmitRequest
from orchestrator.wire_sessions import (
    SessionPage,
    SessionRecord,
    SessionRequest,
    SessionStarted,
    SessionSummary,
)

_BATCH: Final = 100
_LARGEST_PAGE: Final = 200
CLOSED: Final = "closed"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a session may be idle, in seconds, and how many of them one person may have open in a namespace."""

    idle_seconds: float
    most: int


def standing_of(row: Params) -> Standing:
    """What a row with its newest run says."""
    touched = max(one for one in (row["updated_at"], row["run_at"]) if one is not None)
    run = None if row["status"] is None else Status(row["status"])
    return Standing(touched, row["idle_seconds"], run, row["ended_at"])


# Begin


async def start(
    ctx: Context, caller: Caller, request: SessionRequest, limits: Limits, idempotency_key: str | None = None
) -> SessionStarted:
    """Begin a session, with its first run where something is said. TooManySessions past the cap, NotFound for an
    unknown graph, InvalidInput for what the graph does not take.
    """
    caller.need("submit")
    offer = await workflows.offered(ctx, request.graph)
    idle = _idle_seconds(request, limits)
    session_id = workflows.new_id("se")
    first = None
    if request.message is not None or request.input is not None:
        given = request.input if request.message is None else input_of(offer, request.message)
        first = await prepared_run(ctx, caller, request.model_dump(), given or {})
    row: Params = {
        **request.model_dump(), "title": redact.hide(request.title, request.input), "session": session_id,
        "thread_key": workflows.new_id("tk"), "namespace": caller.namespace, "person": caller.person, "idle": idle,
        "now": ctx.clock(),
    }  # fmt: skip
    keyed = idempotency.keyed(ctx, caller, idempotency_key, "session", request)
    async with ctx.db.transaction() as conn:
        if keyed is not None and (earlier := await keyed.keep(conn, session_id)) is not None:
            session_id, first, replayed = earlier, None, True
        else:
            await _insert(ctx, conn, caller, row, limits, first)
            replayed = False
    ring(ctx, caller, first)
    record = _record(*(await current(ctx, caller, session_id)))
    return SessionStarted(**record.model_dump(), replayed=replayed)


def _idle_seconds(request: SessionRequest, limits: Limits) -> float:
    wanted = request.idle_seconds or limits.idle_seconds
    if wanted > limits.idle_seconds:
        detail = f"idle_seconds is {wanted:g}; this server allows at most {limits.idle_seconds:g}"
        raise InvalidInput(detail, field="idle_seconds", allowed=limits.idle_seconds)
    return wanted


def input_of(offer: Params, text: str) -> dict[str, object]:
    """What a user's message is to a graph. InvalidInput where it takes none."""
    return said(offer["traits"].get("says"), text, workflows.new_id("msg"))


async def prepared_run(ctx: Context, caller: Caller, row: Params, given: dict[str, object]) -> NewWorkflow:
    """The next run of a session, to be inserted."""
    named = {name: row[name] for name in ("graph", "mode", "title", "case_id")}
    return await workflows.prepared(ctx, caller, SubmitRequest(**named, input=given))


async def _insert(
    ctx: Context, conn: Connection, caller: Caller, row: Params, limits: Limits, first: NewWorkflow | None
) -> None:
    """The session, unless its person has as many as they may have; counted and inserted with nobody in between."""
    await sessions.take_turn(conn, caller.namespace, caller.person)
    open_now = await _open_sessions(ctx, conn, caller)
    if len(open_now) >= limits.most:
        raise _too_many(open_now, limits)
    await sessions.insert(conn, row)
    if first is not None:
        await threads.insert_run(conn, caller, row["thread_key"], first, ctx.clock())


async def _open_sessions(ctx: Context, conn: Connection, caller: Caller) -> list[Params]:
    """The caller's sessions that are not over, oldest first."""
    found = await sessions.still_open(conn, caller.namespace, caller.person, ctx.clock())
    return [one for one in found if not await _ended(ctx, conn, one)]


def _too_many(open_now: Sequence[Params], limits: Limits) -> TooManySessions:
    now = cast("datetime", open_now[0]["now"])
    first = min(standing_of(one).look_again(now) for one in open_now)
    listed = [
        {"session_id": one["thread_id"], "title": one["title"], "graph": one["graph"],
         "state": standing_of(one).state(now).value, "ends_at": standing_of(one).ends_at}
        for one in open_now
    ]  # fmt: skip
    detail = (
        f"you have {len(open_now)} open sessions, and {limits.most} are allowed; go on in one of them, end one"
        f" (DELETE /sessions/{{session_id}}), or come back when one has been idle for long enough"
    )
    return TooManySessions(detail, sessions=listed, retry_after=(first - now).total_seconds(), allowed=limits.most)


def ring(ctx: Context, caller: Caller, new: NewWorkflow | None) -> None:
    """Tell workers and who watches of a new run, once it is committed."""
    if new is not None:
        ctx.db.ring(READY_CHANNEL, caller.namespace)
        ctx.db.ring(EVENTS_CHANNEL, new.row["workflow_id"], patient=True)


# Look


async def get(ctx: Context, caller: Caller, session_id: str) -> SessionRecord:
    """A session with what it waits for. NotFound."""
    caller.need("read")
    row, asked = await current(ctx, caller, session_id)
    return _record(row, asked)


async def thread_key(ctx: Context, caller: Caller, session_id: str) -> str:
    """What the session's events are found by. NotFound."""
    caller.need("read")
    row, _ = await _read(ctx, caller, session_id)
    return str(row["thread_key"])


async def current(ctx: Context, caller: Caller, session_id: str) -> tuple[Params, list[Params]]:
    """The session's row and what its newest run asks, after what time has done meanwhile. NotFound."""
    row, asked = await _read(ctx, caller, session_id)
    behind = any(one["behind"] for one in asked)
    if behind:
        await settle(ctx, caller.namespace, row["workflow_id"])
    if row["ended_at"] is None and standing_of(row).over(row["now"]):
        async with ctx.db.transaction() as conn:
            await _ended(ctx, conn, row)
        if row["workflow_id"] is not None:
            ctx.db.ring(EVENTS_CHANNEL, row["workflow_id"], patient=True)
        behind = True
    return await _read(ctx, caller, session_id) if behind else (row, asked)


async def _read(ctx: Context, caller: Caller, session_id: str) -> tuple[Params, list[Params]]:
    async with ctx.db.snapshot() as conn:
        row = await sessions.get(conn, caller.namespace, session_id, ctx.clock())
        if row is None:
            raise unknown_session(session_id)
        waits = row["status"] == Status.WAITING
        asked = await approvals.of_workflow(conn, caller.namespace, row["workflow_id"], ctx.clock()) if waits else []
    return row, asked


def unknown_session(session_id: str) -> NotFound:
    """The refusal for a session that is not in the caller's namespace."""
    return NotFound(f"there is no session {session_id!r}", session_id=session_id)


def open_requests(asked: Sequence[Params]) -> list[Params]:
    """Those that wait."""
    return [one for one in asked if one["state"] == ApprovalState.PENDING]


def _summary(row: Params) -> dict[str, object]:
    standing = standing_of(row)
    return {
        **{name: row[name] for name in ("graph", "mode", "title", "case_id", "person", "workflow_id", "created_at",
                                        "idle_seconds", "ended_at", "ended_reason")},
        "session_id": row["thread_id"], "workflow_status": row["status"], "state": standing.state(row["now"]).value,
        "last_activity": standing.touched_at, "ends_at": standing.ends_at,
    }  # fmt: skip


def _record(row: Params, asked: Sequence[Params]) -> SessionRecord:
    waiting = open_requests(asked)
    pending = [views.pending_approval({**one, "now": row["now"]}) for one in waiting]
    return SessionRecord.model_validate(
        {**_summary(row), "pending": pending, "error": views.masked(row["error"]), "note": _note(row, waiting)}
    )


def _note(row: Params, waiting: Sequence[Params]) -> str | None:
    """What there is to know of a session that waits, beyond that it does."""
    ended = row["ended_at"] is not None
    if not waiting:
        return None
    if ended:
        return "The session has ended. What it asked still waits in the queue, and its run goes on once it is decided."
    if all(one["kind"] == Kind.APPROVAL for one in waiting):
        return "It waits for an approval. A message decides nothing; whoever may decide it finds it in the queue."
    if row["mode"] == "autonomous":
        return "It runs autonomously, and asks what its graph declares no default for: somebody has to answer."
    return None


async def page(
    ctx: Context, caller: Caller, *, ended: bool = False, cursor: str | None = None, limit: int = 50
) -> SessionPage:
    """The caller's open sessions, newest first, and then with `ended` those that are over. InvalidInput."""
    caller.need("read")
    size = max(1, min(limit, _LARGEST_PAGE))
    before_at, before_key = workflows.read_cursor(cursor)
    filters: Params = {
        "namespace": caller.namespace, "person": caller.person, "before_at": before_at, "before_key": before_key,
        "limit": size + 1, "now": ctx.clock(),
    }  # fmt: skip
    async with ctx.db.transaction() as conn:
        open_now = await _open_sessions(ctx, conn, caller)
        over = await sessions.ended(conn, filters) if ended else []
    shown = [SessionSummary.model_validate(_summary(one)) for one in over[:size]]
    first = [SessionSummary.model_validate(_summary(one)) for one in reversed(open_now)] if cursor is None else []
    last = over[size - 1] if len(over) > size else None
    following = workflows.cursor_of(last["created_at"], last["thread_key"]) if last else None
    return SessionPage(sessions=[*first, *shown], next_cursor=following)


# End


async def end(ctx: Context, caller: Caller, session_id: str, reason: str = "") -> SessionRecord:
    """End a session: what it runs or asks is cancelled. One that has ended stays as it is. NotFound, NotOwner."""
    caller.need("submit")
    cancelled = None
    async with ctx.db.transaction() as conn:
        row = await sessions.lock(conn, caller.namespace, session_id, ctx.clock())
        if row is None:
            raise unknown_session(session_id)
        if caller.person != row["person"] and "admin" not in caller.permissions:
            detail = f"only {row['person']}, whose session this is, and who has the permission `admin` can end it"
            raise NotOwner(detail, owner=row["person"])
        if not await _ended(ctx, conn, row):
            why = CLOSED if caller.person == row["person"] else f"{CLOSED} by {caller.person}"
            cancelled = await _cancel_run(ctx, conn, caller, row, reason or "the session was ended")
            await _write_end(ctx, conn, row, row["now"], why, caller.person)
    if cancelled is not None:
        workflows.ring_cancelled(ctx, cancelled)
    return _record(*(await current(ctx, caller, session_id)))


async def _cancel_run(ctx: Context, conn: Connection, caller: Caller, row: Params, reason: str) -> str | None:
    """Cancel what is under way in a session that is held; its workflow_id, None where nothing is."""
    if row["workflow_id"] is None:
        return None
    run = await runs.lock(conn, caller.namespace, row["workflow_id"], ctx.clock())
    if run is None or Status(run["status"]).finished:
        return None
    await workflows.cancel_on(conn, caller, run, reason, ctx.clock())
    return str(run["workflow_id"])


async def _ended(ctx: Context, conn: Connection, row: Params) -> bool:
    """Whether a session is over; where it went idle and nobody has written that down, this does."""
    if row["ended_at"] is not None or not standing_of(row).over(row["now"]):
        return row["ended_at"] is not None
    # Somebody may have begun something in it since it was read.
    held = await sessions.lock(conn, row["namespace"], row["thread_id"], ctx.clock())
    if held is None or held["ended_at"] is not None:
        return True
    standing = standing_of(held)
    if not standing.over(held["now"]):
        return False
    await _write_end(ctx, conn, held, standing.ends_at, IDLE, CLOCK)
    return True


async def _write_end(ctx: Context, conn: Connection, row: Params, at: datetime | None, reason: str, actor: str) -> None:
    """End a session that is held; its newest run's events tell of it, for those who watch and for the trail."""
    await sessions.settle(conn, [(row["thread_key"], at, None)], reason)
    if row["workflow_id"] is None:
        return
    await runs.lock(conn, row["namespace"], row["workflow_id"], ctx.clock())
    told: dict[str, object] = {"session_id": row["thread_id"], "reason": reason}
    await events.append(conn, row["workflow_id"], [Event("session-ended", actor, told)], ctx.clock())


async def end_idle(ctx: Context) -> int:
    """End the sessions nobody has done anything in for long enough; returns how many. Any worker may."""
    ended = 0
    while True:
        async with ctx.db.transaction() as conn:
            rows = await sessions.due(conn, _BATCH, ctx.clock())
            over = [row for row in rows if standing_of(row).over(row["now"])]
            for row in over:
                await _write_end(ctx, conn, row, standing_of(row).ends_at, IDLE, CLOCK)
            # The others were not idle all the time: they are looked at again when they could be.
            later = [
                (row["thread_key"], None, standing_of(row).look_again(row["now"])) for row in rows if row not in over
            ]
            await sessions.settle(conn, later, IDLE)
        for row in over:
            if row["workflow_id"] is not None:
                ctx.db.ring(EVENTS_CHANNEL, row["workflow_id"], patient=True)
        ended += len(over)
        if len(rows) < _BATCH:
            return ended
