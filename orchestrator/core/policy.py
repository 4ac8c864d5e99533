"""What an approval needs and for how long it holds: its terms, from a policy or from the risk level.

Terms are values; who fills the slots is decided in `votes`, when they end in `deadlines`. Which policy matches is
decided in `policy_file`, what two versions come to together in `strictness`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from orchestrator.core.cel import Predicate
from orchestrator.core.freezes import Freeze, freeze_from_json
from orchestrator.core.model import Level, Requirement, Slot
from orchestrator.core.risk import RiskRules
from orchestrator.core.strictness import stricter_requirement

OnTimeout: TypeAlias = Literal["expire", "reject", "escalate", "approve"]
Mode: TypeAlias = Literal["add", "replace"]
Justification: TypeAlias = Literal["none", "decision", "request", "both"]

_LEVELS = tuple(Level)
_HOUR, _DAY = 3600, 86_400
# The later in the row, the stricter.
_TIMEOUTS: tuple[OnTimeout, ...] = ("approve", "escalate", "expire", "reject")


@dataclass(frozen=True, slots=True)
class Escalation:
    """After `after` without a decision the roles `to` may decide too; with mode `replace` they alone (rule 12)."""

    after: timedelta
    to: frozenset[str] = frozenset()
    mode: Mode = "add"


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """Who may run at once what others have not approved, and how soon somebody reviews it (rule 17)."""

    role: str
    review_within: timedelta


@dataclass(frozen=True, slots=True)
class Terms:
    """What decides one approval.

    `policy` and `version` name where the terms come from, also as the actor of an automatic decision. Times count
    from the request, `approval_ttl` from the approval. `volatile_fields` are dotted paths left out of the digest.
    """

    policy: str
    version: int | str
    requirement: Requirement
    request_ttl: timedelta = timedelta(hours=24)
    approval_ttl: timedelta = timedelta(hours=1)
    on_timeout: OnTimeout = "expire"
    escalation: Escalation | None = None
    reminders: tuple[timedelta, ...] = ()
    recheck_at_execution: bool = False
    volatile_fields: tuple[str, ...] = ()
    freeze: tuple[Freeze, ...] = ()
    break_glass: BreakGlass | None = None
    fallback_role: str | None = None
    justification_on_request: bool = False
    notify: bool = True
    auto_approve: bool = False

    @property
    def actor(self) -> str:
        """Who decides when nobody does: `policy:<name>@<version>`."""
        return f"policy:{self.policy}@{self.version}"

    def to_json(self) -> dict[str, object]:
        """The shape kept on the approval row; lengths of time in seconds."""
        escalation, glass = self.escalation, self.break_glass
        return {
            "policy": self.policy,
            "version": self.version,
            "requirement": self.requirement.to_json(),
            "request_ttl": self.request_ttl.total_seconds(),
            "approval_ttl": self.approval_ttl.total_seconds(),
            "on_timeout": self.on_timeout,
            "escalation": escalation
            and {"after": escalation.after.total_seconds(), "to": sorted(escalation.to), "mode": escalation.mode},
            "reminders": [one.total_seconds() for one in self.reminders],
            "recheck_at_execution": self.recheck_at_execution,
            "volatile_fields": list(self.volatile_fields),
            "freeze": [one.to_json() for one in self.freeze],
            "break_glass": glass and {"role": glass.role, "review_within": glass.review_within.total_seconds()},
            "fallback_role": self.fallback_role,
            "justification_on_request": self.justification_on_request,
            "notify": self.notify,
            "auto_approve": self.auto_approve,
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Terms:
        """What `to_json` gave; what an older row does not say is as it was then: the defaults."""
        escalation, glass = kept.get("escalation"), kept.get("break_glass")
        return cls(
            policy=kept["policy"],
            version=kept["version"],
            requirement=Requirement.from_json(kept["requirement"]),
            request_ttl=timedelta(seconds=kept.get("request_ttl", _DAY)),
            approval_ttl=timedelta(seconds=kept.get("approval_ttl", _HOUR)),
            on_timeout=kept.get("on_timeout", "expire"),
            escalation=escalation
            and Escalation(timedelta(seconds=escalation["after"]), frozenset(escalation["to"]), escalation["mode"]),
            reminders=tuple(timedelta(seconds=one) for one in kept.get("reminders", ())),
            recheck_at_execution=kept.get("recheck_at_execution", False),
            volatile_fields=tuple(kept.get("volatile_fields", ())),
            freeze=tuple(freeze_from_json(one) for one in kept.get("freeze", ())),
            break_glass=glass and BreakGlass(glass["role"], timedelta(seconds=glass["review_within"])),
            fallback_role=kept.get("fallback_role"),
            justification_on_request=kept.get("justification_on_request", False),
            notify=kept.get("notify", True),
            auto_approve=kept.get("auto_approve", False),
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy of the file, compiled. None and empty mean that the risk level decides.

    Without `match` and `levels` it takes every action. `beside` are policies whose terms must be met as well, because
    their match could not be evaluated; None among them stands for the risk level's own terms.
    """

    name: str
    version: int = 1
    match: Predicate | None = None
    levels: frozenset[Level] = frozenset()
    stages: tuple[tuple[Slot, ...], ...] = ()
    deny_threshold: int = 1
    request_ttl: timedelta | None = None
    approval_ttl: timedelta | None = None
    on_timeout: OnTimeout = "expire"
    escalate_after: timedelta | None = None
    escalate_to: frozenset[str] = frozenset()
    escalation_mode: Mode = "add"
    reminders: tuple[timedelta, ...] = ()
    justification: Justification = "none"
    recheck_at_execution: bool = False
    volatile_fields: tuple[str, ...] = ()
    freeze: tuple[Freeze, ...] = ()
    break_glass: BreakGlass | None = None
    fallback_role: str | None = None
    description: str = ""
    beside: tuple[Policy | None, ...] = ()


