"""Votes as people cast them, one after the other, delegates and escalations included: what holds whatever they do.

The reference counts by trying every assignment of people to seats.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import Refusal
from orchestrator.core.model import ApprovalState, ApprovalView, Kind, Requester, Requirement, Slot, Verdict, Vote
from orchestrator.core.votes import Approved, Counted, Rejected, Resolution, StillPending, check_vote, resolve

T0 = datetime(2026, 6, 1, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PEOPLE = ("ann", "ben", "cat", "dan", "eve")
ROLES = ("sre", "dba", "boss")
HELD = st.fixed_dictionaries({person: st.frozensets(st.sampled_from(ROLES)) for person in PEOPLE})
CLOSING = T0 + 5 * MINUTE


@dataclass(frozen=True)
class Attempt:
    """Somebody tries to vote, for themselves or for somebody else."""

    voter: str
    verdict: Verdict
    acting_for: str | None


ATTEMPTS = st.lists(
    st.builds(
        Attempt,
        st.sampled_from(PEOPLE),
        st.sampled_from([Verdict.APPROVE, Verdict.APPROVE, Verdict.APPROVE, Verdict.REJECT]),
        st.none() | st.sampled_from(PEOPLE),
    ),
    max_size=12,
)
SLOTS = st.builds(
    Slot,
    st.frozensets(st.sampled_from(ROLES), min_size=1, max_size=2),
    st.integers(1, 2),
    st.frozensets(st.sampled_from(ROLES), max_size=1),
)
CLOSED = st.builds(lambda slot: replace(slot, closed_at=CLOSING if slot.escalated else None), SLOTS)
STAGES = st.lists(st.lists(SLOTS | CLOSED, min_size=1, max_size=2).map(tuple), min_size=1, max_size=2).map(tuple)
VIEWS = st.builds(
    lambda stages, deny, editor: ApprovalView(
        "ap-1", Kind.APPROVAL, ApprovalState.PENDING, 1, "d1", Requester("rita", launched_by="eve"),
        Requirement(stages, deny), T0 + timedelta(hours=1), last_editor=editor,
    ),
    STAGES, st.integers(1, 3), st.none() | st.sampled_from(PEOPLE),
)  # fmt: skip


def cast(view: ApprovalView, held: dict[str, frozenset[str]], attempts: Sequence[Attempt]) -> list[Vote]:
    """The votes that are let in, one attempt a minute."""
    votes: list[Vote] = []
    for minute, one in enumerate(attempts, start=1):
        roles = held[one.acting_for or one.voter]
        acting = None if one.acting_for == one.voter else one.acting_for
        vote = Vote(one.voter, one.verdict, 1, T0 + minute * MINUTE, roles, acting, "because")
        try:
            outcome = check_vote(view, votes, vote, vote.at)
        except Refusal:
            continue
        if isinstance(outcome, Counted):
            votes = [vote, *(other for other in votes if other is not outcome.replaces)]
    return votes


def seats(view: ApprovalView) -> list[Slot]:
    return [slot for stage in view.requirement.stages for slot in stage for _ in range(slot.count)]


def enough(view: ApprovalView, votes: Sequence[Vote]) -> bool:
    """Whether some assignment gives every seat a person of its own, tried one by one."""
    approvals = [vote for vote in votes if vote.verdict is Verdict.APPROVE]
    wanted = seats(view)
    return any(
        all(seat.taken_as(vote.roles, vote.at) for seat, vote in zip(wanted, chosen, strict=True))
        for chosen in itertools.permutations(approvals, len(wanted))
    )


def what(resolution: Resolution) -> object:
    """A resolution without what only tells of it."""
    match resolution:
        case Approved(tally):
            return ("approved", tally.filled)
        case Rejected(by, reason):
            return ("rejected", by, reason)
        case StillPending(tally, stage):
            return ("pending", stage, tally.filled, tally.missing)
        case _:
            return resolution


@given(VIEWS, HELD, ATTEMPTS, st.randoms(use_true_random=False))
def test_the_order_in_which_votes_are_listed_never_matters(
    view: ApprovalView, held: dict[str, frozenset[str]], attempts: list[Attempt], random: object
) -> None:
    votes = cast(view, held, attempts)
    mixed = list(votes)
    random.shuffle(mixed)  # pyright: ignore[reportAttributeAccessIssue] hypothesis gives a Random
    now = T0 + 30 * MINUTE
    assert what(resolve(view, votes, now)) == what(resolve(view, mixed, now))


@given(VIEWS, HELD, ATTEMPTS)
def test_a_quorum_is_met_exactly_when_some_assignment_meets_it(
    view: ApprovalView, held: dict[str, frozenset[str]], attempts: list[Attempt]
) -> None:
    votes = cast(view, held, attempts)
    found = resolve(view, votes, T0 + 30 * MINUTE)
    rejections = [vote for vote in votes if vote.verdict is Verdict.REJECT]
    if len(rejections) >= view.requirement.deny_threshold:
        assert isinstance(found, Rejected)
    else:
        assert isinstance(found, Approved) is enough(view, votes)


@given(VIEWS, HELD, ATTEMPTS)
def test_nobody_counts_twice_neither_in_person_nor_through_a_delegate(
    view: ApprovalView, held: dict[str, frozenset[str]], attempts: list[Attempt]
) -> None:
    votes = cast(view, held, attempts)
    tally = resolve(view, votes, T0 + 30 * MINUTE).tally
    people = [fill.person for fill in tally.filled]
    principals = {vote.voter: vote.acting_for or vote.voter for vote in votes}
    assert len(set(people)) == len(people)
    assert len({principals[person] for person in people}) == len(people)
    assert not {"rita", "eve", view.last_editor} & {*people, *(principals[person] for person in people)}
    for number, stage in enumerate(view.requirement.stages):
        for place, slot in enumerate(stage):
            assert sum((one.stage, one.slot) == (number, place) for one in tally.filled) <= slot.count


@given(VIEWS, HELD, ATTEMPTS)
def test_another_approval_never_undoes_one(
    view: ApprovalView, held: dict[str, frozenset[str]], attempts: list[Attempt]
) -> None:
    approvals = [replace(one, verdict=Verdict.APPROVE) for one in attempts]
    approved = False
    for number in range(len(approvals) + 1):
        found = resolve(view, cast(view, held, approvals[:number]), T0 + 30 * MINUTE)
        assert isinstance(found, Approved) or not approved
        approved = isinstance(found, Approved)


@given(VIEWS, HELD, ATTEMPTS, st.sampled_from(PEOPLE))
def test_a_vote_whose_voter_lost_every_role_never_fills_a_slot(
    view: ApprovalView, held: dict[str, frozenset[str]], attempts: list[Attempt], person: str
) -> None:
    votes = [
        replace(vote, roles=frozenset()) if (vote.acting_for or vote.voter) == person else vote
        for vote in cast(view, held, attempts)
    ]
    tally = resolve(view, votes, T0 + 30 * MINUTE).tally
    lost = {vote.voter for vote in votes if not vote.roles}
    assert not lost & {fill.person for fill in tally.filled}
    assert all((tally.void or {})[voter, 1] == "role_lost" for voter in lost)


@given(VIEWS, HELD, ATTEMPTS)
def test_an_escalation_that_adds_never_takes_a_slot_away(
    view: ApprovalView, held: dict[str, frozenset[str]], attempts: list[Attempt]
) -> None:
    votes = cast(view, held, attempts)
    wider = tuple(
        tuple(replace(slot, escalated=slot.escalated | {"boss"}) for slot in stage) for stage in view.requirement.stages
    )
    before = resolve(view, votes, T0 + 30 * MINUTE)
    after = resolve(replace(view, requirement=replace(view.requirement, stages=wider)), votes, T0 + 30 * MINUTE)
    if isinstance(before, Approved | Rejected):
        assert type(after) is type(before)
    else:
        assert len(after.tally.filled) >= len(before.tally.filled)
