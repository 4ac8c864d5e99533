"""What happens to a request without anybody's doing: time passes, and policies are published. Any worker, and whoever
looks or votes, writes it down; each transaction does one thing to one request, with everybody else kept out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from orchestrator.core.asking import escalated, kept_terms, terms_of
from orchestrator.core.cel import facts_of
from orchestrator.core.deadlines import next_reminder, passed
from orchestrator.core.errors import ApprovalLapsed
from orchestrator.core.model import ApprovalState, Kind, Level, Requester, Requirement, Status
from orchestrator.core.policy import Terms, stricter, terms_for
from orchestrator.core.votes import CLOCK, Identity, open_stage, resolve
from orchestrator.service.context import Caller, Context
from orchestrator.service.deciding import Choice, Deciding, judge
from orchestrator.store import approvals, decisions, effects, events, people, workflows
from orchestrator.store.db import Connection, Params
from orchestrator.store.decisions import Written, view_of
from orchestrator.store.events import CANCEL_CHANNEL, EVENTS_CHANNEL, READY_CHANNEL, Event

ESCALATED = "escalated"
PROLONGED = "prolonged"
# More than can be due of one workflow: each request is merged, escalated, reminded of and expired once at most.
_MOST = 100


async def settle(ctx: Context, namespace: str, workflow_id: str) -> bool:
    """Write down what time and published policies have changed for a workflow's requests; whether anything was."""
    changed = False
    for _ in range(_MOST):
        deciding = await _one(ctx, namespace, workflow_id)
        if deciding is None:
            break
        changed, status = True, Status(deciding.workflow["status"])
        ctx.db.ring(EVENTS_CHANNEL, workflow_id, patient=True)
        if status.finished:
            ctx.db.ring(CANCEL_CHANNEL, workflow_id)
        elif status is Status.READY:
            ctx.db.ring(READY_CHANNEL, namespace)
        if not deciding.behind:
            break
    return changed


async def _one(ctx: Context, namespace: str, workflow_id: str) -> Deciding | None:
    """One thing that is due, done; the workflow and what it asks then. None when nothing is."""
    clock = Caller(namespace, CLOCK, frozenset())
    async with ctx.db.pipeline() as conn:
        deciding = await judge(ctx, conn, clock, workflow_id, Choice(None))
        for row in deciding.rows:
            if await _settled(ctx, conn, deciding, row):
                return deciding
    return None


async def _settled(ctx: Context, conn: Connection, deciding: Deciding, row: Params) -> bool:
    if row["state"] == ApprovalState.APPROVED:
        held = deciding.workflow["status"] in (Status.RUNNING, Status.WAITING)
        # What may have run under it is looked at however late.
        if held or not passed(row["wake_at"], deciding.now) or await effects.in_doubt(conn, row["approval_id"]):
            return False
        await _lapse(ctx, conn, deciding, row)
        return True
    if row["state"] != ApprovalState.PENDING:
        return False
    if row["kind"] == Kind.APPROVAL and row["policy_seen"] < (deciding.workflow["policy_version"] or 0):
        row |= _changed(await _tighten(ctx, conn, deciding, row))
        return True
    if not passed(row["wake_at"], deciding.now):
        return False
    whole = await approvals.whole(conn, row["approval_id"])
    if passed(whole["expires_at"], deciding.now):
        await _time_out(ctx, conn, deciding, row, whole)
    elif passed(whole["escalate_at"], deciding.now):
        await _escalate(ctx, conn, deciding, whole, "escalate_after")
    else:
        await _remind(ctx, conn, deciding, whole)
    if row["state"] == ApprovalState.PENDING:
        row |= _changed(whole)
    return True


def _changed(whole: Params) -> Params:
    """What tells whether more is due of a request, as it is now written."""
    instants = [whole[name] for name in ("expires_at", "escalate_at", "remind_at") if whole[name] is not None]
    return {"wake_at": min(instants), "policy_seen": whole["policy_seen"]}


