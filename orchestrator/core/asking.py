"""Judging a request: its risk, the policy that decides it, where it goes, who may decide, and until when.

The same for a request that a graph makes and for one that was edited: an edited action is judged from nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast

from orchestrator.core.canonical import digest, redact
from orchestrator.core.cel import facts_of
from orchestrator.core.confidence import DEFAULT_RULES, ConfidenceRules, adjusted, route
from orchestrator.core.deadlines import deadlines, lapses_at
from orchestrator.core.errors import JustificationRequired, Unroutable
from orchestrator.core.freezes import frozen_until
from orchestrator.core.model import (
    Action,
    Adjustment,
    ApprovalState,
    Assessment,
    Level,
    Requester,
    Requirement,
    Route,
    Routing,
    Slot,
)
from orchestrator.core.policy import Terms, terms_for
from orchestrator.core.policy_file import PolicyBook
from orchestrator.core.risk import RiskRules

UNROUTABLE_ESCALATED = "unroutable_escalated"
_FORBIDDEN = "forbidden by rule "


@dataclass(frozen=True, slots=True)
class Asking:
    """What asks for an approval, besides the action.

    `confidence` (0 to 100), its `adjustments` and the `thresholds` for AUTO and QUICK are an agent's and mean nothing
    unless `from_agent`; None leaves them to the configuration. `raised_to` is the level the graph asks for,
    `justification` the requester's.
    """

    requester: Requester
    workflow: Mapping[str, object]
    confidence: float | None = None
    from_agent: bool = False
    adjustments: tuple[Adjustment, ...] | None = None
    thresholds: tuple[float | None, float | None] = (None, None)
    raised_to: Level | None = None
    justification: str = ""

    def bands(self, law: Law) -> tuple[float, float]:
        """From where on a score is AUTO and QUICK."""
        auto, quick = self.thresholds
        auto = law.confidence.thresholds.auto if auto is None else auto
        return auto, min(law.confidence.thresholds.quick, auto) if quick is None else quick

    def adjusted_by(self, action: Action, law: Law) -> tuple[Adjustment, ...]:
        """What the confidence is adjusted by: what the request brings, else what the configuration says."""
        if not self.from_agent:
            return ()
        if self.adjustments is not None:
            return self.adjustments
        return law.confidence.adjustments(action, self.requester, self.workflow, adjusted(self.confidence))

    def to_json(self) -> dict[str, object] | None:
        """What an edited action needs to be judged again; None when it is all as usual."""
        kept: dict[str, object] = {
            "confidence": self.confidence, "from_agent": self.from_agent,
            "adjustments": None if self.adjustments is None else [one.to_json() for one in self.adjustments],
            "thresholds": list(self.thresholds), "raised_to": self.raised_to and self.raised_to.value,
            "justification": self.justification,
        }  # fmt: skip
        changed = {name: value for name, value in kept.items() if value != _USUAL[name]}
        return changed or None

    @classmethod
    def from_json(cls, kept: Mapping[str, Any] | None, requester: Requester, workflow: Mapping[str, object]) -> Asking:
        """What `to_json` gave, with who asks and in which workflow."""
        given = {**_USUAL, **(kept or {})}
        auto, quick = given["thresholds"]
        points = given["adjustments"]
        adjustments = None if points is None else tuple(Adjustment(one["name"], one["points"]) for one in points)
        return cls(
            requester, workflow, given["confidence"], given["from_agent"], adjustments, (auto, quick),
            given["raised_to"] and Level(given["raised_to"]), given["justification"],
        )  # fmt: skip


_USUAL: dict[str, Any] = {
    "confidence": None, "from_agent": False, "adjustments": None, "thresholds": [None, None],
    "raised_to": None, "justification": "",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Law:
    """What requests are judged by: the rules, the published policies, how agents' confidence is adjusted, and who holds
    which role in the namespace.
    """

    rules: RiskRules
    book: PolicyBook
    holders: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    confidence: ConfidenceRules = DEFAULT_RULES


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of a request: the terms with who may decide, and the columns of its row."""

    assessment: Assessment
    terms: Terms
    routing: Routing
    flags: tuple[str, ...]
    frozen: datetime | None
    digest: str
    seen: int
    adjustments: tuple[Adjustment, ...] = ()

    def columns(self, now: datetime) -> dict[str, object]:
        """Its part of an approval's row, made at `now`: pending, or decided by the policy itself."""
        terms, times = self.terms, deadlines(self.terms, self.routing, now)
        return {
            "risk_level": self.assessment.level.value,
            "reasons": [reason.to_json() for reason in self.assessment.reasons],
            "route": self.routing.route.value,
            "confidence": self.routing.score,
            "urgent": self.routing.urgent,
            "policy": terms.policy,
            "policy_versions": [str(terms.version)],
            "policy_seen": self.seen,
            "requirement": terms.requirement.to_json(),
            "roles": sorted(terms.requirement.roles),
            "terms": kept_terms(terms),
            "flags": list(self.flags),
            "volatile_fields": list(terms.volatile_fields),
            "digest": self.digest,
            "approval_ttl": terms.approval_ttl,
            "due_at": times.due_at,
            "expires_at": times.expires_at,
            "escalate_at": times.escalate_at,
            "remind_at": times.remind_at,
            "lapses_at": None,
            "state": ApprovalState.PENDING,
            "decision": None,
            "resolved_by": None,
            "resolved_at": None,
            **self._decided(now),
        }

    def _decided(self, now: datetime) -> dict[str, object]:
        if self.routing.route is Route.AUTO:
            return resolved(ApprovalState.APPROVED, "approve", self.terms, "", now)
        if self.routing.route is Route.DENIED:
            note = f"{_FORBIDDEN}{self.assessment.forbidden_by}"
            return resolved(ApprovalState.REJECTED, "reject", self.terms, note, now)
        return {}


