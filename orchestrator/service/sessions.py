"""Sessions: conversations with a graph that outlive processes, tabs and people. Begin one, speak in it, look, end it.

A session is a thread of that kind, and each message that begins work is a run of it. What it is at an instant is worked
out from these two (`core.sessions`); kept is only what cannot be: when it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from orchestrator.core.errors import (
    AlreadyResolved,
    AmbiguousApproval,
    ApprovalPending,
    InvalidInput,
    NotFound,
    NotOwner,
    ThreadBusy,
    TooManySessions,
)
from orchestrator.core.model import ApprovalState, Kind, Status
from orchestrator.core.sessions import IDLE, Standing, said
from orchestrator.service import approvals as deciding
from orchestrator.service import idempotency, threads, views, workflows
from orchestrator.service.context import Caller, Context
from orchestrator.service.deciding import Choice, unknown_approval
from orchestrator.service.idempotency import Keyed
from orchestrator.service.refusals import audited
from orchestrator.service.settling import settle
from orchestrator.store import approvals, sessions
from orchestrator.store import workflows as runs
from orchestrator.store.db import Connection, Params
from orchestrator.store.events import EVENTS_CHANNEL, READY_CHANNEL
from orchestrator.store.workflows import NewWorkflow
from orchestrator.wire import SubmitRequest
from orchestrator.wire_sessions import (
    MessageRequest,
    MessageTaken,
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
        given = request.input if request.message is None else _said(offer, request.message)
        first = await _prepared(ctx, caller, request.model_dump(), given or {})
    row: Params = {
        **request.model_dump(), "thread_key": workflows.new_id("tk"), "namespace": caller.namespace,
        "session": session_id, "person": caller.person, "idle": idle, "now": ctx.clock(),
    }  # fmt: skip
    keyed = idempotency.keyed(ctx, caller, idempotency_key, "session", request)
    async with ctx.db.transaction() as conn:
        if keyed is not None and (earlier := await keyed.keep(conn, session_id)) is not None:
            session_id, first, replayed = earlier, None, True
        else:
            await _insert(ctx, conn, caller, row, limits, first)
            replayed = False
    _ring(ctx, caller, first)
    return SessionStarted(**(await get(ctx, caller, session_id)).model_dump(), replayed=replayed)


def _idle_seconds(request: SessionRequest, limits: Limits) -> float:
    wanted = request.idle_seconds or limits.idle_seconds
    if wanted > limits.idle_seconds:
        detail = f"idle_seconds is {wanted:g}; this server allows at most {limits.idle_seconds:g}"
        raise InvalidInput(detail, field="idle_seconds", allowed=limits.idle_seconds)
    return wanted


def _said(offer: Params, text: str) -> dict[str, object]:
    return said(offer["traits"].get("says"), text, workflows.new_id("msg"))


async def _prepared(ctx: Context, caller: Caller, row: Params, given: dict[str, object]) -> NewWorkflow:
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


def _ring(ctx: Context, caller: Caller, new: NewWorkflow | None) -> None:
    if new is not None:
        ctx.db.ring(READY_CHANNEL, caller.namespace)
        ctx.db.ring(EVENTS_CHANNEL, new.row["workflow_id"], patient=True)


# Look


async def get(ctx: Context, caller: Caller, session_id: str) -> SessionRecord:
    """A session with what it waits for. NotFound."""
    caller.need("read")
    row, asked = await _current(ctx, caller, session_id)
    return _record(row, asked)


async def thread_key(ctx: Context, caller: Caller, session_id: str) -> str:
    """What the session's events are found by. NotFound."""
    caller.need("read")
    row, _ = await _read(ctx, caller, session_id)
    return str(row["thread_key"])


async def _current(ctx: Context, caller: Caller, session_id: str) -> tuple[Params, list[Params]]:
    """The session's row and what its newest run asks, after what time has done meanwhile. NotFound."""
    row, asked = await _read(ctx, caller, session_id)
    behind = any(one["behind"] for one in asked)
    if behind:
        await settle(ctx, caller.namespace, row["workflow_id"])
    if row["ended_at"] is None and standing_of(row).over(row["now"]):
        async with ctx.db.transaction() as conn:
            await _ended(ctx, conn, row)
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


def _open_requests(asked: Sequence[Params]) -> list[Params]:
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
    waiting = _open_requests(asked)
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


# Speak


async def send(
    ctx: Context, caller: Caller, session_id: str, request: MessageRequest, idempotency_key: str | None = None
) -> MessageTaken:
    """Say something: it answers the question that waits, else it begins the next run.

    SessionEnded, ThreadBusy while it runs, ApprovalPending where an approval waits, AmbiguousApproval where several
    questions do, AnswerInvalid; InvalidInput for what the graph does not take.
    """
    caller.need_any("submit", "decide")
    row, asked = await _current(ctx, caller, session_id)
    keyed = idempotency.keyed(ctx, caller, idempotency_key, f"message {session_id}", request)
    # What was read before this cannot be what the same request has led to: that is found here.
    if keyed is not None and (before := await _before(ctx, caller, session_id, keyed)) is not None:
        return before
    waiting = _open_requests(asked)
    if row["ended_at"] is not None:
        listed = _listed(waiting)
        raise threads.session_over(row["thread_id"], row["ended_at"], row["ended_reason"], approvals=listed)
    meant = request.approval_id or _question(request, waiting)
    if meant is None:
        return await _begin(ctx, caller, row, request, keyed)
    return await _answer(ctx, caller, row, meant, request, keyed)


