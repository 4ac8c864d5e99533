"""Resuming a workflow with the values that LangGraph's own interfaces carry, be it by their API or by AG-UI.

Each value is read in the dialect of the interrupt it is for. All of it is checked before anything is applied; then each
decision is a transaction of its own, by the same use cases that every other channel calls. Nothing here decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

from pydantic import ValidationError

from orchestrator.core.errors import (
    AlreadyResolved,
    AnswerInvalid,
    InvalidInput,
    KeyturnError,
    MoreApprovalsNeeded,
    NotOwner,
)
from orchestrator.core.model import ApprovalState, Status, Verdict
from orchestrator.engine import answering
from orchestrator.engine.answering import Reply
from orchestrator.service import acting, approvals, explain, interrupts
from orchestrator.service.context import Caller, Context
from orchestrator.service.deciding import Choice, judge
from orchestrator.service.interrupts import Asked, Meant
from orchestrator.service.refusals import audited, unknown
from orchestrator.service.settling import settle
from orchestrator.store import approvals as rows_of
from orchestrator.store import seen, workflows
from orchestrator.store.db import Params
from orchestrator.wire import AnswerRequest, Decided, EditRequest, VoteRequest, WithdrawRequest

# Answers that one request carries.
MOST = 100
# How a verdict of a client's shows in a request that has ended.
_ENDED_AS = {"approve": {"approved", "executed"}, "reject": {"rejected"}}
Body: TypeAlias = VoteRequest | AnswerRequest | EditRequest | WithdrawRequest


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer of a client. Without an `interrupt_id` it is for the only interrupt that waits; `cancelled` says that
    the client wants nothing of it to happen.
    """

    interrupt_id: str | None
    value: object = None
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class _Step:
    """One decision, checked and ready to be applied. `ends`: it ends the workflow."""

    row: Params
    body: Body
    ends: bool


def entries_of(value: object) -> list[Entry]:
    """The entries of LangGraph's `Command(resume=value)`: a mapping of interrupt ids to answers, or one answer."""
    answers: Mapping[str, object] = cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}
    if any(interrupts.looks_like_id(key) for key in answers):
        return [Entry(key, answer) for key, answer in answers.items()]
    return [Entry(None, cast("object", value))]


async def resume(ctx: Context, caller: Caller, workflow_id: str, entries: Sequence[Entry]) -> list[Decided]:
    """Decide as the entries say; what policy keeps short of its quorum comes back with the state `pending`.

    Raises UnknownInterrupt, AmbiguousApproval, AnswerInvalid, AlreadyResolved (also for one's own answer again),
    Expired, StaleRevision and whatever refuses a vote; then nothing was applied. Only where somebody else was first in
    between, the facts of the refusal name as `applied` what was.
    """
    async with audited(ctx, caller, workflow_id, wanted="resume"):
        caller.need("decide")
        status, groups = await _asked(ctx, caller, workflow_id)
        if any(one.interrupt_id is None for one in entries) and sum(1 for one in groups if one.pending) == 1:
            await _check_seen(ctx, caller, workflow_id, groups)
        steps = [
            await _checked(ctx, caller, row, reply)
            for meant, entry in _meant(groups, status, entries)
            for row, reply in _replies(meant, entry)
        ]
    return await _apply_all(ctx, caller, sorted(steps, key=lambda step: step.ends))


async def check_seen(ctx: Context, caller: Caller, workflow_id: str) -> None:
    """Refuse what is meant for all that waits and comes from somebody who has not seen it. AlreadyResolved."""
    _, groups = await _asked(ctx, caller, workflow_id)
    await _check_seen(ctx, caller, workflow_id, groups)


async def short_of(ctx: Context, caller: Caller, decided: Sequence[Decided]) -> MoreApprovalsNeeded | None:
    """What to tell somebody whose answers were recorded and did not suffice; None where they did."""
    open_now = [one for one in decided if one.state == ApprovalState.PENDING]
    if not open_now:
        return None
    reader = replace(caller, permissions=caller.permissions | {"read"})
    told: list[dict[str, object]] = []
    for one in open_now:
        why = await explain.approval(ctx, reader, one.approval_id)
        told.append(
            {"approval_id": one.approval_id, "code": one.code, "stages": why.stages, "filled": dict(why.filled),
             "can_decide": list(why.can_decide)}
        )  # fmt: skip
    names = sorted({str(name) for one in told for name in cast("Sequence[str]", one["can_decide"])})
    done = "the edit is recorded" if open_now[0].code == "revised" else "your vote is recorded"
    missing = f"still needed is one of: {', '.join(names)}" if names else "nobody else may decide it at this time"
    detail = f"{done}, and the policy wants more people to agree before the graph goes on; {missing}"
    return MoreApprovalsNeeded(detail, approvals=told, workflow_id=open_now[0].workflow_id)