def judge(action: Action, asking: Asking, law: Law, now: datetime) -> Judgement:
    """What becomes of a request for `action` at `now`.

    Raises JustificationRequired where the policy wants the requester's and there is none, and Unroutable when nobody
    may decide (rule 14).
    """
    found = weigh(action, asking, law, now)
    if found.routing.route in (Route.AUTO, Route.DENIED):
        return found
    _check_justified(found.terms, action, asking)
    terms, flags = _routed(found.terms, asking.requester, law.holders)
    return replace(found, terms=terms, flags=flags)


def weigh(action: Action, asking: Asking, law: Law, now: datetime) -> Judgement:
    """The risk of a request, the terms that stand for it and its route, whoever there is to decide it."""
    requester = asking.requester
    added = asking.adjusted_by(action, law)
    points = [one.points for one in added]
    confidence = adjusted(asking.confidence, points) if asking.from_agent else None
    facts = facts_of(action, requester, asking.workflow, confidence)
    assessment = law.rules.judge(action, facts, asking.raised_to)
    policy = law.book.pick(facts, assessment.level)
    terms = terms_for(assessment.level, law.rules, policy)
    frozen = frozen_until(terms.freeze, now) if terms.freeze else None
    auto, quick = asking.bands(law)
    routing = route(
        assessment.level, terms.auto_approve, asking.confidence, asking.from_agent, points,
        frozen=frozen is not None, forbidden=assessment.forbidden_by is not None, auto_threshold=auto,
        quick_threshold=quick,
    )  # fmt: skip
    found = digest(action.to_json(), terms.volatile_fields)
    return Judgement(assessment, terms, routing, (), frozen, found, law.book.version, added)


def _check_justified(terms: Terms, action: Action, asking: Asking) -> None:
    if not terms.justification_on_request or asking.justification.strip():
        return
    if str(action.metadata.get("justification") or "").strip():
        return
    detail = (
        f"policy {terms.policy} wants the requester to say why: give a `justification` with the request, or in the"
        " action's metadata"
    )
    raise JustificationRequired(detail, field="justification", policy=terms.policy)


def _routed(terms: Terms, requester: Requester, holders: Mapping[str, frozenset[str]]) -> tuple[Terms, tuple[str, ...]]:
    """The terms with the fallback added where nobody could fill a slot once the requester's side is removed.

    For whom they ask is the requester's word alone, so it never brings the fallback: they would choose who decides.
    """

    def held(roles: frozenset[str], besides: frozenset[str] = requester.selves) -> bool:
        return any(holders.get(role, frozenset()) - besides for role in roles)

    empty = [slot for stage in terms.requirement.stages for slot in stage if not held(slot.open_to)]
    if not empty:
        return terms, ()
    needed = ", ".join(sorted({role for slot in empty for role in slot.roles})) or "a role"
    named = requester.on_behalf_of
    if named and any(held(slot.open_to, _others(requester)) for slot in empty):
        detail = (
            f"nobody may decide this: besides {requester.person} and {named}, for whom it is asked, nobody holds"
            f" {needed} in this namespace. Submit it without naming {named}, or give somebody else the role"
        )
        raise Unroutable(detail, roles=sorted({role for slot in empty for role in slot.roles}))
    fallback = terms.fallback_role
    if fallback is None or not held(frozenset({fallback})):
        also = f", nor {fallback}, the fallback," if fallback else ""
        detail = (
            f"nobody may decide this: besides who asked, nobody holds {needed}{also} in this namespace. Give somebody"
            " such a role, then retry the workflow"
        )
        raise Unroutable(detail, roles=sorted({role for slot in empty for role in slot.roles}))
    stages = tuple(
        tuple(replace(slot, escalated=slot.escalated | {fallback}) if slot in empty else slot for slot in stage)
        for stage in terms.requirement.stages
    )
    return replace(terms, requirement=replace(terms.requirement, stages=stages)), (UNROUTABLE_ESCALATED,)