async def _before(ctx: Context, caller: Caller, session_id: str, keyed: Keyed) -> MessageTaken | None:
    async with ctx.db.connection() as conn:
        earlier = await keyed.earlier(conn)
        return None if earlier is None else await _replayed(conn, caller, session_id, earlier)


async def _replayed(conn: Connection, caller: Caller, session_id: str, subject: str) -> MessageTaken:
    answered = await approvals.workflow_of(conn, caller.namespace, subject)
    workflow_id = answered or subject
    row = await runs.get(conn, caller.namespace, workflow_id)
    return MessageTaken(
        session_id=session_id, did="began" if answered is None else "answered", workflow_id=workflow_id,
        status=row["status"] if row else "deleted", approval_id=None if answered is None else subject, replayed=True,
    )  # fmt: skip


def _listed(waiting: Sequence[Params]) -> list[dict[str, object]]:
    names = ("approval_id", "kind", "description", "node")
    return [{name: views.masked(one[name]) for name in names} for one in waiting]


def _question(request: MessageRequest, waiting: Sequence[Params]) -> str | None:
    """The question that a message answers; None where nothing is asked."""
    questions = [one for one in waiting if one["kind"] == Kind.QUESTION]
    if waiting and not questions:
        raise _approval_pending(waiting)
    if not questions:
        return None
    if request.input is not None:
        detail = "a question waits for its answer; send `content` to answer it, or end the run before another begins"
        raise ThreadBusy(detail, status=Status.WAITING.value, approvals=_listed(waiting))
    if len(questions) > 1:
        detail = f"{len(questions)} questions wait for an answer; say which is meant with `approval_id`"
        raise AmbiguousApproval(detail, approvals=_listed(questions))
    return str(questions[0]["approval_id"])


def _approval_pending(waiting: Sequence[Params]) -> ApprovalPending:
    detail = (
        "an approval waits, and a message is never one: it is decided at POST /approvals/{approval_id}/votes by whoever"
        " may. Cancel the run to go on without it"
    )
    return ApprovalPending(detail, approvals=_listed(waiting))


async def _begin(
    ctx: Context, caller: Caller, row: Params, request: MessageRequest, keyed: Keyed | None
) -> MessageTaken:
    caller.need("submit")
    given = request.input
    if given is None:
        if not isinstance(request.content, str):
            raise InvalidInput("`content` must be a text here: nothing is asked that takes another answer")
        given = _said(await workflows.offered(ctx, row["graph"]), request.content)
    new = await _prepared(ctx, caller, row, given)
    workflow_id = cast("str", new.row["workflow_id"])
    async with ctx.db.transaction() as conn:
        if keyed is not None and (earlier := await keyed.keep(conn, workflow_id)) is not None:
            return await _replayed(conn, caller, row["thread_id"], earlier)
        await threads.insert_run(conn, caller, row["thread_key"], new, ctx.clock())
    _ring(ctx, caller, new)
    return MessageTaken(
        session_id=row["thread_id"], did="began", workflow_id=workflow_id, status=Status.READY.value, approval_id=None
    )


async def _answer(
    ctx: Context, caller: Caller, row: Params, approval_id: str, request: MessageRequest, keyed: Keyed | None
) -> MessageTaken:
    meant = await deciding.current(ctx, caller, approval_id)
    workflow_id = cast("str", meant["workflow_id"])
    async with ctx.db.connection() as conn:
        if not await sessions.is_run(conn, workflow_id, row["thread_key"]):
            raise unknown_approval(approval_id)
    if meant["kind"] == Kind.APPROVAL:
        if meant["state"] == ApprovalState.PENDING:
            raise _approval_pending([meant])
        detail = f"the request is {meant['state']} already, by {meant['resolved_by']}; a message decides nothing"
        raise AlreadyResolved(detail, state=meant["state"], resolved_by=meant["resolved_by"])
    choice = Choice(None, approval_id=approval_id, answer=request.content)
    async with audited(ctx, caller, workflow_id, verdict="answer", approval_id=approval_id):
        caller.need("decide")
        decided = await deciding.decide_held(ctx, caller, workflow_id, choice, keyed)
    return MessageTaken(
        session_id=row["thread_id"], did="answered", workflow_id=workflow_id, status=decided.status,
        approval_id=approval_id, replayed=decided.code == "replayed",
    )  # fmt: skip


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
            await sessions.settle(conn, [(row["thread_key"], row["now"], None)], why)
            cancelled = await _cancel_run(ctx, conn, caller, row, reason or "the session was ended")
    if cancelled is not None:
        workflows.ring_cancelled(ctx, cancelled)
    return await get(ctx, caller, session_id)


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
    await sessions.settle(conn, [(held["thread_key"], standing.ends_at, None)], IDLE)
    return True


async def end_idle(ctx: Context) -> int:
    """End the sessions nobody has done anything in for long enough; returns how many. Any worker may."""
    ended = 0
    while True:
        async with ctx.db.transaction() as conn:
            rows = await sessions.due(conn, _BATCH, ctx.clock())
            found = [(row["thread_key"], *_settled(standing_of(row), row["now"])) for row in rows]
            await sessions.settle(conn, found, IDLE)
        ended += sum(at is not None for _, at, _ in found)
        if len(rows) < _BATCH:
            return ended


def _settled(standing: Standing, now: datetime) -> tuple[datetime | None, datetime | None]:
    """When it ended, or when to look again."""
    return (standing.ends_at, None) if standing.over(now) else (None, standing.look_again(now))
