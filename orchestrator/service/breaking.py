"""Breaking the glass: running at once what others have not approved, and the review that is owed for it (rule 17)."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.asking import Law, terms_of
from orchestrator.core.errors import (
    DigestMismatch,
    InvalidInput,
    JustificationRequired,
    NotEligible,
    ReviewOutstanding,
    SelfApproval,
    StaleRevision,
)
from orchestrator.core.freezes import frozen_until
from orchestrator.core.model import BREAK_GLASS, ApprovalState, Slot, Status
from orchestrator.core.policy import Terms
from orchestrator.core.votes import Identity, check_open, first_stage, selves_of, unfilled
from orchestrator.service.acting import held, said, vote_of, write_behind
from orchestrator.service.context import Caller, Context
from orchestrator.service.deciding import Deciding
from orchestrator.store import approvals, events, workflows
from orchestrator.store.db import Connection, Params
from orchestrator.store.decisions import Written, view_of
from orchestrator.store.events import Event
from orchestrator.wire import BreakGlassRequest, Decided, ReviewRequest


async def break_glass(
    ctx: Context, caller: Caller, approval_id: str, request: BreakGlassRequest, idempotency_key: str | None = None
) -> Decided:
    """Run at once what others have not approved, or what a freeze holds; a review is owed for it."""
    law = await ctx.laws.now(caller.namespace)
    async with held(ctx, caller, approval_id, "break-glass", request, idempotency_key) as at:
        caller.need("decide")
        conn, deciding, whole, row = at.conn, at.deciding, at.whole, at.row
        if at.again:
            return deciding.told(row, "replayed")
        terms = terms_of(whole)
        frozen = _frozen(terms, law, deciding)
        approved = frozen and _is_held(deciding, whole)
        if not approved:
            check_open(view_of(row), vote_of(deciding, whole, request.revision), deciding.now)
        _check_seen(row, request)
        await _check_may_break(ctx, conn, deciding, row, terms.break_glass and terms.break_glass.role)
        if not request.justification.strip():
            detail = "breaking the glass needs a `justification`: say why it cannot wait"
            raise JustificationRequired(detail, field="justification")
        missing = () if approved else unfilled(view_of(row), deciding.asked.votes(row))
        # What was in the way: a freeze, and a place in a slot for each time its roles are named.
        places = [" or ".join(sorted(slot.roles)) for slot in missing for _ in range(slot.count)]
        why = said(request.justification, whole)
        await _broken(ctx, conn, deciding, whole, why, [*(["freeze"] if frozen else []), *places])
        if deciding.tells:
            await _tell_skipped(ctx, conn, deciding, whole, why, missing)
        if approved:
            await _run_now(ctx, conn, deciding)
        else:
            written = Written(approval_id)
            decision = {"verdict": "approve", "by": [caller.person], "note": why}
            deciding.resolved(row, ApprovalState.APPROVED, Identity(caller.person), decision, written)
            await write_behind(conn, deciding, written)
        return deciding.told(row, "resolved")


def _frozen(terms: Terms, law: Law, deciding: Deciding) -> bool:
    """Whether a freeze of the request, or of its policy as it is published now, is in force."""
    published = (one for policy in law.book.policies if policy.name == terms.policy for one in policy.freeze)
    return frozen_until([*terms.freeze, *published], deciding.now) is not None


def _is_held(deciding: Deciding, whole: Params) -> bool:
    """Whether this is decided and waits to run, and nobody has broken the glass for it yet."""
    decided = whole["state"] == ApprovalState.APPROVED and deciding.workflow["status"] == Status.READY
    return decided and BREAK_GLASS not in whole["flags"]


async def _broken(
    ctx: Context, conn: Connection, deciding: Deciding, whole: Params, why: str, bypassed: list[str]
) -> None:
    """Keep who broke it, past what, and until when that is to be reviewed."""
    glass = terms_of(whole).break_glass
    whole |= {
        "flags": sorted({*whole["flags"], BREAK_GLASS}), "bypassed": bypassed, "broken_by": deciding.caller.person,
        "review_by": deciding.now + (glass.review_within if glass else timedelta()),
    }  # fmt: skip
    await approvals.put(conn, whole)
    told: dict[str, object] = {
        "request_id": whole["approval_id"], "justification": why, "bypassed": bypassed,
        "review_by": whole["review_by"].isoformat(), "digest": whole["digest"], "revision": whole["revision"],
    }  # fmt: skip
    broken = Event("break-glass", deciding.caller.person, told)
    await events.append(conn, whole["workflow_id"], [broken], ctx.clock())


async def _tell_skipped(
    ctx: Context, conn: Connection, deciding: Deciding, whole: Params, why: str, missing: tuple[Slot, ...]
) -> None:
    """Everybody who was passed over is told."""
    skipped = {role for slot in missing for role in slot.open_to} or set(whole["roles"])
    data: dict[str, object] = {
        "by": deciding.caller.person, "justification": why, "bypassed": whole["bypassed"],
        "review_by": whole["review_by"].isoformat(), "roles": sorted(skipped),
    }  # fmt: skip
    notice = {"kind": "break_glass", "approval_id": whole["approval_id"], "data": data}
    await approvals.queue_notices(conn, deciding.caller.namespace, whole["workflow_id"], [notice], ctx.clock())


async def _run_now(ctx: Context, conn: Connection, deciding: Deciding) -> None:
    """What was approved already needs no second decision, only not to wait any more."""
    move: Params = {
        "workflow": deciding.workflow["workflow_id"], "status": Status.READY, "reason": None, "finished": False,
        "now": ctx.clock(),
    }  # fmt: skip
    await workflows.move(conn, move)


def _check_seen(row: Params, request: BreakGlassRequest) -> None:
    """Refuse what is meant for something else than what would run."""
    if request.revision not in (None, row["revision"]):
        detail = f"this is for revision {request.revision}; the request is at revision {row['revision']}: read it again"
        raise StaleRevision(detail, revision=row["revision"])
    if request.digest not in (None, row["digest"]):
        detail = "this names another action than the one that waits; read the request again, then decide"
        raise DigestMismatch(detail, digest=row["digest"])


async def _check_may_break(ctx: Context, conn: Connection, deciding: Deciding, row: Params, role: str | None) -> None:
    person = deciding.caller.person
    if role is None or role not in deciding.asked.roles.get(person, frozenset()):
        needed = f"only {role} may break the glass here" if role else "its policy lets nobody break the glass"
        detail = f"{person} cannot run this at once: {needed}"
        raise NotEligible(detail, voter=person, roles=[role] if role else [])
    if person in selves_of(view_of(row)):
        detail = f"{person} asked for this, or edited it last; somebody else must break the glass"
        raise SelfApproval(detail, voter=person)
    owed = await approvals.owes_review(conn, deciding.caller.namespace, person, ctx.clock())
    if owed is not None:
        detail = f"{person} broke the glass for {owed}, and its review is overdue; have it reviewed first"
        raise ReviewOutstanding(detail, approval_id=owed)


async def review(
    ctx: Context, caller: Caller, approval_id: str, request: ReviewRequest, idempotency_key: str | None = None
) -> Decided:
    """Say that somebody has looked at what was run by break-glass: another person who could decide it."""
    async with held(ctx, caller, approval_id, "review", request, idempotency_key) as at:
        caller.need("decide")
        conn, deciding, whole, row = at.conn, at.deciding, at.whole, at.row
        if at.again:
            return deciding.told(row, "replayed")
        if whole["review_by"] is None:
            detail = "nobody broke the glass for this, so there is nothing to review"
            raise InvalidInput(detail)
        if caller.person == whole["broken_by"] or caller.person in selves_of(view_of(row)):
            detail = f"{caller.person} broke the glass or asked for it; somebody else reviews it"
            raise SelfApproval(detail, voter=caller.person)
        vote = vote_of(deciding, whole, None)
        if first_stage(view_of(row).requirement, vote.roles) is None:
            needed = sorted(view_of(row).requirement.roles)
            detail = f"{caller.person} holds none of the roles that review this: {', '.join(needed)}"
            raise NotEligible(detail, voter=caller.person, roles=needed)
        if not request.note.strip():
            detail = "a review needs a `note`: say what you found, in a few words"
            raise JustificationRequired(detail, field="note")
        if whole["reviewed_at"] is not None:
            return deciding.told(row, "replayed")
        await approvals.put(conn, {**whole, "reviewed_by": caller.person, "reviewed_at": deciding.now})
        told: dict[str, object] = {
            "request_id": approval_id,
            "note": said(request.note, whole),
            "person": whole["broken_by"],
        }
        await events.append(conn, whole["workflow_id"], [Event("review-done", caller.person, told)], ctx.clock())
        return deciding.told(row, "reviewed")
