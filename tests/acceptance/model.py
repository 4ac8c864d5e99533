"""A small reference of the approval rules, written to be read: no database, no matching algorithm, every case tried.

It says what the API must answer to the next call of a sequence, and what state the request is in then.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

REQUEST_TTL = timedelta(hours=2)
APPROVAL_TTL = timedelta(minutes=40)
NEVER = datetime.max.replace(tzinfo=UTC)
REQUESTER = "rita"
# Who acts for whom, all the time.
DELEGATE, DELEGATOR = "dan", "alice"
Stages = Sequence[Sequence[tuple[str, int]]]


@dataclass(frozen=True)
class Terms:
    """A policy of the model: stages of (role, how many)."""

    stages: Stages
    deny: int = 1
    recheck: bool = False


POLICIES: Mapping[str, Terms] = {
    "one": Terms([[("sre", 1)]]),
    "two": Terms([[("sre", 2)]], deny=2),
    "pair": Terms([[("sre", 1), ("security", 1)]]),
    "stages": Terms([[("sre", 1)], [("security", 1), ("sre", 1)]], deny=2),
    "critical": Terms([[("sre", 2)]], recheck=True),
}
# How many a version of the policy "one" may ask for: it is published anew while requests are pending.
MOST = 3


@dataclass(frozen=True)
class Ballot:
    """A vote that was let in."""

    voter: str
    acting_for: str | None
    approves: bool
    revision: int

    @property
    def principal(self) -> str:
        return self.acting_for or self.voter


@dataclass(frozen=True)
class Expected:
    """What the API must answer: one of these codes, and the state after it."""

    codes: frozenset[str]
    state: str

    @classmethod
    def of(cls, state: str, *codes: str) -> Expected:
        return cls(frozenset(codes), state)


@dataclass
class Model:
    """One request, and the people and the policy around it."""

    policy: str
    now: datetime
    roles: dict[str, set[str]]
    asks_for: int
    state: str = "pending"
    revision: int = 1
    editor: str | None = None
    ballots: list[Ballot] = field(default_factory=list[Ballot])
    published: int = 0
    expires: datetime = NEVER
    lapses: datetime = NEVER

    def __post_init__(self) -> None:
        self.published = self.asks_for
        self.expires = self.now + REQUEST_TTL

    # Counting

    @property
    def stages(self) -> Stages:
        return [[("sre", self.asks_for)]] if self.policy == "one" else POLICIES[self.policy].stages

    def _wanted(self) -> set[str]:
        return {role for stage in self.stages for role, _ in stage}

    def _counting(self) -> list[Ballot]:
        """The votes on this revision by people who still hold a role that is asked for."""
        return [one for one in self.ballots if one.revision == self.revision and self._held(one) & self._wanted()]

    def _held(self, ballot: Ballot) -> set[str]:
        return self.roles.get(ballot.principal, set())

    def _fills(self, seats: Sequence[str]) -> bool:
        """Whether every seat gets an approval of its own in some way of seating people."""
        approvals = [one for one in self._counting() if one.approves]
        return any(
            all(role in self._held(one) for role, one in zip(seats, chosen, strict=True))
            for chosen in itertools.permutations(approvals, len(seats))
        )

    def _seats(self, stages: int) -> list[str]:
        return [role for stage in self.stages[:stages] for role, count in stage for _ in range(count)]

    def _open_stage(self) -> int:
        last = len(self.stages) - 1
        return next((number for number in range(last) if not self._fills(self._seats(number + 1))), last)

    def _first_stage(self, roles: set[str]) -> int | None:
        mine = (n for n, stage in enumerate(self.stages) if any(role in roles for role, _ in stage))
        return next(mine, None)

    # What people do

    def vote(self, voter: str, acting_for: str | None, approves: bool, revision: int) -> Expected:
        earlier = self._standing(voter)
        self.settle()
        if earlier == Ballot(voter, acting_for, approves, revision) and revision == self.revision:
            return Expected.of(self.state, "replayed")
        if refused := self._closed(revision) or self._may_not(voter, acting_for, earlier):
            return refused
        self.ballots = [one for one in self.ballots if one is not earlier]
        self.ballots.append(Ballot(voter, acting_for, approves, revision))
        return self._counted()

    def _may_not(self, voter: str, acting_for: str | None, earlier: Ballot | None) -> Expected | None:
        if {voter, acting_for} & ({REQUESTER, self.editor} - {None}):
            return Expected.of("pending", "self_approval")
        if refused := self._spent(voter, acting_for, earlier):
            return refused
        stage = self._first_stage(self.roles.get(acting_for or voter, set()))
        if stage is None:
            return Expected.of("pending", "not_eligible")
        if stage > self._open_stage():
            return Expected.of("pending", "stage_not_open")
        return Expected.of("pending", "vote_final") if earlier and not earlier.approves else None

    def _standing(self, voter: str) -> Ballot | None:
        return next((one for one in self.ballots if one.voter == voter and one.revision == self.revision), None)

    def _closed(self, revision: int) -> Expected | None:
        if self.state == "expired":
            return Expected.of("expired", "expired")
        if self.state != "pending":
            return Expected.of(self.state, "already_resolved")
        return None if revision == self.revision else Expected.of("pending", "stale_revision")

    def _spent(self, voter: str, acting_for: str | None, earlier: Ballot | None) -> Expected | None:
        codes: set[str] = set()
        if earlier and earlier.acting_for != acting_for:
            codes.add("person_already_counted")
        others = [one for one in self.ballots if one.revision == self.revision and one.voter != voter]
        if any(one.principal == (acting_for or voter) for one in others):
            codes.add("principal_already_counted")
        return Expected(frozenset(codes), "pending") if codes else None

    def _counted(self) -> Expected:
        rejections = [one for one in self._counting() if not one.approves]
        if len(rejections) >= POLICIES[self.policy].deny:
            self.state = "rejected"
        elif self._fills(self._seats(len(self.stages))):
            self.state, self.lapses = "approved", self.now + APPROVAL_TTL
        return Expected.of(self.state, "recorded" if self.state == "pending" else "resolved")

    def edit(self, person: str, revision: int) -> Expected:
        self.settle()
        if refused := self._closed(revision):
            return refused
        roles = self.roles.get(person, set()) | (self.roles[DELEGATOR] if person == DELEGATE else set())
        if person not in {REQUESTER, self.editor} and self._first_stage(roles) is None:
            return Expected.of("pending", "not_eligible")
        self.revision += 1
        self.editor = person
        self.asks_for = self.published
        self.expires = self.now + REQUEST_TTL
        return Expected.of("pending", "revised")

    def withdraw(self, person: str) -> Expected:
        self.settle()
        if person != REQUESTER:
            return Expected.of(self.state, "not_owner")
        if refused := self._closed(self.revision):
            return refused
        self.state = "withdrawn"
        return Expected.of("withdrawn", "withdrawn")

    def execute(self) -> Expected:
        """Of a request that was approved."""
        if self.state == "executed":
            return Expected.of("executed", "already_executed")
        self.settle()
        if self.state == "lapsed":
            return Expected.of("lapsed", "approval_lapsed")
        if POLICIES[self.policy].recheck and not self._fills(self._seats(len(self.stages))):
            self.state = "stale"
            return Expected.of("stale", "approver_ineligible")
        self.state = "executed"
        return Expected.of("executed", "executed")

    # What time and others do

    def publish(self, asks_for: int) -> None:
        """Another version of the policy: the stricter of all versions since the request holds."""
        self.published = asks_for
        if self.policy == "one" and self.state == "pending":
            self.asks_for = max(self.asks_for, asks_for)

    def settle(self) -> None:
        """Whoever looks sees what has passed, whether or not a sweep ran."""
        if self.state == "pending" and self.now >= self.expires:
            self.state = "expired"
        elif self.state == "approved" and self.now >= self.lapses:
            self.state = "lapsed"
