"""Decisions: each reads, judges with the pure core, and writes what follows in one transaction (rule 1).

The API answers when that has committed; a worker delivers the decision to the graph. Refusals are audited too.
"""

from __future__ import annotations

from orchestrator.core.errors import InvalidInput, KeyturnError, Refusal, Unavailable
from orchestrator.core.model import Level, Route, Status, Verdict
from orchestrator.service import idempotency, views
from orchestrator.service.context import Caller, Context
from orchestrator.service.deciding import Choice, judge, unknown_approval
from orchestrator.service.idempotency import Keyed
from orchestrator.service.refusals import audited
from orchestrator.service.settling import settle
from orchestrator.store import approvals, decisions, delegations, links, notices, people, workflows
from orchestrator.store.db import Connection, Params
from orchestrator.store.events import EVENTS_CHANNEL, READY_CHANNEL
from orchestrator.wire import (
    AnswerRequest,
    ApprovalRecord,
    ApproveRequest,
    BatchRequest,
    Decided,
    PendingList,
    RejectRequest,
    VoteRequest,
)

_LARGEST_PAGE = 500


async def pending(
    ctx: Context,
    caller: Caller,
    *,
    risk: str | None = None,
    route: str | None = None,
    role: str | None = None,
    mine: bool = False,
    limit: int = 100,
) -> PendingList:
    """What waits for a decision, urgent first. `role`: what this role may decide; `mine`: what the caller may."""
    caller.need("read")
    for name, value, allowed in (("risk", risk, Level), ("route", route, Route)):
        if value is not None and value not in set(allowed):
            known = [one.value for one in allowed]
            detail = f"{name} is {value!r}; allowed are {', '.join(known)}"
            raise InvalidInput(detail, allowed=known)
    async with ctx.db.connection() as conn:
        rows = await approvals.pending(
            conn,
            {
                "namespace": caller.namespace, "risk": risk, "route": route, "now": ctx.clock(),
                "limit": max(1, min(limit, _LARGEST_PAGE)),
                "roles": await _roles_filter(ctx, conn, caller, role, mine=mine),
                "not_self": caller.person if mine else None,
            },
        )  # fmt: skip
    return PendingList(workflows=[views.pending_approval(row) for row in rows])


async def _roles_filter(
    ctx: Context, conn: Connection, caller: Caller, role: str | None, *, mine: bool
) -> list[str] | None:
    """The roles that a list is limited to; the caller's are also those of everybody they stand in for now."""
    if role is None and not mine:
        return None
    who = {caller.person, *(await delegations.principals(conn, caller.namespace, caller.person, ctx.clock()))}
    held = [await people.roles_of(conn, caller.namespace, person) for person in sorted(who)] if mine else []
    roles = frozenset[str]().union(*held)
    wanted = {role} if role else set(roles)
    return sorted(wanted & roles if mine and role else wanted)


async def get(ctx: Context, caller: Caller, approval_id: str) -> ApprovalRecord:
    """The approval whole. NotFound."""
    caller.need("read")
    row = await current(ctx, caller, approval_id)
    async with ctx.db.connection() as conn:
        votes = await approvals.votes(conn, [approval_id])
        row["notifications"] = await notices.deliveries_of(conn, caller.namespace, approval_id)
        return views.approval_record(row, votes, await workflows.present(conn, ctx.clock()))


async def current(ctx: Context, caller: Caller, approval_id: str) -> Params:
    """The approval's row, after what time has done meanwhile. NotFound."""
    row = await _found(ctx, caller, approval_id)
    if row["behind"]:
        await settle(ctx, caller.namespace, row["workflow_id"])
        row = await _found(ctx, caller, approval_id)
    return row


async def _found(ctx: Context, caller: Caller, approval_id: str) -> Params:
    async with ctx.db.connection() as conn:
        row = await approvals.get(conn, caller.namespace, approval_id, ctx.clock())
    if row is None:
        raise unknown_approval(approval_id)
    return row


async def approve(
    ctx: Context, caller: Caller, workflow_id: str, request: ApproveRequest, idempotency_key: str | None = None
) -> Decided:
    """Vote approve on a workflow's pending approval. Raises the refusals of `votes.check_vote`."""
    choice = Choice(
        Verdict.APPROVE, request.justification, request.approved_by, request.approval_id, request.revision,
        request.digest, acting_for=request.acting_for,
    )  # fmt: skip
    return await _decide(ctx, caller, workflow_id, choice, request, idempotency_key)


async def reject(
    ctx: Context, caller: Caller, workflow_id: str, request: RejectRequest, idempotency_key: str | None = None
) -> Decided:
    """Vote reject on a workflow's pending approval."""
    choice = Choice(
        Verdict.REJECT, request.reason, request.rejected_by, request.approval_id, request.revision, request.digest,
        acting_for=request.acting_for,
    )  # fmt: skip
    return await _decide(ctx, caller, workflow_id, choice, request, idempotency_key)


async def vote(
    ctx: Context, caller: Caller, approval_id: str, request: VoteRequest, idempotency_key: str | None = None
) -> Decided:
    """Vote on an approval named by its id."""
    choice = Choice(
        Verdict(request.verdict), request.justification, request.voter, approval_id, request.revision, request.digest,
        acting_for=request.acting_for,
    )  # fmt: skip
    workflow_id = await _workflow_of(ctx, caller, approval_id)
    return await _decide(ctx, caller, workflow_id, choice, request, idempotency_key)


