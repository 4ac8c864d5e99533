"""What people do to a request besides voting: edit and withdraw. Breaking the glass is in `breaking`.

Each holds the workflow, judges with the pure core, and writes what follows in one transaction (rule 1).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pydantic import BaseModel

from orchestrator.core import asking
from orchestrator.core.actions import action_from, described
from orchestrator.core.asking import Asking, Law
from orchestrator.core.canonical import MASK, canonical_json, digest, redact, restored
from orchestrator.core.errors import (
    InvalidInput,
    NotEditable,
    NotEligible,
    NothingPending,
    NotOwner,
)
from orchestrator.core.json_schema import problems
from orchestrator.core.model import Action, ApprovalState, Kind, Status, Verdict, Vote
from orchestrator.core.votes import Identity, check_open, first_stage, resolve, selves_of
from orchestrator.service import idempotency
from orchestrator.service.context import Caller, Context
from orchestrator.service.deciding import Choice, Code, Deciding, judge, unknown_approval
from orchestrator.service.refusals import audited, unknown
from orchestrator.service.settling import settle
from orchestrator.store import approvals, decisions, delegations, events, people, workflows
from orchestrator.store.db import Connection, Params
from orchestrator.store.decisions import Written, view_of
from orchestrator.store.events import EVENTS_CHANNEL, READY_CHANNEL, Event
from orchestrator.wire import (
    Decided,
    Edited,
    EditRequest,
    WithdrawRequest,
)

# What a tool call's edit may change: the rest of its action is not the agent's.
_OF_A_CALL = ("operation", "arguments")
_OF_A_FUNCTION = ("arguments",)


@dataclass(frozen=True, slots=True)
class Held:
    """What is done with a request is done on: the transaction that keeps everybody else out of its workflow, the
    approval whole, and whether the same request came before under its Idempotency-Key, so that nothing is to be done.
    """

    conn: Connection
    deciding: Deciding
    whole: Params
    again: bool

    @property
    def row(self) -> Params:
        """The approval as a decision sees it."""
        return self.deciding.row(self.whole["approval_id"])


@contextlib.asynccontextmanager
async def held(
    ctx: Context, caller: Caller, approval_id: str, wanted: str, body: BaseModel, idempotency_key: str | None
) -> AsyncGenerator[Held]:
    """The approval whole, with everybody else kept out of its workflow; a refusal is audited."""
    async with ctx.db.connection() as conn:
        workflow_id = await approvals.workflow_of(conn, caller.namespace, approval_id)
        principals = await delegations.principals(conn, caller.namespace, caller.person, ctx.clock())
    if workflow_id is None:
        raise unknown_approval(approval_id)
    # What time has done meanwhile must not be overlooked.
    await settle(ctx, caller.namespace, workflow_id)
    async with (
        audited(ctx, caller, workflow_id, wanted=wanted, approval_id=approval_id),
        ctx.db.transaction() as conn,
    ):
        deciding = await judge(ctx, conn, caller, workflow_id, Choice(None, also=sorted(principals)))
        keyed = idempotency.keyed(ctx, caller, idempotency_key, f"{wanted} {approval_id}", body)
        again = keyed is not None and await keyed.keep(conn, approval_id) is not None
        yield Held(conn, deciding, await approvals.whole(conn, approval_id), again)
    ctx.db.ring(EVENTS_CHANNEL, workflow_id, patient=True)
    if deciding.workflow["status"] == Status.READY:
        ctx.db.ring(READY_CHANNEL, caller.namespace)


def vote_of(deciding: Deciding, whole: Params, revision: int | None) -> Vote:
    """Where the caller stands, as if they voted."""
    caller = deciding.caller
    at = whole["revision"] if revision is None else revision
    return Vote(caller.person, Verdict.APPROVE, at, deciding.now, deciding.asked.roles.get(caller.person, frozenset()))


async def edit(
    ctx: Context, caller: Caller, approval_id: str, request: EditRequest, idempotency_key: str | None = None
) -> Edited:
    """Make the next revision of a request: all votes are void, and it is judged anew (rule 10)."""
    law = await ctx.laws.now(caller.namespace)
    async with held(ctx, caller, approval_id, "edit", request, idempotency_key) as at:
        caller.need_any("submit", "decide")
        deciding, whole, row = at.deciding, at.whole, at.row
        if at.again:
            return _revised(deciding, whole, row, "replayed", ())
        before, after, differences = _planned(at, request)
        if not differences:
            detail = "the edit changes nothing"
            raise InvalidInput(detail)
        columns = await _revise(at, after, law)
        why = redact.hide(said(request.justification, whole), before.to_json())
        await _tell_edited(ctx, at.conn, deciding, whole, differences, why)
        code: Code = "revised"
        if columns["decision"] is not None:
            code = await _decided_by_policy(at.conn, deciding, row, columns)
        return _revised(deciding, whole, row, code, differences)


async def would_change(ctx: Context, caller: Caller, approval_id: str, request: EditRequest) -> bool:
    """Whether an edit is another action than the one that waits. Refuses what `edit` refuses; writes nothing."""
    async with held(ctx, caller, approval_id, "edit", request, None) as at:
        caller.need_any("submit", "decide")
        return bool(_planned(at, request)[2])


def _planned(at: Held, request: EditRequest) -> tuple[Action, Action, Sequence[Mapping[str, object]]]:
    """The action as it is, as the edit makes it, and what differs; refused where it may not be edited so."""
    _check_editable(at.whole)
    vote = vote_of(at.deciding, at.whole, request.revision)
    check_open(view_of(at.row), vote, at.deciding.now)
    _check_editor(at.deciding, at.row, vote)
    before = approvals.action_of(at.whole)
    after = _edited(at.whole, before, request.action)
    return before, after, asking.changes(before.to_json(), after.to_json())


async def _revise(at: Held, after: Action, law: Law) -> Params:
    """Write the next revision, judged as if it were asked for now; what that judgement came to."""
    deciding, whole, row, before = at.deciding, at.whole, at.row, approvals.action_of(at.whole)
    roles = await people.roles_of(at.conn, deciding.caller.namespace, row["requester"])
    requester = replace(view_of(row).requester, roles=roles)
    asked = Asking.from_json(whole["asked"], requester, approvals.facts_of_workflow(whole))
    judged = asking.judge(after, asked, law, deciding.now)
    columns = judged.columns(deciding.now)
    kept = cast("Mapping[str, Any]", whole["asked"] or {})
    first: Mapping[str, object] = kept.get("action") or before.to_json()
    whole |= {
        **columns, "state": ApprovalState.PENDING, "revision": whole["revision"] + 1, "action": after.to_json(),
        # Whatever was said of the action was said of another one.
        "description": redact.hide(described(after), [before.to_json(), after.to_json(), whole["payload"]]),
        "asked": {**kept, "action": first}, "last_editor": deciding.caller.person,
        "asked_digest": digest(first, judged.terms.volatile_fields), "escalated_at": None,
        "revised_at": deciding.now,
    }  # fmt: skip
    row |= {name: whole[name] for name in ("revision", "digest", "requirement", "expires_at", "last_editor")}
    whole["tally"] = resolve(view_of(row), deciding.asked.votes(row), deciding.now).tally.to_json()
    await approvals.put(at.conn, whole)
    return columns


def _revised(
    deciding: Deciding, whole: Params, row: Params, code: Code, differences: Sequence[Mapping[str, object]]
) -> Edited:
    return Edited(
        **deciding.told(row, code).model_dump(), revision=whole["revision"], digest=whole["digest"],
        risk_level=whole["risk_level"], changes=[dict(one) for one in differences],
    )  # fmt: skip


def said(text: str, whole: Params) -> str:
    """What somebody says of a request, without the secrets in it."""
    return redact.hide(text, [whole["action"], whole["payload"]])


def _check_editor(deciding: Deciding, row: Params, vote: Vote) -> None:
    """The requester edits, or anybody who could decide."""
    view = view_of(row)
    if vote.voter in selves_of(view):
        return
    deciding.caller.need("decide")
    delegated = (one for one, to in deciding.asked.delegations if to == vote.voter)
    roles = vote.roles.union(*(deciding.asked.roles.get(one, frozenset()) for one in delegated))
    if first_stage(view.requirement, roles) is not None:
        return
    detail = f"{vote.voter} neither asked for this nor could decide it"
    raise NotEligible(detail, voter=vote.voter, roles=sorted(view.requirement.roles))


def _check_editable(whole: Params) -> None:
    """NotEditable where whoever asked does not take an edited action."""
    if whole["kind"] != Kind.APPROVAL:
        detail = "this is a question, and there is no action in it to edit; answer it instead"
        raise NotEditable(detail, approval_id=whole["approval_id"])
    if not whole["editable"]:
        detail = "whoever asked does not take an edited action; reject it with what should change, or submit it anew"
        raise NotEditable(detail, approval_id=whole["approval_id"])


def _edited(whole: Params, before: Action, given: Mapping[str, object]) -> Action:
    """The action as edited."""
    real = before.to_json()
    after = action_from(cast("Mapping[str, object]", restored(given, real, whole["payload"])))
    if MASK in canonical_json(after.to_json()) and MASK not in canonical_json(real):
        detail = f"{MASK} stands for a value that is not shown; leave such a field where it was, or give its new value"
        raise InvalidInput(detail)
    _check_schema(whole, after)
    _check_moved(whole, real, after.to_json())
    return after


def _check_moved(whole: Params, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Of a call only what it is called with may change, and what tells of that must change with it."""
    payload = cast("Mapping[str, Any]", whole["payload"] if isinstance(whole["payload"], dict) else {})
    if whole["dialect"] == "keyturn" and "arguments_schema" not in payload:
        return
    takes = _OF_A_FUNCTION if whole["dialect"] == "keyturn" else _OF_A_CALL
    told = cast("Mapping[str, str]", payload.get("arguments_told") or {})
    moved = [key for key, value in before.items() if key not in (*takes, *told) and after[key] != value]
    if moved:
        detail = f"of a tool call only {' and '.join(takes)} can be edited, not {', '.join(moved)}"
        raise InvalidInput(detail, fields=moved)
    for field, name in told.items():
        value = after["arguments"].get(name)
        if after[field] != (str(value) if field == "target" else value):
            detail = f"`{field}` tells of the argument `{name}`, which is another one; change both to the same"
            raise InvalidInput(detail, fields=[field])