def terms_for(level: Level, rules: RiskRules, policy: Policy | None = None) -> Terms:
    """What `policy` asks for at `level`; without one, the defaults of the level.

    Those are one person holding any of its roles, and one rejection ends it. A level that is approved automatically
    may name no roles; when such a request still needs a person (an agent was not confident, or a freeze holds), those
    of the next level up that names some decide.
    """
    if policy is None:
        return _level_terms(level, rules)
    terms = _policy_terms(level, rules, policy)
    for other in policy.beside:
        also = _policy_terms(level, rules, other) if other else _level_terms(level, rules)
        # No digest is taken yet: only what every one of them calls volatile may be left out of it.
        volatile = tuple(field for field in terms.volatile_fields if field in also.volatile_fields)
        # The later of two gives the name.
        terms = replace(stricter(also, terms, loosened=False), volatile_fields=volatile)
    return terms


def _level_terms(level: Level, rules: RiskRules) -> Terms:
    entry = rules.levels[level]
    roles = frozenset(approvers(level, rules))
    return Terms(
        policy=f"level:{level.value}",
        version=rules.version,
        requirement=Requirement(((Slot(roles),),), justification_on_decision=entry.require_justification),
        request_ttl=entry.request_ttl,
        approval_ttl=entry.approval_ttl,
        escalation=Escalation(entry.escalate_after, above(level, rules)),
        recheck_at_execution=level is Level.CRITICAL,
        notify=entry.notify,
        auto_approve=entry.auto_approve,
    )


def _policy_terms(level: Level, rules: RiskRules, policy: Policy) -> Terms:
    """The level's terms, and what the policy says otherwise. A policy takes no care away that the level asks for."""
    base = _level_terms(level, rules)
    assert base.escalation is not None  # noqa: S101 every level has one
    return replace(
        base,
        policy=policy.name,
        version=policy.version,
        requirement=Requirement(
            policy.stages or base.requirement.stages,
            policy.deny_threshold,
            base.requirement.justification_on_decision or policy.justification in ("decision", "both"),
        ),
        request_ttl=policy.request_ttl or base.request_ttl,
        approval_ttl=policy.approval_ttl or base.approval_ttl,
        # The file says so for low alone; a level that was raised meanwhile must not be waved through.
        on_timeout="expire" if policy.on_timeout == "approve" and level is not Level.LOW else policy.on_timeout,
        escalation=Escalation(
            policy.escalate_after or base.escalation.after,
            policy.escalate_to or base.escalation.to,
            policy.escalation_mode,
        ),
        reminders=policy.reminders,
        recheck_at_execution=base.recheck_at_execution or policy.recheck_at_execution,
        volatile_fields=policy.volatile_fields,
        freeze=policy.freeze,
        break_glass=policy.break_glass,
        fallback_role=policy.fallback_role,
        justification_on_request=policy.justification in ("request", "both"),
        auto_approve=base.auto_approve and not policy.stages,
    )


def approvers(level: Level, rules: RiskRules) -> tuple[str, ...]:
    """The roles that decide `level`: its own, or those of the nearest level above that names some."""
    found = (rules.levels[other].approvers for other in _LEVELS[level.rank :])
    return next((roles for roles in found if roles), ())


def above(level: Level, rules: RiskRules) -> frozenset[str]:
    """The roles that `level` escalates to: those of the next level that names some; critical's own at the top."""
    return frozenset(approvers(_LEVELS[min(level.rank + 1, len(_LEVELS) - 1)], rules))


def stricter(one: Terms, other: Terms, *, loosened: bool = True) -> Terms:
    """What both `one` and the later `other` ask for together (rule 8): never less than either.

    The name and the version are the later one's; the volatile fields the first one's, as the digest is taken. What
    makes deciding easier (an escalation, break-glass, an approval at the time-out) stays only where both have it. An
    `other` that asks for nobody (`stages: []` where the level needs no approval) adds no slots, unless `loosened` is
    false.
    """
    asks_nobody = loosened and other.auto_approve and not one.auto_approve
    requirement = stricter_requirement(one.requirement, other.requirement)
    return Terms(
        policy=other.policy,
        version=other.version,
        requirement=replace(requirement, stages=one.requirement.stages) if asks_nobody else requirement,
        request_ttl=min(one.request_ttl, other.request_ttl),
        approval_ttl=min(one.approval_ttl, other.approval_ttl),
        on_timeout=_TIMEOUTS[max(_TIMEOUTS.index(one.on_timeout), _TIMEOUTS.index(other.on_timeout))],
        escalation=_both_escalate(one.escalation, other.escalation),
        reminders=tuple(sorted({*one.reminders, *other.reminders})),
        recheck_at_execution=one.recheck_at_execution or other.recheck_at_execution,
        volatile_fields=one.volatile_fields,
        freeze=tuple(dict.fromkeys((*one.freeze, *other.freeze))),
        break_glass=_both_break_glass(one.break_glass, other.break_glass),
        fallback_role=other.fallback_role or one.fallback_role,
        justification_on_request=one.justification_on_request or other.justification_on_request,
        notify=one.notify or other.notify,
        auto_approve=one.auto_approve and other.auto_approve,
    )


def _both_escalate(one: Escalation | None, other: Escalation | None) -> Escalation | None:
    if one is None or other is None:
        return None
    return Escalation(max(one.after, other.after), one.to & other.to or other.to, other.mode)


def _both_break_glass(one: BreakGlass | None, other: BreakGlass | None) -> BreakGlass | None:
    if one is None or other is None:
        return None
    return BreakGlass(other.role, min(one.review_within, other.review_within))