def _others(requester: Requester) -> frozenset[str]:
    """The requester's side without whom they ask for."""
    return replace(requester, on_behalf_of=None).selves


def resolved(state: ApprovalState, verdict: str, terms: Terms, note: str, now: datetime) -> dict[str, object]:
    """An automatic decision leaves the same columns as a person's."""
    return {
        "state": state,
        "decision": {"verdict": verdict, "by": [terms.actor], "note": note},
        "resolved_by": terms.actor,
        "resolved_at": now,
        "lapses_at": lapses_at(terms, now) if state is ApprovalState.APPROVED else None,
    }


_PLAIN = Terms("", 0, Requirement(())).to_json()
# What of the terms has columns of its own.
_ELSEWHERE = ("policy", "version", "requirement", "approval_ttl", "volatile_fields")


def kept_terms(terms: Terms) -> dict[str, object]:
    """The terms as they are kept on a row, beside what has columns there: what is as usual takes no room."""
    return {name: value for name, value in terms.to_json().items() if name not in _ELSEWHERE and value != _PLAIN[name]}


def terms_of(row: Mapping[str, Any]) -> Terms:
    """The terms that an approval's row keeps."""
    rest = {
        "policy": row["policy"], "version": row["policy_versions"][-1], "requirement": row["requirement"],
        "approval_ttl": row["approval_ttl"].total_seconds(), "volatile_fields": row["volatile_fields"],
    }  # fmt: skip
    return Terms.from_json({**row["terms"], **rest})


def forbidden_by(row: Mapping[str, Any]) -> str | None:
    """The rule that forbade what an approval's row asked for, if one did."""
    decision = cast("Mapping[str, object]", row["decision"] or {})
    note = str(decision.get("note", ""))
    denied = row["route"] == Route.DENIED and note.startswith(_FORBIDDEN)
    return note.removeprefix(_FORBIDDEN) if denied else None


def escalated(requirement: Requirement, to: frozenset[str], mode: str, now: datetime) -> Requirement:
    """The requirement after an escalation: `to` may fill every slot too, or in mode `replace` from `now` on they alone;
    a count never becomes lower (rule 12).
    """

    def one(slot: Slot) -> Slot:
        closed = slot.closed_at or (now if mode == "replace" else None)
        return replace(slot, escalated=slot.escalated | (to - slot.roles if mode == "add" else to), closed_at=closed)

    return replace(requirement, stages=tuple(tuple(one(slot) for slot in stage) for stage in requirement.stages))


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> Sequence[dict[str, object]]:
    """What differs between two JSON objects: `{path, before, after}` for each place, mappings compared inside. Secrets
    are masked here: a place alone does not show that its value is one.
    """
    shown = cast("Mapping[str, object]", redact({"before": before, "after": after}))
    return _differing((before, after), (shown["before"], shown["after"]), "")


def _differing(real: tuple[object, object], shown: tuple[object, object], path: str) -> list[dict[str, object]]:
    if not all(isinstance(one, Mapping) for one in (*real, *shown)):
        return [{"path": path, "before": shown[0], "after": shown[1]}] if real[0] != real[1] else []
    one, other = (cast("Mapping[str, object]", side) for side in real)
    told, told_now = (cast("Mapping[str, object]", side) for side in shown)
    found: list[dict[str, object]] = []
    for key in sorted({*one, *other}):
        place = f"{path}.{key}" if path else key
        if key in one and key in other:
            found += _differing((one[key], other[key]), (told[key], told_now[key]), place)
        else:
            found.append({"path": place, "before": told.get(key), "after": told_now.get(key)})
    return found