def _check_schema(whole: Params, after: Action) -> None:
    given = whole["payload"]
    payload = cast("Mapping[str, Any]", given if isinstance(given, dict) else {})
    own = cast("Mapping[str, object] | None", payload.get("arguments_schema"))
    configs = cast("Sequence[Mapping[str, Any]]", payload.get("review_configs") or ())
    schema = next((one.get("args_schema") for one in configs if one.get("action_name") == after.operation), own)
    if schema and (told := problems(schema, dict(after.arguments), "arguments")):
        detail = f"the arguments do not fit the tool: {'; '.join(told)}"
        raise InvalidInput(detail, problems=told)


async def _tell_edited(
    ctx: Context, conn: Connection, deciding: Deciding, whole: Params, differences: object, why: str
) -> None:
    facts: dict[str, object] = {
        "request_id": whole["approval_id"], "revision": whole["revision"], "digest": whole["digest"],
        "risk_level": whole["risk_level"], "route": whole["route"], "policy": whole["policy"],
        "changes": differences, "justification": why, "action": redact.beside(whole["action"], whole["payload"]),
    }  # fmt: skip
    told = Event("approval-revised", deciding.caller.person, facts)
    await events.append(conn, whole["workflow_id"], [told], ctx.clock())
    if deciding.tells and whole["decision"] is None:
        notice = {"kind": "revised", "approval_id": whole["approval_id"], "data": {"by": deciding.caller.person}}
        await approvals.queue_notices(conn, deciding.caller.namespace, whole["workflow_id"], [notice], ctx.clock())


