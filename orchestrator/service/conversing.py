"""Speaking in a session: a message answers the question that waits, or begins the next run. It approves nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from orchestrator.core.errors import (
    AlreadyResolved,
    AmbiguousApproval,
    ApprovalPending,
    InvalidInput,
    ThreadBusy,
)
from orchestrator.core.model import ApprovalState, Kind, Status
from orchestrator.service import approvals as deciding
from orchestrator.service import idempotency, threads, views, workflows
from orchestrator.service.context import Caller, Context
from orchestrator.service.deciding import Choice, unknown_approval
from orchestrator.service.idempotency import Keyed
from orchestrator.service.refusals import audited
from orchestrator.service.sessions import current, input_of, open_requests, prepared_run, ring
from orchestrator.store import approvals, sessions
from orchestrator.store import workflows as runs
from orchestrator.store.db import Connection, Params
from orchestrator.wire_sessions import MessageRequest, MessageTaken


async def send(
    ctx: Context, caller: Caller, session_id: str, request: MessageRequest, idempotency_key: str | None = None
) -> MessageTaken:
    """Say something: it answers the question that waits, else it begins the next run.

    SessionEnded, ThreadBusy while it runs, ApprovalPending where an approval waits, AmbiguousApproval where several
    questions do, AnswerInvalid; InvalidInput for what the graph does not take.
    """
    caller.need_any("submit", "decide")
    row, asked = await current(ctx, caller, session_id)
    keyed = idempotency.keyed(ctx, caller, idempotency_key, f"message {session_id}", request)
    # What was read before this cannot be what the same request has led to: that is found here.
    if keyed is not None and (before := await _before(ctx, caller, session_id, keyed)) is not None:
        return before
    waiting = open_requests(asked)
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
        given = input_of(await workflows.offered(ctx, row["graph"]), request.content)
    new = await prepared_run(ctx, caller, row, given)
    workflow_id = cast("str", new.row["workflow_id"])
    async with ctx.db.transaction() as conn:
        if keyed is not None and (earlier := await keyed.keep(conn, workflow_id)) is not None:
            return await _replayed(conn, caller, row["thread_id"], earlier)
        await threads.insert_run(conn, caller, row["thread_key"], new, ctx.clock())
    ring(ctx, caller, new)
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
