"""Trying a policy file on past requests (rule 24): what would have gone otherwise. Nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from orchestrator.core.actions import action_from
from orchestrator.core.asking import Asking, Law
from orchestrator.core.cel import facts_of
from orchestrator.core.confidence import route
from orchestrator.core.freezes import frozen_until
from orchestrator.core.model import Level, Requester, Requirement, Route
from orchestrator.core.policy import Terms, terms_for
from orchestrator.core.policy_file import PolicyBook
from orchestrator.service.context import Caller, Context
from orchestrator.store import people, policies
from orchestrator.store.db import Params
from orchestrator.wire import PolicyDifference, PolicyOutcome, SimulateRequest, Simulation

# Requests are found by way of their workflows, of which so many are looked at.
_LOOK_BACK: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Judged:
    """A past request, and what the file would have asked for."""

    row: Params
    requester: Requester
    requirement: Requirement
    terms: Terms
    route: str
    troubles: tuple[str, ...]


async def simulate(ctx: Context, caller: Caller, request: SimulateRequest) -> Simulation:
    """What the file would have changed for the newest requests, with the risk they had and the people there are now.

    Raises Forbidden, InvalidDocument.
    """
    caller.need_any("admin", "audit")
    rules = ctx.governance.rules
    book = await asyncio.to_thread(PolicyBook.load, request.text, request.file, rules.roles)
    async with ctx.db.snapshot() as conn:
        rows = await policies.past(conn, caller.namespace, request.limit, _LOOK_BACK)
        everybody = {one.person: frozenset(one.roles) for one in await people.list_people(conn, caller.namespace)}
    law = Law(rules, book, confidence=ctx.governance.confidence)
    judged = await asyncio.to_thread(_judge_all, rows, law, everybody)
    compared = [_compared(one, everybody) for one in judged]
    return Simulation(replayed=len(judged), differences=[one for one in compared if one.changed or one.troubles])


def _judge_all(rows: Iterable[Params], law: Law, everybody: Mapping[str, frozenset[str]]) -> list[_Judged]:
    return [_judge(row, law, everybody) for row in rows]


def _judge(row: Params, law: Law, everybody: Mapping[str, frozenset[str]]) -> _Judged:
    requester = Requester(
        row["requester"], row["on_behalf_of"], row["launched_by"], everybody.get(row["requester"], frozenset())
    )
    workflow = {**row, "id": row["workflow_id"]}
    level = Level(row["risk_level"])
    facts = facts_of(action_from(row["action"]), requester, workflow, row["confidence"])
    policy, troubles = law.book.look(facts, level)
    terms = terms_for(level, law.rules, policy)
    frozen = frozen_until(terms.freeze, row["requested_at"]) is not None
    # The score is kept as it was adjusted.
    auto, quick = Asking.from_json(row["asked"], requester, workflow).bands(law)
    routing = route(
        level, terms.auto_approve, row["confidence"], row["confidence"] is not None, frozen=frozen,
        auto_threshold=auto, quick_threshold=quick,
    )  # fmt: skip
    if routing.route is not Route.AUTO:
        troubles = (*troubles, *_nobody(terms, requester, everybody))
    requirement = Requirement.from_json(cast("Mapping[str, Any]", row["requirement"]))
    return _Judged(row, requester, requirement, terms, routing.route.value, troubles)


def _nobody(terms: Terms, requester: Requester, everybody: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """A sentence for each slot that nobody could fill (rule 14)."""
    held = {role for person, roles in everybody.items() if person not in requester.selves for role in roles}
    if terms.fallback_role in held:
        return
    for slot in (slot for stage in terms.requirement.stages for slot in stage):
        if not slot.roles & held:
            yield f"nobody besides who asked holds {' or '.join(sorted(slot.roles))}, so it would have been refused"


def _compared(one: _Judged, everybody: Mapping[str, frozenset[str]]) -> PolicyDifference:
    row = one.row
    before = _outcome(row["policy"], row["route"], one.requirement, _deciders(one, one.requirement, everybody))
    needed = one.terms.requirement
    after = _outcome(one.terms.policy, one.route, needed, _deciders(one, needed, everybody))
    return PolicyDifference(
        approval_id=row["approval_id"],
        workflow_id=row["workflow_id"],
        requested_at=row["requested_at"],
        risk_level=row["risk_level"],
        description=row["description"],
        changed=[name for name in PolicyOutcome.model_fields if getattr(before, name) != getattr(after, name)],
        before=before,
        after=after,
        lacking=sorted(set(before.can_decide) - set(after.can_decide)),
        added=sorted(set(after.can_decide) - set(before.can_decide)),
        troubles=one.troubles,
    )


def _outcome(policy: str, way: str, requirement: Requirement, deciders: Sequence[str]) -> PolicyOutcome:
    return PolicyOutcome(
        policy=policy,
        route=way,
        stages=[
            [{"any_of": sorted(slot.roles), "count": slot.count} for slot in stage] for stage in requirement.stages
        ],
        deny_threshold=requirement.deny_threshold,
        justification_required=requirement.justification_on_decision,
        can_decide=deciders,
    )


def _deciders(one: _Judged, requirement: Requirement, everybody: Mapping[str, frozenset[str]]) -> list[str]:
    """Who may decide, as people are now. What an escalation added does not count: it was not asked at first."""
    roles = {role for stage in requirement.stages for slot in stage for role in slot.roles}
    return sorted(person for person, held in everybody.items() if held & roles and person not in one.requester.selves)
