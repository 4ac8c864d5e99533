"""Confirmations by case: what waits in one, and yes or no to it. They are decisions like any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from orchestrator.core.errors import AnswerInvalid, NotFound
from orchestrator.core.model import Kind
from orchestrator.service import approvals, views
from orchestrator.service.context import Caller, Context
from orchestrator.service.refusals import noted
from orchestrator.store import approvals as approval_store
from orchestrator.store.db import Params
from orchestrator.wire import AnswerRequest, Decided, VoteRequest
from orchestrator.wire_feeds import Confirmation, ConfirmationList, ConfirmRequest

_MOST = 500


async def pending(ctx: Context, caller: Caller, case_id: str) -> ConfirmationList:
    """What waits in a case: urgent first, then by due time."""
    caller.need("read")
    async with ctx.db.connection() as conn:
        rows = await approval_store.of_case(conn, caller.namespace, case_id, ctx.clock(), _MOST)
    return ConfirmationList(case_id=case_id, confirmations=[_confirmation(row) for row in rows])


def _confirmation(row: Params) -> Confirmation:
    line = views.pending_approval(row).model_dump()
    return Confirmation(**line, request_id=row["approval_id"], case_id=row["case_id"], yes_or_no=_takes_yes_or_no(row))


def _takes_yes_or_no(row: Params) -> bool:
    """An approval does, and a question whose answer is true or false."""
    if row["kind"] == Kind.APPROVAL:
        return True
    question = cast("Mapping[str, object]", row["question"] or {})
    schema = question.get("schema")
    asks = isinstance(schema, Mapping) and cast("Mapping[str, object]", schema).get("type") == "boolean"
    return asks and question.get("options") is None


async def confirm(
    ctx: Context,
    caller: Caller,
    case_id: str,
    request_id: str,
    request: ConfirmRequest,
    idempotency_key: str | None = None,
) -> Decided:
    """Yes or no to what waits in a case: a vote on an approval, the answer to a question.

    NotFound where the case has no such request, AnswerInvalid for a question that is not about yes or no; and what
    refuses any other decision.
    """
    async with noted(ctx, caller, wanted="confirm", case_id=case_id, request_id=request_id):
        caller.need("decide")
    async with ctx.db.connection() as conn:
        row = await approval_store.get(conn, caller.namespace, request_id, ctx.clock())
    if row is None or row["case_id"] != case_id:
        raise NotFound(f"there is no confirmation {request_id!r} in case {case_id!r}", request_id=request_id)
    if row["kind"] == Kind.APPROVAL:
        vote = VoteRequest(
            verdict="approve" if request.approved else "reject",
            justification=request.note,
            revision=request.revision,
            digest=request.digest,
        )
        return await approvals.vote(ctx, caller, request_id, vote, idempotency_key)
    if not _takes_yes_or_no(row):
        detail = f"this question wants another answer than yes or no; send it to /approvals/{request_id}/answer"
        raise AnswerInvalid(detail, question=views.masked(row["question"]))
    answer = AnswerRequest(answer=request.approved)
    return await approvals.answer(ctx, caller, request_id, answer, idempotency_key, note=request.note)