async def _tighten(ctx: Context, conn: Connection, deciding: Deciding, row: Params) -> Params:
    """The stricter of all versions published since wins, slot by slot; what was loosened stays (rule 8)."""
    whole = await approvals.whole(conn, row["approval_id"])
    terms, versions = terms_of(whole), list(whole["policy_versions"])
    roles = await people.roles_of(conn, deciding.caller.namespace, whole["requester"])
    requester = Requester(whole["requester"], whole["on_behalf_of"], whole["launched_by"], roles)
    level = Level(whole["risk_level"])
    published = int(deciding.workflow["policy_version"])
    facts = facts_of(approvals.action_of(whole), requester, approvals.facts_of_workflow(whole), whole["confidence"])
    for number in range(whole["policy_seen"] + 1, published + 1):
        book = await ctx.books.at(ctx.db, deciding.caller.namespace, number)
        # Where no policy takes it any more, the level's terms are what was published.
        later = stricter(terms, terms_for(level, ctx.governance.rules, book.pick(facts, level)))
        if (later.policy, str(later.version)) != (terms.policy, versions[-1]):
            versions.append(str(later.version))
        terms = later
    whole["policy_seen"] = published
    if versions == whole["policy_versions"] and terms == terms_of(whole):
        await approvals.put(conn, whole)
        return whole
    before = Requirement.from_json(whole["requirement"])
    whole |= {
        "policy": terms.policy, "policy_versions": versions,
        "requirement": terms.requirement.to_json(), "roles": sorted(terms.requirement.roles),
        "terms": kept_terms(terms), "approval_ttl": terms.approval_ttl, **_times(whole, terms, deciding.now),
    }  # fmt: skip
    told: dict[str, object] = {
        "request_id": row["approval_id"], "policy": terms.policy, "policy_versions": versions,
        "before": before.to_json(), "requirement": whole["requirement"],
    }  # fmt: skip
    await _write(ctx, conn, deciding, whole, Event("approval-policy-changed", CLOCK, told), None)
    added = _open_to(deciding, row, terms.requirement) - _open_to(deciding, row, before)
    if added and terms.notify and deciding.tells:
        notice = {"kind": "requested", "approval_id": row["approval_id"], "data": {"roles": sorted(added)}}
        await approvals.queue_notices(conn, deciding.caller.namespace, row["workflow_id"], [notice], ctx.clock())
    return whole


def _open_to(deciding: Deciding, row: Params, requirement: Requirement) -> frozenset[str]:
    """The roles that decide now where so much is required: those of the open stage."""
    stage = open_stage(replace(view_of(row), requirement=requirement), deciding.asked.votes(row))
    return frozenset(role for slot in requirement.stages[stage] for role in slot.open_to)


def _since(whole: Params) -> datetime:
    """From when a request's times count: it was made, or edited last."""
    return whole["revised_at"] or whole["requested_at"]


def _times(whole: Params, terms: Terms, now: datetime) -> Params:
    """The instants of a request under other terms: never later than they were. An escalation stays where it was."""
    lives = 2 if PROLONGED in whole["flags"] else 1
    expires_at: datetime = min(whole["expires_at"], _since(whole) + lives * terms.request_ttl)
    # A reminder that is due now has not been made yet.
    due = whole["remind_at"] if passed(whole["remind_at"], now) else None
    return {"expires_at": expires_at, "remind_at": due or next_reminder(terms, _since(whole), now)}


async def _lapse(ctx: Context, conn: Connection, deciding: Deciding, row: Params) -> None:
    """Approved, and nothing ran within the approval's life; a retry requests it anew. A workflow that has ended stays
    as it is.
    """
    approval_id, workflow_id = row["approval_id"], deciding.workflow["workflow_id"]
    detail = "an approval was not used in time and has lapsed; retry the workflow to request it anew"
    error = {"code": ApprovalLapsed.code, "detail": detail, "approval_ids": [approval_id]}
    whole = await approvals.whole(conn, approval_id)
    await approvals.put(conn, {**whole, "state": ApprovalState.LAPSED})
    row |= {"state": ApprovalState.LAPSED.value, "wake_at": None}
    if Status(deciding.workflow["status"]).finished:
        told: dict[str, object] = {"request_id": approval_id}
        await events.append(conn, workflow_id, [Event("approval-lapsed", CLOCK, told)], ctx.clock())
        return
    move = {"workflow": workflow_id, "status": Status.FAILED, "reason": ApprovalLapsed.code, "error": error,
            "finished": True, "now": ctx.clock()}  # fmt: skip
    await workflows.move(conn, move)
    deciding.workflow["status"] = Status.FAILED
    await events.append(conn, workflow_id, [Event("workflow-failed", CLOCK, {**error})], ctx.clock())


