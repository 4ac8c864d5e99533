"""Why does this need approval, who can give it, and why not me (rule 24). Reads only."""

from __future__ import annotations

from orchestrator.core.actions import action_from
from orchestrator.core.asking import Asking, forbidden_by, judge, weigh
from orchestrator.core.cel import facts_of
from orchestrator.core.errors import Refusal
from orchestrator.core.freezes import freeze_from_json, frozen_until
from orchestrator.core.model import ApprovalState, Kind, Level, Requester, Requirement, Verdict, Vote
from orchestrator.core.policy import Policy
from orchestrator.core.policy_file import PolicyBook
from orchestrator.core.votes import Counted, check_vote, resolve
from orchestrator.service import views
from orchestrator.service.approvals import current
from orchestrator.service.context import Caller, Context
from orchestrator.store import decisions, delegations, people, workflows
from orchestrator.store.db import Connection, Params
from orchestrator.store.decisions import Asked, Question, view_of
from orchestrator.wire import ExplainRequest, Explanation


async def approval(ctx: Context, caller: Caller, approval_id: str, person: str | None = None) -> Explanation:
    """Explain a request as it stands; `person` asks why somebody may not decide it. NotFound."""
    caller.need("read")
    row = await current(ctx, caller, approval_id)
    requirement = views.requirement_of(row)
    async with ctx.db.connection() as conn:
        holders = await people.holders(conn, caller.namespace, requirement.roles)
        delegates = {
            str(one["to_person"]) for one in await delegations.list_open(conn, caller.namespace, None, ctx.clock())
        }
        asked_of: list[str] = sorted({*holders, *delegates, *([person] if person else [])})
        question = Question(caller.namespace, row["workflow_id"], asked_of, ctx.clock())
        (asked,) = await decisions.read(conn, [question])
    assert asked is not None  # noqa: S101 the approval was found, and so is its workflow
    stands = next(one for one in asked.approvals if one["approval_id"] == approval_id)
    closed = row["state"] != ApprovalState.PENDING or row["kind"] == Kind.QUESTION
    refusals = {name: _refusal(asked, stands, name) for name in asked_of}
    filling = resolve(view_of(stands), asked.votes(stands), asked.workflow["now"]).tally
    filled = filling.filled if row["tally"] is None or not closed else ()
    return Explanation(
        risk_level=row["risk_level"],
        reasons=row["reasons"],
        forbidden_by=forbidden_by(row),
        route=row["route"],
        policy=row["policy"],
        policy_versions=row["policy_versions"],
        stages=[[slot.to_json() for slot in stage] for stage in requirement.stages],
        filled={one.person: one.role for one in filled} or views.filled_of(row),
        can_decide=[] if closed else [name for name, refusal in refusals.items() if refusal is None],
        why_not={person: why} if person and (why := refusals[person]) else {},
        frozen_until=frozen_until(map(freeze_from_json, row["terms"].get("freeze", ())), asked.workflow["now"]),
        flags=row["flags"],
    )


def _refusal(asked: Asked, row: Params, person: str) -> str | None:
    """Why somebody may not approve this now, in their own place or another's; None when they may."""
    principals = [None, *sorted(one for one, to in asked.delegations if to == person)]
    whys: list[str] = []
    for principal in principals:
        roles = asked.roles.get(principal or person, frozenset())
        now = asked.workflow["now"]
        vote = Vote(person, Verdict.APPROVE, row["revision"], now, roles, principal, "a reason")
        try:
            outcome = check_vote(view_of(row), asked.votes(row), vote, now)
        except Refusal as refusal:
            held = f"; {person} holds {', '.join(sorted(roles)) or 'no role'}" if refusal.code == "not_eligible" else ""
            whys.append(f"{refusal.code}: {refusal.detail}{held}")
        else:
            if isinstance(outcome, Counted):
                return None
            whys.append(f"person_already_counted: {person} has approved this already")
    return whys[0]


async def action(ctx: Context, caller: Caller, request: ExplainRequest) -> Explanation:
    """Dry-run the rules on an action. InvalidInput when it is not one."""
    caller.need("read")
    wanted = action_from(request.action)
    person = request.requester or caller.person
    async with ctx.db.connection() as conn:
        requester = Requester(person, roles=await people.roles_of(conn, caller.namespace, person))
        now = await workflows.present(conn, ctx.clock())
    law = await ctx.laws.now(caller.namespace)
    workflow = {"namespace": caller.namespace}
    asking = Asking(requester, workflow, request.confidence, request.confidence is not None)
    judged = weigh(wanted, asking, law, now)
    level, terms = judged.assessment.level, judged.terms
    facts = facts_of(wanted, requester, workflow, judged.routing.score)
    policy, troubles = law.book.look(facts, level)
    try:
        terms = judge(wanted, asking, law, now).terms
    except Refusal as refusal:
        troubles = (*troubles, f"it would be refused ({refusal.code}): {refusal.detail}")
    async with ctx.db.connection() as conn:
        holders = await people.holders(conn, caller.namespace, terms.requirement.roles)
        why_not = await _why_not(conn, caller, requester, terms.requirement, request.person)
    return Explanation(
        risk_level=level.value,
        reasons=[reason.to_json() for reason in judged.assessment.reasons],
        forbidden_by=judged.assessment.forbidden_by,
        route=judged.routing.route.value,
        policy=terms.policy,
        policy_versions=[str(terms.version)],
        stages=[[slot.to_json() for slot in stage] for stage in terms.requirement.stages],
        filled={},
        can_decide=sorted(set(holders) - requester.selves),
        why_not=why_not,
        policy_reason="; ".join([_picked(law.book, policy, level), *troubles]),
        frozen_until=judged.frozen,
    )


def _picked(book: PolicyBook, policy: Policy | None, level: Level) -> str:
    """Why these terms stand; where no policies are published there is nothing to say."""
    if not book.version:
        return ""
    if policy is None or None in policy.beside:
        return f"no policy of version {book.version} surely takes it, so the defaults of level {level} stand"
    condition = policy.match.text if policy.match else "it takes every request"
    within = f" at {' or '.join(one for one in Level if one in policy.levels)} risk" if policy.levels else ""
    return f"{policy.name} is the first policy of version {book.version} that takes it{within}: {condition}"


async def _why_not(
    conn: Connection, caller: Caller, requester: Requester, requirement: Requirement, person: str | None
) -> dict[str, str]:
    """The first reason why `person` may not decide; nothing when they may."""
    if person is None:
        return {}
    if person in requester.selves:
        return {person: "self_approval: nobody approves their own request"}
    held = await people.roles_of(conn, caller.namespace, person)
    if requirement.stages and not held & requirement.roles:
        needed = ", ".join(sorted(requirement.roles))
        return {person: f"not_eligible: holds {', '.join(sorted(held)) or 'no role'}; needed is one of {needed}"}
    return {}
