"""What an approval needs and for how long it holds: the terms that stand where no policy says otherwise.

Terms are values; who fills the slots is decided in `votes`, when they end in `deadlines`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from orchestrator.core.model import Level, Requirement, Slot
from orchestrator.core.risk import RiskRules

_LEVELS = tuple(Level)


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
    escalate_after: timedelta | None = None
    volatile_fields: tuple[str, ...] = ()
    notify: bool = True
    auto_approve: bool = False

    @property
    def actor(self) -> str:
        """Who decides when nobody does: `policy:<name>@<version>`."""
        return f"policy:{self.policy}@{self.version}"


def terms_for(level: Level, rules: RiskRules) -> Terms:
    """The defaults of `level`: one person holding any of its roles, and one rejection ends it.

    A level that is approved automatically may name no roles; when such a request still needs a person (an agent was
    not confident, or a freeze holds), those of the next level up that names some decide.
    """
    entry = rules.levels[level]
    roles = frozenset(approvers(level, rules))
    return Terms(
        policy=f"level:{level.value}",
        version=rules.version,
        requirement=Requirement(((Slot(roles),),), justification_on_decision=entry.require_justification),
        request_ttl=entry.request_ttl,
        approval_ttl=entry.approval_ttl,
        escalate_after=entry.escalate_after,
        notify=entry.notify,
        auto_approve=entry.auto_approve,
    )


def approvers(level: Level, rules: RiskRules) -> tuple[str, ...]:
    """The roles that decide `level`: its own, or those of the nearest level above that names some."""
    above = (rules.levels[other].approvers for other in _LEVELS[level.rank :])
    return next((roles for roles in above if roles), ())