async def _time_out(ctx: Context, conn: Connection, deciding: Deciding, row: Params, whole: Params) -> None:
    """Nobody decided in time: the policy says what that means (rule 11)."""
    terms = terms_of(whole)
    match terms.on_timeout:
        case "escalate" if PROLONGED not in whole["flags"]:
            whole["flags"] = [*whole["flags"], PROLONGED]
            whole["expires_at"] = whole["expires_at"] + terms.request_ttl
            await _escalate(ctx, conn, deciding, whole, "timeout")
        case "approve" if whole["risk_level"] == Level.LOW and not _dissent(deciding, row):
            decision = {"verdict": "approve", "by": [terms.actor], "note": "nobody objected in time"}
            await _end(conn, deciding, row, ApprovalState.APPROVED, Identity(terms.actor), decision)
        case "reject":
            decision = {"verdict": "reject", "by": [CLOCK], "note": "nobody decided in time"}
            await _end(conn, deciding, row, ApprovalState.REJECTED, Identity(CLOCK), decision)
        case _:
            decision = {"verdict": "expire", "by": [CLOCK], "note": "nobody decided in time"}
            await _end(conn, deciding, row, ApprovalState.EXPIRED, Identity(CLOCK), decision)


def _dissent(deciding: Deciding, row: Params) -> tuple[str, ...]:
    """Who rejected it, though not enough of them: then silence is no consent."""
    return resolve(view_of(row), deciding.asked.votes(row), deciding.now).tally.dissent


async def _end(
    conn: Connection,
    deciding: Deciding,
    row: Params,
    state: ApprovalState,
    who: Identity,
    decision: Mapping[str, object],
) -> None:
    written = Written(row["approval_id"])
    deciding.resolved(row, state, who, decision, written)
    row["wake_at"] = None
    await decisions.write(conn, [(deciding.asked, written)], wait=True)


async def _escalate(ctx: Context, conn: Connection, deciding: Deciding, whole: Params, why: str) -> None:
    terms, now = terms_of(whole), deciding.now
    to, mode = _escalates_to(terms), terms.escalation.mode if terms.escalation else "add"
    requirement = escalated(terms.requirement, to, mode, now)
    whole |= {
        "requirement": requirement.to_json(), "roles": sorted(requirement.roles), "escalate_at": None,
        "escalated_at": now, "flags": sorted({*whole["flags"], ESCALATED}),
    }  # fmt: skip
    told: dict[str, object] = {"request_id": whole["approval_id"], "to": sorted(to), "mode": mode, "because": why}
    await _write(ctx, conn, deciding, whole, Event("approval-escalated", CLOCK, told), "escalated")


def _escalates_to(terms: Terms) -> frozenset[str]:
    named = terms.escalation.to if terms.escalation else frozenset[str]()
    return named or (frozenset({terms.fallback_role}) if terms.fallback_role else terms.requirement.roles)


async def _remind(ctx: Context, conn: Connection, deciding: Deciding, whole: Params) -> None:
    whole["remind_at"] = next_reminder(terms_of(whole), _since(whole), deciding.now)
    told: dict[str, object] = {"request_id": whole["approval_id"], "next_at": _stamp(whole["remind_at"])}
    await _write(ctx, conn, deciding, whole, Event("approval-reminded", CLOCK, told), "reminder")


def _stamp(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


async def _write(
    ctx: Context, conn: Connection, deciding: Deciding, whole: Params, event: Event, notice: str | None
) -> None:
    """The changed row, what is told of it in the chain, and whom to tell."""
    workflow_id = deciding.workflow["workflow_id"]
    await approvals.put(conn, whole)
    await events.append(conn, workflow_id, [event], ctx.clock())
    if notice is not None and deciding.tells:
        # An escalation tells those it goes to.
        data = {**event.data, "roles": event.data["to"]} if "to" in event.data else event.data
        asked = [{"kind": notice, "approval_id": whole["approval_id"], "data": data}]
        await approvals.queue_notices(conn, deciding.caller.namespace, workflow_id, asked, ctx.clock())