async def answer(
    ctx: Context,
    caller: Caller,
    approval_id: str,
    request: AnswerRequest,
    idempotency_key: str | None = None,
    *,
    note: str = "",
) -> Decided:
    """Answer a question, or respond to a tool call that takes responses. AnswerInvalid when it does not fit."""
    choice = Choice(None, note, request.answered_by, approval_id, answer=request.answer)
    workflow_id = await _workflow_of(ctx, caller, approval_id)
    return await _decide(ctx, caller, workflow_id, choice, request, idempotency_key)


async def _workflow_of(ctx: Context, caller: Caller, approval_id: str) -> str:
    async with ctx.db.connection() as conn:
        workflow_id = await approvals.workflow_of(conn, caller.namespace, approval_id)
    if workflow_id is None:
        raise unknown_approval(approval_id)
    return workflow_id


Body = ApproveRequest | RejectRequest | VoteRequest | AnswerRequest


async def _decide(
    ctx: Context, caller: Caller, workflow_id: str, choice: Choice, body: Body, idempotency_key: str | None
) -> Decided:
    route = f"decide {workflow_id} {choice.approval_id or ''}"
    asked: dict[str, object] = {
        "verdict": choice.verdict or "answer", "approval_id": choice.approval_id, "named": choice.named,
    }  # fmt: skip
    async with audited(ctx, caller, workflow_id, **asked):
        caller.need("decide")
        keyed = idempotency.keyed(ctx, caller, idempotency_key, route, body)
        decided = await _decide_unheld(ctx, caller, workflow_id, choice) if keyed is None else None
        if decided is None:
            decided = await decide_held(ctx, caller, workflow_id, choice, keyed)
    return decided


def _ring(ctx: Context, caller: Caller, decided: Decided) -> None:
    ctx.db.ring(EVENTS_CHANNEL, decided.workflow_id, patient=True)
    if decided.status == Status.READY:
        ctx.db.ring(READY_CHANNEL, caller.namespace)


async def _decide_unheld(ctx: Context, caller: Caller, workflow_id: str, choice: Choice) -> Decided | None:
    """One decision without a lock between reading and writing, as most need none; None, with nothing written, when the
    workflow has changed meanwhile.
    """
    deciding = await judge(ctx, None, caller, workflow_id, choice)
    if deciding.behind:
        await settle(ctx, caller.namespace, workflow_id)
        deciding = await judge(ctx, None, caller, workflow_id, choice)
    written, told = deciding.decide(deciding.target(choice), choice)
    if not await ctx.db.together(decisions.write, (deciding.asked, written)):
        return None
    _ring(ctx, caller, told)
    return told


async def decide_held(
    ctx: Context, caller: Caller, workflow_id: str, choice: Choice, keyed: Keyed | None, link: Params | None = None
) -> Decided:
    """One decision with everybody else kept out, and with the key or the link that it came by."""
    told = await _decide_kept(ctx, caller, workflow_id, choice, keyed, link)
    if told is None:
        await settle(ctx, caller.namespace, workflow_id)
        told = await _decide_kept(ctx, caller, workflow_id, choice, keyed, link, settled=True)
    if told is None:
        message = "what is settled is not looked at again"
        raise AssertionError(message)
    _ring(ctx, caller, told)
    return told


async def _decide_kept(
    ctx: Context,
    caller: Caller,
    workflow_id: str,
    choice: Choice,
    keyed: Keyed | None,
    link: Params | None,
    *,
    settled: bool = False,
) -> Decided | None:
    """None, with nothing written, where something has to be settled first."""
    async with ctx.db.pipeline() as conn:
        deciding = await judge(ctx, conn, caller, workflow_id, choice)
        if deciding.behind and not settled:
            return None
        if keyed is not None and (earlier := await keyed.earlier(conn)) is not None:
            return deciding.told(deciding.row(earlier), "replayed")
        target = deciding.target(choice)
        if keyed is not None:
            await keyed.keep(conn, target["approval_id"])
        if link is not None:
            await links.use(conn, {**link, "now": ctx.clock()})
        written, told = deciding.decide(target, choice)
        if await decisions.write(conn, [(deciding.asked, written)], wait=True) != [True]:
            detail = "the workflow changed though it was held; nothing was stored, try again"
            raise Unavailable(detail)
        return told


async def batch(ctx: Context, caller: Caller, request: BatchRequest) -> list[Decided | KeyturnError]:
    """Up to 100 decisions, each judged alone: a refusal voids nothing else, nor does an outage in the middle (rule 21).

    What was not decided for want of the database says so, and may be sent again.
    """
    caller.need("decide")
    outcomes: list[Decided | KeyturnError] = []
    for one in request.decisions:
        body = VoteRequest(**one.model_dump(exclude={"approval_id"}))
        try:
            outcomes.append(await vote(ctx, caller, one.approval_id, body))
        except (Refusal, Unavailable) as error:
            outcomes.append(error)
    return outcomes