# Checking


async def _asked(ctx: Context, caller: Caller, workflow_id: str) -> tuple[str, list[Asked]]:
    """What the workflow is and has asked, after what time has done meanwhile."""
    status, rows = await _rows(ctx, caller, workflow_id)
    if any(row["behind"] for row in rows):
        await settle(ctx, caller.namespace, workflow_id)
        status, rows = await _rows(ctx, caller, workflow_id)
    return status, interrupts.grouped(rows)


async def _rows(ctx: Context, caller: Caller, workflow_id: str) -> tuple[str, list[Params]]:
    async with ctx.db.snapshot() as conn:
        workflow = await workflows.get(conn, caller.namespace, workflow_id)
        if workflow is None:
            raise unknown(workflow_id)
        return workflow["status"], await rows_of.of_workflow(conn, caller.namespace, workflow_id, ctx.clock())


async def _check_seen(ctx: Context, caller: Caller, workflow_id: str, groups: Sequence[Asked]) -> None:
    """An answer without a name, sent late or twice, must not meet a question that its sender has not seen."""
    waiting = [one for one in groups if one.pending]
    async with ctx.db.connection() as conn:
        row = await workflows.get(conn, caller.namespace, workflow_id)
        thread_key = row["thread_key"] if row else None
        if not await seen.decided_before(conn, workflow_id, thread_key):
            return
        if await seen.by(conn, caller.person, [row["approval_id"] for one in waiting for row in one.pending]):
            return
    # Whoever was faster may have decided since `groups` was read.
    _, groups = await _asked(ctx, caller, workflow_id)
    ended = [each for one in groups if not one.pending for each in one.rows if each["resolved_at"] is not None]
    if ended:
        interrupts.over(ended)
    waiting = [one for one in groups if one.pending]
    interrupts.say_which(waiting, "another request of this thread was decided before, and this one you have not seen")


def _meant(groups: Sequence[Asked], status: str, entries: Sequence[Entry]) -> list[tuple[Meant, Entry]]:
    if not 0 < len(entries) <= MOST:
        raise InvalidInput(f"a resume carries 1 to {MOST} answers, not {len(entries)}")
    if len(entries) > 1 and any(one.interrupt_id is None for one in entries):
        interrupts.say_which([one for one in groups if one.pending], "several answers were sent, one without a name")
    found = [
        interrupts.only(groups, status) if one.interrupt_id is None else interrupts.named(groups, one.interrupt_id)
        for one in entries
    ]
    ids = [row["approval_id"] for meant in found for row in meant.rows]
    if len(set(ids)) < len(ids):
        raise InvalidInput("two of the answers are for the same request; send one")
    return list(zip(found, entries, strict=True))


def _replies(meant: Meant, entry: Entry) -> list[tuple[Params, Reply]]:
    """What the entry says of each request that still waits; it may only agree with what is decided already."""
    said = (
        answering.cancelled(meant.rows)
        if entry.cancelled
        else answering.replies(meant.dialect, meant.rows, entry.value)
    )
    found: list[tuple[Params, Reply]] = []
    for row, reply in zip(meant.rows, said, strict=True):
        if row["state"] == ApprovalState.PENDING:
            # Where its name tells which revision was seen, or it was never edited, that is the one decided on.
            seen = row["revision"] if meant.exact or row["revision"] == 1 else None
            found.append((row, reply if reply.revision is not None else replace(reply, revision=seen)))
        elif not _agrees(row, reply):
            interrupts.over([row])
    return found


def _agrees(row: Params, reply: Reply) -> bool:
    decision = cast("Mapping[str, object]", row["decision"] or {})
    if reply.verdict == "answer":
        return row["state"] == ApprovalState.ANSWERED and decision.get("answer") == reply.answer
    if reply.verdict == "edit":
        return row["state"] in _ENDED_AS["approve"] and row["action"] == reply.action
    return row["state"] in _ENDED_AS.get(reply.verdict, ())


