"""Votes: what may be cast, what votes add up to, and the properties that must hold for any set of them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import errors
from orchestrator.core.matching import Candidate, fill
from orchestrator.core.model import ApprovalState, ApprovalView, Kind, Requester, Requirement, Slot, Verdict, Vote
from orchestrator.core.votes import (
    Approved,
    Counted,
    Rejected,
    Replayed,
    Resolution,
    StillPending,
    TimedOut,
    check_vote,
    identity,
    resolve,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
APPROVE, REJECT = Verdict
DIRECTORY = {
    "alice": {"sre", "security"}, "bob": {"sre"}, "carol": {"sre"}, "dave": {"sre"}, "sue": {"security"},
    "mia": {"manager"}, "rita": set[str](), "dora": {"sre"},
}  # fmt: skip


def slots(*roles: str, count: int = 1) -> tuple[Slot, ...]:
    return tuple(Slot(frozenset(role.split("|")), count) for role in roles)


def view(*stages: tuple[Slot, ...], deny: int = 1, **options: Any) -> ApprovalView:
    justify = options.pop("justify", False)
    requirement = Requirement(stages or (slots("sre"),), deny, justify)
    base = ApprovalView(
        "ap_1", Kind.APPROVAL, ApprovalState.PENDING, 1, "d1", Requester("rita"), requirement, T0 + 60 * MINUTE
    )
    return replace(base, **options)


def vote(voter: str, verdict: Verdict = APPROVE, minute: float = 1, **options: Any) -> Vote:
    base = Vote(voter, verdict, 1, T0 + minute * MINUTE, frozenset(DIRECTORY.get(voter, ())), None, "because")
    return replace(base, **options)


def no(voter: str, minute: float = 1, **options: Any) -> Vote:
    return vote(voter, REJECT, minute, **options)


def outcome(approval: ApprovalView, *votes: Vote, at: float = 10) -> Resolution:
    return resolve(approval, votes, T0 + at * MINUTE)


def filled(resolution: Resolution) -> dict[str, str]:
    return {fill.person: fill.role for fill in resolution.tally.filled}


def check(approval: ApprovalView, new: Vote, *votes: Vote, at: float = 10, digest: str | None = None) -> Any:
    return check_vote(approval, votes, new, T0 + at * MINUTE, digest)


# --- what votes add up to ---


def test_nobody_has_voted() -> None:
    found = outcome(view(slots("sre"), slots("security")))
    assert isinstance(found, StillPending)
    assert (found.stage, found.tally.missing) == (0, slots("sre"))


def test_one_person_of_any_listed_role_is_enough() -> None:
    found = outcome(view(slots("security|sre")), vote("bob"))
    assert isinstance(found, Approved)
    assert filled(found) == {"bob": "sre"}


def test_a_requirement_without_slots_is_met() -> None:
    assert isinstance(outcome(replace(view(), requirement=Requirement(()))), Approved)


def test_one_human_fills_one_slot_and_order_does_not_matter() -> None:
    both = view(slots("sre", "security"))
    assert isinstance(outcome(both, vote("alice")), StillPending)
    assert isinstance(outcome(both, vote("alice"), vote("alice", minute=2)), StillPending)
    for votes in itertools.permutations([vote("alice"), vote("bob")]):
        assert filled(outcome(both, *votes)) == {"alice": "security", "bob": "sre"}
    for votes in itertools.permutations([vote("alice"), vote("sue")]):
        assert filled(outcome(both, *votes)) == {"alice": "sre", "sue": "security"}


def test_deny_beats_approve_and_the_last_to_reject_gives_the_reason() -> None:
    three = view(slots("sre", count=3))
    found = outcome(three, vote("bob"), vote("carol"), no("dave", 3, justification="too risky"))
    assert isinstance(found, Rejected)
    assert (found.by, found.reason) == (("dave",), "too risky")
    two = replace(three, requirement=replace(three.requirement, deny_threshold=2))
    found = outcome(two, no("bob", 5, justification="second"), no("carol", 4, justification="first"))
    assert isinstance(found, Rejected)
    assert (found.by, found.reason) == (("carol", "bob"), "second")


def test_dissent_below_the_threshold_is_recorded_and_approvals_can_still_win() -> None:
    approval = view(slots("sre", count=3), deny=2)
    found = outcome(approval, no("bob"), vote("carol"), vote("dave"))
    assert isinstance(found, StillPending)
    assert (found.tally.dissent, found.tally.missing) == (("bob",), slots("sre"))
    found = outcome(approval, no("bob"), vote("carol"), vote("dave"), vote("alice"))
    assert isinstance(found, Approved)
    assert found.tally.dissent == ("bob",)


def test_a_rejection_is_final_whichever_vote_is_listed_first() -> None:
    for votes in itertools.permutations([vote("bob", minute=1), no("bob", 2), vote("carol", minute=3)]):
        found = outcome(view(slots("sre", count=2), deny=2), *votes)
        assert isinstance(found, StillPending)
        assert (found.tally.dissent, filled(found)) == (("bob",), {"carol": "sre"})


def test_a_vote_whose_role_is_gone_is_void() -> None:
    found = outcome(view(slots("sre", count=2)), vote("bob", roles=frozenset({"dev"})), vote("carol"))
    assert isinstance(found, StillPending)
    assert found.tally.void == {("bob", 1): "role_lost"}
    assert filled(found) == {"carol": "sre"}


def test_votes_on_another_revision_are_void() -> None:
    found = outcome(view(revision=2), vote("bob"), no("carol"))
    assert isinstance(found, StillPending)
    assert found.tally.void == {("bob", 1): "revised", ("carol", 1): "revised"}


def test_nobody_on_the_requesters_side_counts_even_if_the_vote_was_stored() -> None:
    approval = view(requester=Requester("alice", "bob", "carol"), last_editor="dave")
    found = outcome(
        approval, *(vote(name) for name in ("alice", "bob", "carol", "dave")), vote("dora", acting_for="bob")
    )
    assert isinstance(found, StillPending)
    assert set((found.tally.void or {}).values()) == {"self_approval"}
    assert len(found.tally.void or {}) == 5


def test_one_principal_is_counted_once() -> None:
    approval = view(slots("sre", count=2))
    found = outcome(approval, vote("dan", acting_for="bob", roles=frozenset({"sre"})), vote("bob"))
    assert isinstance(found, StillPending)
    assert (filled(found), found.tally.void) == ({"bob": "sre"}, {("dan", 1): "principal_already_counted"})
    delegate = outcome(approval, vote("dan", acting_for="bob", roles=frozenset({"sre"})), vote("carol"))
    assert isinstance(delegate, Approved)
    against = no("zoe", acting_for="bob", roles=frozenset({"sre"}))
    assert isinstance(outcome(view(), vote("bob"), against), Rejected)


def test_expiry_is_exclusive_and_votes_cast_in_time_still_decide() -> None:
    approval = view()
    just_before = 60 - 1e-6
    assert isinstance(outcome(approval, at=just_before), StillPending)
    assert outcome(approval, at=60) == TimedOut(T0 + 60 * MINUTE, outcome(approval).tally)
    assert isinstance(outcome(approval, vote("bob", minute=just_before), at=61), Approved)
    assert isinstance(outcome(approval, no("bob", just_before), at=61), Rejected)
    assert isinstance(outcome(approval, vote("bob", minute=60), at=61), TimedOut)
    assert isinstance(outcome(replace(approval, expires_at=None), at=10**6), StillPending)


def test_stages_open_in_order() -> None:
    approval = view(slots("sre", "manager"), slots("security"))
    first = outcome(approval, vote("bob"), vote("sue"))
    assert isinstance(first, StillPending)
    assert (first.stage, first.tally.missing, filled(first)) == (0, slots("manager"), {"bob": "sre"})
    second = outcome(approval, vote("bob"), vote("mia"))
    assert isinstance(second, StillPending)
    assert (second.stage, second.tally.missing) == (1, slots("security"))
    assert isinstance(outcome(approval, vote("bob"), vote("mia"), vote("sue")), Approved)


def test_someone_who_filled_an_early_stage_is_moved_when_that_completes_the_quorum() -> None:
    approval = view(slots("sre"), slots("security"))
    assert filled(outcome(approval, vote("alice"))) == {"alice": "sre"}
    found = outcome(approval, vote("alice"), vote("bob"))
    assert isinstance(found, Approved)
    assert filled(found) == {"alice": "security", "bob": "sre"}


# --- what may be cast ---


def test_a_good_vote_is_counted() -> None:
    assert check(view(), vote("bob")) == Counted()
    assert check(view(), vote("bob"), digest="d1") == Counted()


@pytest.mark.parametrize(
    ("approval", "new", "votes", "refusal"),
    [
        (view(kind=Kind.QUESTION), vote("bob"), (), errors.AnswerInvalid),
        (view(expires_at=T0 + 10 * MINUTE), vote("bob"), (), errors.Expired),
        (view(state=ApprovalState.EXPIRED), vote("bob"), (), errors.Expired),
        (view(state=ApprovalState.APPROVED), no("bob"), (), errors.AlreadyResolved),
        (view(state=ApprovalState.REJECTED), vote("bob"), (), errors.AlreadyResolved),
        (view(state=ApprovalState.WITHDRAWN), vote("bob"), (), errors.AlreadyResolved),
        (view(state=ApprovalState.CANCELLED, expires_at=T0), vote("bob"), (), errors.AlreadyResolved),
        (view(state=ApprovalState.APPROVED, expires_at=T0), no("bob"), (vote("bob"),), errors.AlreadyResolved),
        (view(revision=2), vote("bob"), (), errors.StaleRevision),
        (view(revision=2), vote("bob"), (vote("bob"),), errors.StaleRevision),
        (view(), vote("bob", revision=2), (), errors.StaleRevision),
        (view(requester=Requester("bob")), vote("bob"), (), errors.SelfApproval),
        (view(requester=Requester("bot", "bob")), vote("bob"), (), errors.SelfApproval),
        (view(requester=Requester("bot", None, "bob")), vote("bob"), (), errors.SelfApproval),
        (view(requester=Requester("bob")), no("bob"), (), errors.SelfApproval),
        (view(last_editor="bob"), vote("bob"), (), errors.SelfApproval),
        (view(requester=Requester("bob")), vote("carol", acting_for="bob"), (), errors.SelfApproval),
        (view(requester=Requester("bob")), vote("bob", acting_for="carol"), (), errors.SelfApproval),
        (view(), vote("sue"), (), errors.NotEligible),
        (view(), no("sue"), (), errors.NotEligible),
        (view(), vote("nobody"), (), errors.NotEligible),
        (view(slots("sre", count=2), deny=2), vote("bob"), (no("bob"),), errors.VoteFinal),
        (view(), no("bob", justification=" \t\n"), (), errors.JustificationRequired),
        (view(justify=True), vote("bob", justification=""), (), errors.JustificationRequired),
    ],
)
def test_a_vote_that_may_not_be_cast_is_refused(
    approval: ApprovalView, new: Vote, votes: tuple[Vote, ...], refusal: type[errors.KeyturnError]
) -> None:
    with pytest.raises(refusal) as caught:
        check(approval, new, *votes)
    assert caught.value.code == refusal.code


def test_the_loser_of_a_race_is_told_who_won_and_when() -> None:
    approval = view(state=ApprovalState.APPROVED, resolved_by="bob", resolved_at=T0 + MINUTE)
    with pytest.raises(errors.AlreadyResolved) as caught:
        check(approval, no("carol"), vote("bob"))
    assert caught.value.facts == {
        "state": "approved",
        "resolved_by": "bob",
        "resolved_at": "2026-01-01T00:01:00+00:00",
    }
    assert caught.value.detail == (
        "the request was approved by bob at 2026-01-01T00:01:00+00:00; this vote was not counted"
    )


def test_the_vote_names_the_action_it_saw() -> None:
    with pytest.raises(errors.DigestMismatch):
        check(view(), vote("bob"), digest="d2")


def test_a_replay_is_an_outcome_also_after_the_end() -> None:
    first = vote("bob")
    for approval in (
        view(slots("sre", count=2)),
        view(state=ApprovalState.APPROVED),
        view(state=ApprovalState.EXECUTED),
        view(state=ApprovalState.EXPIRED),
    ):
        assert check(approval, vote("bob", minute=9, justification="other words"), first, at=90) == Replayed(first)
    assert check(view(), no("carol", 9, justification=""), no("carol"), first) == Replayed(no("carol"))


def test_an_approval_may_be_turned_into_a_rejection_while_pending() -> None:
    assert check(view(slots("sre", count=2)), no("bob", 2), vote("bob")) == Counted(replaces=vote("bob"))


def test_a_vote_of_an_earlier_revision_does_not_bind_the_voter() -> None:
    assert check(view(revision=2), vote("bob", revision=2), no("bob")) == Counted()


def test_a_justification_is_only_asked_for_where_it_is_needed() -> None:
    assert check(view(), vote("bob", justification="")) == Counted()
    assert check(view(justify=True), vote("bob", justification="change 42")) == Counted()


# --- who decides ---


@pytest.mark.parametrize("named", [None, "", "  ", "bob", " bob "])
def test_a_body_may_leave_the_name_out_or_repeat_the_callers(named: str | None) -> None:
    assert identity("bob", named, can_act_as=False) == ("bob", None)
    assert identity("bob", named, can_act_as=True) == ("bob", None)


def test_only_a_caller_with_the_permission_speaks_for_others() -> None:
    assert identity("chat", "bob", can_act_as=True) == ("bob", "chat")
    for named in ("carol", "Bob", "bob2"):
        with pytest.raises(errors.IdentityMismatch):
            identity("bob", named, can_act_as=False)


# --- for any votes ---

ROLES = st.frozensets(st.sampled_from(["sre", "security", "manager"]), min_size=1)
SLOT = st.builds(Slot, ROLES, st.integers(1, 2))
STAGES = st.lists(st.lists(SLOT, min_size=1, max_size=3).map(tuple), min_size=1, max_size=2).map(tuple)
PEOPLE = [*DIRECTORY, "dan", "eve"]
VOTES = st.lists(
    st.builds(
        Vote,
        voter=st.sampled_from(PEOPLE),
        verdict=st.sampled_from([APPROVE, APPROVE, APPROVE, REJECT]),
        revision=st.sampled_from([1, 1, 1, 2]),
        at=st.integers(0, 9).map(lambda n: T0 + n * MINUTE),
        roles=ROLES | st.just(frozenset[str]()),
        acting_for=st.sampled_from([None, None, None, "mia", "rita"]),
        justification=st.just("because"),
    ),
    max_size=8,
    unique_by=lambda v: (v.voter, v.verdict, v.revision),
)
VIEWS = st.builds(lambda stages, deny: view(*stages, deny=deny), STAGES, st.integers(1, 3))


@given(VIEWS, VOTES, st.randoms(use_true_random=False))
def test_vote_order_never_matters(approval: ApprovalView, votes: list[Vote], random: Any) -> None:
    shuffled = list(votes)
    random.shuffle(shuffled)
    assert outcome(approval, *shuffled) == outcome(approval, *votes)


@given(VIEWS, VOTES)
def test_a_person_never_fills_two_slots_and_only_with_a_role_they_hold(
    approval: ApprovalView, votes: list[Vote]
) -> None:
    found = outcome(approval, *votes)
    people = [fill.person for fill in found.tally.filled]
    assert len(people) == len(set(people))
    cast = {(v.voter, role) for v in votes for role in v.roles if v.verdict is APPROVE and v.revision == 1}
    for seat in found.tally.filled:
        slot = approval.requirement.stages[seat.stage][seat.slot]
        assert seat.role in slot.roles
        assert (seat.person, seat.role) in cast
    seats = [(seat.stage, seat.slot) for seat in found.tally.filled]
    for stage, slot in set(seats):
        assert seats.count((stage, slot)) <= approval.requirement.stages[stage][slot].count
    assert "rita" not in people


@given(VIEWS, VOTES, st.sampled_from([name for name in PEOPLE if name != "rita"]))
def test_deny_always_wins(approval: ApprovalView, votes: list[Vote], person: str) -> None:
    strict = replace(approval, requirement=replace(approval.requirement, deny_threshold=1))
    rejection = no(person, roles=approval.requirement.roles)
    others = [v for v in votes if person not in (v.voter, v.acting_for)]
    assert isinstance(outcome(strict, *others, rejection), Rejected)


@given(VIEWS, VOTES, ROLES)
def test_adding_an_approval_never_undoes_one(approval: ApprovalView, votes: list[Vote], roles: frozenset[str]) -> None:
    before = outcome(approval, *votes)
    after = outcome(approval, *votes, vote("zoe", roles=roles))
    if isinstance(before, Approved):
        assert isinstance(after, Approved)
    assert len(after.tally.filled) >= len(before.tally.filled)


@given(STAGES, st.dictionaries(st.sampled_from(PEOPLE), ROLES, max_size=5))
def test_no_assignment_is_better_than_the_one_found(
    stages: tuple[tuple[Slot, ...], ...], people: dict[str, frozenset[str]]
) -> None:
    seats = [(n, slot.roles) for n, stage in enumerate(stages) for slot in stage for _ in range(slot.count)]

    def best(index: int, left: frozenset[str]) -> bool:
        if index == len(seats):
            return True
        return any(best(index + 1, left - {name}) for name in left if people[name] & seats[index][1])

    found = fill(stages, {name: Candidate(held) for name, held in people.items()})
    assert (not found.missing) is best(0, frozenset(people))


@given(VIEWS, VOTES, st.sampled_from(PEOPLE), st.sampled_from(Verdict), ROLES)
def test_a_vote_that_was_counted_is_replayed_the_next_time(
    approval: ApprovalView, votes: list[Vote], person: str, verdict: Verdict, roles: frozenset[str]
) -> None:
    new = vote(person, verdict, roles=roles)
    try:
        admitted = check(approval, new, *votes)
    except errors.Refusal:
        return
    if isinstance(admitted, Counted):
        again = check(approval, replace(new, at=T0 + 9 * MINUTE), *votes, new)
        assert isinstance(again, Replayed)
