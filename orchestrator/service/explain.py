"""Why does this need approval, who can give it, and why not me (rule 24). Reads only."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.actions import action_from
from orchestrator.core.confidence import adjusted, route
from orchestrator.core.errors import NotFound
from orchestrator.core.matching import fill
from orchestrator.core.model import Kind, Requester, Requirement, Verdict
from orchestrator.core.policy import terms_for
from orchestrator.service import views
from orchestrator.service.context import Caller, Context
from orchestrator.store import approvals, people
from orchestrator.store.db import Connection, Params
from orchestrator.wire import ExplainRequest, Explanation


async def approval(ctx: Context, caller: Caller, approval_id: str, person: str | None = None) -> Explanation:
    """Explain a request as it stands; `person` asks why somebody may not decide it. NotFound."""
    caller.need("read")
    async with ctx.db.connection() as conn:
        row = await approvals.get(conn, caller.namespace, approval_id)
        if row is None:
            detail = f"there is no approval {approval_id!r}"
            raise NotFound(detail, approval_id=approval_id)
        requirement = views.requirement_of(row)
        requester = Requester(row["requester"], row["on_behalf_of"], row["launched_by"])
        holders = await people.holders(conn, caller.namespace, requirement.roles)
        votes = [one for one in await approvals.votes(conn, [approval_id]) if not one["superseded"]]
        why_not = await _why_not(conn, caller, requester, requirement, person)
    return Explanation(
        risk_level=row["risk_level"],
        reasons=row["reasons"],
        forbidden_by=None,
        route=row["route"],
        policy=row["policy"],
        policy_versions=row["policy_versions"],
        stages=[[slot.to_json() for slot in stage] for stage in requirement.stages],
        filled=_filled(requirement, holders, votes),
        can_decide=_can_decide(row, requester, holders),
        why_not=why_not,
    )


async def action(ctx: Context, caller: Caller, request: ExplainRequest) -> Explanation:
    """Dry-run the rules on an action. InvalidInput when it is not one."""
    caller.need("read")
    wanted = action_from(request.action)
    person = request.requester or caller.person
    async with ctx.db.connection() as conn:
        requester = Requester(person, roles=await people.roles_of(conn, caller.namespace, person))
    rules = ctx.governance.rules
    config = ctx.governance.confidence
    applies, where = request.confidence is not None, {"namespace": caller.namespace}
    added = config.adjustments(wanted, requester, where, request.confidence or 0.0) if applies else ()
    points = [one.points for one in added]
    assessment = rules.assess(wanted, requester, {}, adjusted(request.confidence, points) if applies else None)
    terms = terms_for(assessment.level, rules)
    routing = route(
        assessment.level, terms.auto_approve, request.confidence, applies, points,
        forbidden=assessment.forbidden_by is not None,
        auto_threshold=config.thresholds.auto, quick_threshold=config.thresholds.quick,
    )  # fmt: skip
    async with ctx.db.connection() as conn:
        holders = await people.holders(conn, caller.namespace, terms.requirement.roles)
        why_not = await _why_not(conn, caller, requester, terms.requirement, request.person)
    return Explanation(
        risk_level=assessment.level.value,
        reasons=[reason.to_json() for reason in assessment.reasons],
        forbidden_by=assessment.forbidden_by,
        route=routing.route.value,
        policy=terms.policy,
        policy_versions=[str(terms.version)],
        stages=[[slot.to_json() for slot in stage] for stage in terms.requirement.stages],
        filled={},
        can_decide=sorted(set(holders) - requester.selves),
        why_not=why_not,
    )


def _can_decide(row: Params, requester: Requester, holders: Mapping[str, frozenset[str]]) -> list[str]:
    if row["state"] != "pending" or row["kind"] == Kind.QUESTION:
        return []
    return sorted(set(holders) - requester.selves)


def _filled(requirement: Requirement, holders: Mapping[str, frozenset[str]], votes: list[Params]) -> dict[str, str]:
    approved = {
        one["voter"]: holders[one["voter"]]
        for one in votes
        if one["verdict"] == Verdict.APPROVE and one["voter"] in holders
    }
    return {taken.person: taken.role for taken in fill(requirement.stages, approved).filled}


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