async def _checked(ctx: Context, caller: Caller, row: Params, reply: Reply) -> _Step:
    """The decision as its use case takes it, which would take it now."""
    reply = await _edit_or_approval(ctx, caller, row, reply)
    try:
        body = _body(reply)
    except ValidationError as error:
        first = error.errors()[0]
        raise AnswerInvalid(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if isinstance(body, WithdrawRequest):
        caller.need("submit")
        if caller.person != row["requester"]:
            detail = f"a question is left unanswered only by {row['requester']}, who asked for it; answer it instead"
            raise NotOwner(detail, requester=row["requester"])
    elif not isinstance(body, EditRequest):
        await _judged(ctx, caller, row, _choice(row, body))
    rejects = isinstance(body, VoteRequest) and body.verdict == "reject" and row["on_reject"] == "cancel"
    return _Step(row, body, rejects or isinstance(body, WithdrawRequest))


async def _edit_or_approval(ctx: Context, caller: Caller, row: Params, reply: Reply) -> Reply:
    """An edit to what waits already, as somebody else has edited it, is an approval of just that."""
    if reply.verdict != "edit":
        return reply
    body = cast("EditRequest", _body(reply))
    if await acting.would_change(ctx, caller, row["approval_id"], body):
        return reply
    return replace(reply, verdict="approve", digest=row["digest"])


def _body(reply: Reply) -> Body:
    match reply.verdict:
        case "answer":
            return AnswerRequest(answer=reply.answer)
        case "edit":
            return EditRequest(action=dict(reply.action or {}), revision=reply.revision, justification=reply.text)
        case "withdraw":
            return WithdrawRequest(reason=reply.text)
        case "approve" | "reject":
            return VoteRequest(
                verdict=reply.verdict, justification=reply.text, revision=reply.revision, digest=reply.digest
            )


def _choice(row: Params, body: VoteRequest | AnswerRequest) -> Choice:
    if isinstance(body, AnswerRequest):
        return Choice(None, approval_id=row["approval_id"], answer=body.answer)
    return Choice(
        Verdict(body.verdict), body.justification, None, row["approval_id"], body.revision, body.digest
    )  # fmt: skip


async def _judged(ctx: Context, caller: Caller, row: Params, choice: Choice) -> None:
    """Refuse what would be refused; what is written for it is not."""
    deciding = await judge(ctx, None, caller, row["workflow_id"], choice)
    deciding.decide(deciding.row(row["approval_id"]), choice)


# Applying


async def _apply_all(ctx: Context, caller: Caller, steps: Sequence[_Step]) -> list[Decided]:
    done: list[Decided] = []
    for step in steps:
        if done and Status(done[-1].status).finished:
            # What ended the workflow ended its other requests with it.
            break
        try:
            done.append(await _applied(ctx, caller, step))
        except KeyturnError as error:
            if done:
                error.facts = {**error.facts, "applied": [one.approval_id for one in done]}
            raise
    return done


async def _applied(ctx: Context, caller: Caller, step: _Step) -> Decided:
    approval_id = step.row["approval_id"]
    match step.body:
        case VoteRequest() as body:
            return await _first(ctx, caller, await approvals.vote(ctx, caller, approval_id, body))
        case AnswerRequest() as body:
            return await _first(ctx, caller, await approvals.answer(ctx, caller, approval_id, body))
        case EditRequest() as body:
            return await acting.edit(ctx, caller, approval_id, body)
        case WithdrawRequest() as body:
            return await acting.withdraw(ctx, caller, approval_id, body)


async def _first(ctx: Context, caller: Caller, decided: Decided) -> Decided:
    """Refuse one's own vote again once the request has ended: to this client it would look as if it ran twice."""
    if decided.code != "replayed" or decided.state == ApprovalState.PENDING:
        return decided
    when = decided.resolved_at.isoformat() if decided.resolved_at else None
    async with audited(ctx, caller, decided.workflow_id, wanted="resume", approval_id=decided.approval_id):
        detail = f"the request was {decided.state} by {decided.resolved_by} at {when}; this answer was not counted"
        facts: dict[str, Any] = {"state": decided.state, "resolved_by": decided.resolved_by, "resolved_at": when}
        raise AlreadyResolved(detail, **facts)
