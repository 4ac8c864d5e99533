"""The nouns: levels, routes, statuses, actions, approvals and votes as frozen values.

Nothing here reads a clock or a database; times arrive as aware datetimes from whoever holds the database clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self


class Level(StrEnum):
    """Risk levels, lowest first; compare with `rank`."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for low up to 3 for critical."""
        return _LEVELS.index(self)

    @staticmethod
    def highest(levels: Sequence[Level]) -> Level:
        """The highest of `levels`; low when there are none."""
        return max(levels, key=lambda level: level.rank, default=Level.LOW)


# The flag of an approval that somebody with the policy's role ran through what was missing (rule 17).
BREAK_GLASS = "break_glass"
_LEVELS = (Level.LOW, Level.MEDIUM, Level.HIGH, Level.CRITICAL)


class Route(StrEnum):
    """How a request is decided: by policy, inline, in the queue, or refused by a forbid rule."""

    AUTO = "AUTO"
    QUICK = "QUICK"
    FULL = "FULL"
    DENIED = "DENIED"


class Status(StrEnum):
    """A workflow's status; the drawing is in the README."""

    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def finished(self) -> bool:
        """Whether nothing will happen any more (a failed workflow can still be retried)."""
        return self not in (Status.READY, Status.RUNNING, Status.WAITING)

    @property
    def settled(self) -> bool:
        """Whether nothing happens until a person decides, or at all."""
        return self.finished or self is Status.WAITING


class ApprovalState(StrEnum):
    """An approval's state; `pending` and `approved` are the only ones that change again."""

    PENDING = "pending"
    APPROVED = "approved"
    EXECUTED = "executed"
    LAPSED = "lapsed"
    STALE = "stale"
    REJECTED = "rejected"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    ANSWERED = "answered"
    CANCELLED = "cancelled"


class Kind(StrEnum):
    """What an approval asks for: a yes to an action, or an answer to a question."""

    APPROVAL = "approval"
    QUESTION = "question"


class Verdict(StrEnum):
    """What a vote says."""

    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Action:
    """What will run. Every field is data; the digest covers all of them.

    `estimated_cost` is in the currency the rules are written for, per run.
    """

    operation: str
    environment: str = ""
    target: str = ""
    resource_type: str = ""
    arguments: Mapping[str, object] = field(default_factory=dict[str, object])
    estimated_cost: float | None = None
    security_findings: Sequence[Mapping[str, object]] = ()
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])

    def to_json(self) -> dict[str, object]:
        """The canonical shape: every field present, plain JSON values."""
        return {
            "operation": self.operation,
            "environment": self.environment,
            "target": self.target,
            "resource_type": self.resource_type,
            "arguments": dict(self.arguments),
            "estimated_cost": self.estimated_cost,
            "security_findings": [dict(finding) for finding in self.security_findings],
            "metadata": dict(self.metadata),
        }


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks, for whom, and who launched the agent that asks; `roles` are the requester's."""

    person: str
    on_behalf_of: str | None = None
    launched_by: str | None = None
    roles: frozenset[str] = frozenset()

    @property
    def selves(self) -> frozenset[str]:
        """Everybody who counts as the requester (rule 6)."""
        return frozenset(name for name in (self.person, self.on_behalf_of, self.launched_by) if name)


@dataclass(frozen=True, slots=True)
class Reason:
    """One match that raised a risk: the rule's or trigger's name, its level, and a sentence."""

    rule: str
    level: Level
    text: str

    def to_json(self) -> dict[str, object]:
        """For the approval row and the screen."""
        return {"rule": self.rule, "level": self.level.value, "text": self.text}


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the rules say of an action. `forbidden_by` names the forbid rule that denies it, if one does."""

    level: Level
    reasons: tuple[Reason, ...]
    forbidden_by: str | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """One needed approval: `count` people, each holding one of `roles`.

    `escalated` are roles that an escalation or a fallback added; whoever fills the slot by one of them counts under the
    slot's own role. From `closed_at` on only those may fill it, while votes cast before stay (rule 12).
    """

    roles: frozenset[str]
    count: int = 1
    escalated: frozenset[str] = frozenset()
    closed_at: datetime | None = None

    @property
    def open_to(self) -> frozenset[str]:
        """The roles that may fill it now."""
        return self.escalated if self.closed_at else self.roles | self.escalated

    def taken_as(self, roles: frozenset[str], at: datetime | None) -> str | None:
        """The role under which somebody with `roles`, who voted at `at` (None: votes now), fills it; None if not."""
        own = roles & self.roles
        if own and (self.closed_at is None or (at is not None and at < self.closed_at)):
            return min(own)
        return min(self.roles or roles) if roles & self.escalated else None

    def to_json(self) -> dict[str, object]:
        """`{"any_of": [...], "count": n}`, and what an escalation changed."""
        changed: dict[str, object] = {"escalated": sorted(self.escalated)} if self.escalated else {}
        if self.closed_at:
            changed["closed_at"] = self.closed_at.isoformat()
        return {"any_of": sorted(self.roles), "count": self.count, **changed}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        closed = kept.get("closed_at")
        return cls(
            frozenset(kept["any_of"]), int(kept["count"]), frozenset(kept.get("escalated", ())),
            datetime.fromisoformat(closed) if closed else None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Requirement:
    """What an approval needs: stages of slots, in order, and how many rejections end it."""

    stages: tuple[tuple[Slot, ...], ...]
    deny_threshold: int = 1
    justification_on_decision: bool = False

    @property
    def roles(self) -> frozenset[str]:
        """Every role that may fill any slot now."""
        return frozenset(role for stage in self.stages for slot in stage for role in slot.open_to)

    def to_json(self) -> dict[str, object]:
        """The shape kept on the approval row."""
        return {
            "stages": [[slot.to_json() for slot in stage] for stage in self.stages],
            "deny_threshold": self.deny_threshold,
            "justification_on_decision": self.justification_on_decision,
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        stages = tuple(tuple(Slot.from_json(slot) for slot in stage) for stage in kept["stages"])
        return cls(stages, int(kept["deny_threshold"]), bool(kept["justification_on_decision"]))


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a request goes: route, whether urgent, hours until due, and the adjusted score (None: not applicable)."""

    route: Route
    urgent: bool
    due_hours: int
    score: float | None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Points added to, or taken from, a confidence, and what for."""

    name: str
    points: float

    def to_json(self) -> dict[str, object]:
        """As a payload and an event carry it."""
        return {"name": self.name, "points": self.points}


@dataclass(frozen=True, slots=True)
class Vote:
    """One person's verdict on one revision, with the roles they held when it was counted. `since` is when they first
    had a vote on it, where they changed their mind: a slot that is closed to newcomers stays open to them.
    """

    voter: str
    verdict: Verdict
    revision: int
    at: datetime
    roles: frozenset[str] = frozenset()
    acting_for: str | None = None
    justification: str = ""
    since: datetime | None = None

    @property
    def stands_since(self) -> datetime:
        """Since when the voter has had a vote on the revision."""
        return self.since or self.at


@dataclass(frozen=True, slots=True)
class ApprovalView:
    """As much of an approval as a decision needs."""

    approval_id: str
    kind: Kind
    state: ApprovalState
    revision: int
    digest: str
    requester: Requester
    requirement: Requirement
    expires_at: datetime | None = None
    resolved_by: str | None = None
    resolved_at: datetime | None = None
    last_editor: str | None = None