async def _decided_by_policy(conn: Connection, deciding: Deciding, row: Params, columns: Mapping[str, Any]) -> Code:
    """What the edited action needs nobody for, or what a rule forbids, is settled at once."""
    written = Written(row["approval_id"])
    who = Identity(str(columns["resolved_by"]))
    deciding.resolved(row, ApprovalState(columns["state"]), who, columns["decision"], written)
    await write_behind(conn, deciding, written)
    return "auto_approved" if columns["state"] == ApprovalState.APPROVED else "resolved"


async def write_behind(conn: Connection, deciding: Deciding, written: Written) -> None:
    """Write a decision behind what this transaction has changed of the workflow's row already."""
    deciding.workflow["version"] = await workflows.version(conn, deciding.workflow["workflow_id"])
    await decisions.write(conn, [(deciding.asked, written)], wait=True)


async def withdraw(
    ctx: Context, caller: Caller, approval_id: str, request: WithdrawRequest, idempotency_key: str | None = None
) -> Decided:
    """End one's own request, and its workflow with it (rule 13)."""
    async with held(ctx, caller, approval_id, "withdraw", request, idempotency_key) as at:
        caller.need("submit")
        deciding, row = at.deciding, at.row
        if at.again:
            return deciding.told(row, "replayed")
        if caller.person != row["requester"]:
            detail = (
                f"only {row['requester']}, who asked for this, can withdraw it; rejecting or cancelling is possible"
            )
            raise NotOwner(detail, requester=row["requester"])
        check_open(view_of(row), vote_of(deciding, row, None), deciding.now)
        written = Written(approval_id)
        decision = {"verdict": "withdraw", "by": [caller.person], "note": said(request.reason, at.whole)}
        deciding.resolved(row, ApprovalState.WITHDRAWN, Identity(caller.person), decision, written)
        await write_behind(at.conn, deciding, written)
        return deciding.told(row, "withdrawn")


async def withdraw_workflow(
    ctx: Context, caller: Caller, workflow_id: str, request: WithdrawRequest, idempotency_key: str | None = None
) -> Decided:
    """The same by the workflow: what it asks is withdrawn."""
    async with ctx.db.connection() as conn:
        row = await workflows.get(conn, caller.namespace, workflow_id)
        asked = await approvals.of_workflow(conn, caller.namespace, workflow_id, ctx.clock())
    if row is None:
        raise unknown(workflow_id)
    if not asked:
        detail = f"the workflow is {row['status']} and has not asked for a decision; cancelling it is possible"
        raise NothingPending(detail, status=row["status"])
    open_now = [one for one in asked if one["state"] == ApprovalState.PENDING]
    # Asked for again, it is the one that was withdrawn.
    over = [one for one in asked if one["state"] == ApprovalState.WITHDRAWN]
    approval_id = (open_now or over or asked)[-1]["approval_id"]
    return await withdraw(ctx, caller, approval_id, request, idempotency_key)
