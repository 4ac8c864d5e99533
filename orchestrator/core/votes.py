"""Deciding an approval: whether a vote may be cast, and what the votes cast so far add up to.

Pure: the caller reads approval and votes under its locks, and writes what comes out. Votes are a set; the order in
which they are listed never matters (rule 4). `Vote.roles` are the roles the caller read for the voter (for a
delegate, the delegator's) in the same transaction, so a role that was taken away voids the vote (rule 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeAlias

from orchestrator.core.deadlines import passed
from orchestrator.core.errors import (
    AlreadyResolved,
    AnswerInvalid,
    DigestMismatch,
    Expired,
    IdentityMismatch,
    JustificationRequired,
    NotEligible,
    PersonAlreadyCounted,
    PrincipalAlreadyCounted,
    SelfApproval,
    StageNotOpen,
    StaleRevision,
    VoteFinal,
)
from orchestrator.core.matching import Candidate, Fill, Filling, fill
from orchestrator.core.model import ApprovalState, ApprovalView, Kind, Requirement, Slot, Verdict, Vote

# Who resolves what nobody decided in time.
CLOCK = "keyturn"


@dataclass(frozen=True, slots=True)
class Tally:
    """The votes of the present revision, counted.

    `filled` are the slots taken, `missing` what the open stage still needs, `dissent` the people who rejected, `void`
    the reason for each vote that does not count, by `(person, revision)`.
    """

    filled: tuple[Fill, ...] = ()
    missing: tuple[Slot, ...] = ()
    dissent: tuple[str, ...] = ()
    void: Mapping[tuple[str, int], str] | None = None

    def to_json(self) -> dict[str, object]:
        """`{"filled": [{person, role, stage, slot}], "dissent": [...], "void": [{person, revision, reason}]}`."""
        filled = [{"person": f.person, "role": f.role, "stage": f.stage, "slot": f.slot} for f in self.filled]
        void = [{"person": who, "revision": at, "reason": why} for (who, at), why in sorted((self.void or {}).items())]
        return {"filled": filled, "dissent": list(self.dissent), "void": void}


@dataclass(frozen=True, slots=True)
class StillPending:
    """More votes are needed; `stage` (from 0) is the one that is open."""

    tally: Tally
    stage: int


@dataclass(frozen=True, slots=True)
class Approved:
    """Every slot is filled."""

    tally: Tally


@dataclass(frozen=True, slots=True)
class Rejected:
    """Enough people rejected: `by`, the last of them last, whose words are `reason`."""

    by: tuple[str, ...]
    reason: str
    tally: Tally


@dataclass(frozen=True, slots=True)
class TimedOut:
    """Nobody decided before `at`."""

    at: datetime
    tally: Tally


Resolution: TypeAlias = StillPending | Approved | Rejected | TimedOut


@dataclass(frozen=True, slots=True)
class Counted:
    """The vote may be written; `replaces` is the voter's earlier approval of this revision, if there is one."""

    replaces: Vote | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """The voter cast exactly this before: nothing is written but an audit row (rule 3)."""

    earlier: Vote


class Identity(NamedTuple):
    """Who decides, and the caller who passed it on (None: they spoke for themselves)."""

    person: str
    via: str | None = None


def identity(caller: str, named: str | None, can_act_as: bool) -> Identity:
    """Who decides when `caller` sends a body that names `named` (rule 23).

    Raises IdentityMismatch when the body names somebody else and the caller may not act as others.
    """
    person = (named or "").strip()
    if not person or person == caller:
        return Identity(caller)
    if can_act_as:
        return Identity(person, caller)
    raise IdentityMismatch(
        f"the credential is {caller}'s and the body names {person}; leave the name out, or use {person}'s own"
        " credential",
        caller=caller,
    )


def check_vote(
    view: ApprovalView, votes: Sequence[Vote], vote: Vote, now: datetime, digest: str | None = None
) -> Counted | Replayed:
    """Whether `vote` may be added to `votes`, at `now`.

    `digest` is the one the voter says they saw, when they say so. Refusals, in this order: AnswerInvalid (a question
    takes no votes), Expired, AlreadyResolved, StaleRevision, SelfApproval, PersonAlreadyCounted,
    PrincipalAlreadyCounted, NotEligible, StageNotOpen, VoteFinal, DigestMismatch, JustificationRequired. A replay of
    one's own vote is no refusal, also when the approval has ended meanwhile.
    """
    if view.kind is Kind.QUESTION:
        raise AnswerInvalid("this is a question: send an answer, not an approval or a rejection")
    standing = _standing(votes, view.revision)
    earlier = standing.get(vote.voter)
    same = earlier is not None and earlier.acting_for == vote.acting_for
    if earlier and same and earlier.verdict is vote.verdict and vote.revision == view.revision:
        return Replayed(earlier)
    check_open(view, vote, now)
    _check_self(view, vote)
    _check_spent(standing, vote)
    _check_voter(view, votes, vote)
    if earlier and earlier.verdict is Verdict.REJECT:
        raise VoteFinal(f"{vote.voter} rejected this request; a rejection is final", voter=vote.voter)
    if digest is not None and digest != view.digest:
        raise DigestMismatch(
            "the vote names another action than the one that waits; read the request again, then decide",
            digest=view.digest,
        )
    _check_justification(view, vote)
    return Counted(earlier)


def check_open(view: ApprovalView, vote: Vote, now: datetime) -> None:
    """Refuse what comes after the end of a request, or is for another revision than the present one: Expired,
    AlreadyResolved, StaleRevision.
    """
    by_the_clock = view.resolved_by == CLOCK and view.state is ApprovalState.REJECTED
    late = (view.state is ApprovalState.PENDING or by_the_clock) and passed(view.expires_at, now)
    if late or view.state is ApprovalState.EXPIRED:
        at = view.expires_at.isoformat() if view.expires_at else None
        raise Expired(f"the request expired at {at}; submit it again if it is still wanted", expired_at=at)
    if view.state is not ApprovalState.PENDING:
        when = view.resolved_at.isoformat() if view.resolved_at else None
        who = f" by {view.resolved_by}" if view.resolved_by else ""
        # It is executed by nobody who decides.
        became = "approved" if view.state is ApprovalState.EXECUTED else view.state.value
        raise AlreadyResolved(
            f"the request was {became}{who}{f' at {when}' if when else ''}; this vote was not counted",
            state=view.state.value, resolved_by=view.resolved_by, resolved_at=when,
        )  # fmt: skip
    if vote.revision != view.revision:
        raise StaleRevision(
            f"the vote is for revision {vote.revision}; the request is at revision {view.revision}: read it again",
            revision=view.revision,
        )


def _check_self(view: ApprovalView, vote: Vote) -> None:
    selves = selves_of(view) & {vote.voter, vote.acting_for}
    if selves:
        raise SelfApproval(
            f"{vote.voter} cannot decide this: {' and '.join(sorted(str(name) for name in selves))} asked for it,"
            " launched what asked, or edited it last; somebody else must decide (the requester can cancel)",
            voter=vote.voter,
        )


def _check_spent(standing: Mapping[str, Vote], vote: Vote) -> None:
    """One human, one vote; one principal, one vote, whoever casts it (rule 7)."""
    earlier = standing.get(vote.voter)
    if earlier and earlier.acting_for != vote.acting_for:
        whom = f"for {earlier.acting_for}" if earlier.acting_for else "in person"
        raise PersonAlreadyCounted(f"{vote.voter} has voted {whom} already; everybody votes once", voter=vote.voter)
    principal = vote.acting_for or vote.voter
    for other in standing.values():
        if other.voter != vote.voter and (other.acting_for or other.voter) == principal:
            raise PrincipalAlreadyCounted(
                f"{other.voter} has voted in {principal}'s place already" if other.acting_for
                else f"{principal} has voted already",
                voter=vote.voter, principal=principal, counted=other.voter,
            )  # fmt: skip


def _check_voter(view: ApprovalView, votes: Sequence[Vote], vote: Vote) -> None:
    stage = first_stage(view.requirement, vote.roles)
    if stage is None:
        needed = sorted(view.requirement.roles)
        whose = f"{vote.acting_for}, for whom {vote.voter} votes," if vote.acting_for else vote.voter
        raise NotEligible(
            f"{whose} holds none of the roles that decide this: {', '.join(needed)}",
            voter=vote.voter,
            roles=needed,
        )
    open_now = open_stage(view, votes)
    if stage > open_now:
        raise StageNotOpen(
            f"{vote.voter} decides in stage {stage + 1}, and stage {open_now + 1} is open; vote when it is complete",
            stage=stage + 1, open_stage=open_now + 1,
        )  # fmt: skip


def first_stage(requirement: Requirement, roles: frozenset[str]) -> int | None:
    """The first stage (from 0) in which somebody with `roles` could fill a slot; None when there is none."""
    for number, stage in enumerate(requirement.stages):
        if any(slot.taken_as(roles, None) for slot in stage):
            return number
    return None


def open_stage(view: ApprovalView, votes: Sequence[Vote]) -> int:
    """The stage (from 0) that is open with these votes."""
    counting, _ = _counting(view, votes)
    return _filled(view, counting).stage


def _check_justification(view: ApprovalView, vote: Vote) -> None:
    if vote.justification.strip():
        return
    if vote.verdict is Verdict.REJECT:
        raise JustificationRequired("a rejection needs a `reason`: say why, in a few words", field="reason")
    if view.requirement.justification_on_decision:
        raise JustificationRequired(
            "this request is approved only with a `justification`: say why, in a few words", field="justification"
        )


def resolve(view: ApprovalView, votes: Sequence[Vote], now: datetime) -> Resolution:
    """What `votes` add up to at `now` for an approval that is pending.

    Rejections are counted before approvals (rule 2). Votes of other revisions, of the requester's side, without a
    role any more, or cast when the request had expired do not count.
    """
    counting, void = _counting(view, votes)
    rejections = sorted((v for v in counting if v.verdict is Verdict.REJECT), key=lambda v: (v.at, v.voter))
    dissent = tuple(v.voter for v in rejections)
    filling = _filled(view, counting)
    tally = Tally(filling.filled, filling.missing, dissent, void)
    if rejections and len(rejections) >= view.requirement.deny_threshold:
        return Rejected(dissent, rejections[-1].justification, tally)
    if not filling.missing:
        return Approved(tally)
    if view.expires_at is not None and passed(view.expires_at, now):
        return TimedOut(view.expires_at, tally)
    return StillPending(tally, filling.stage)


def unfilled(view: ApprovalView, votes: Sequence[Vote]) -> tuple[Slot, ...]:
    """Every slot that these votes leave open, also of the stages that are to come."""
    counting, _ = _counting(view, votes)
    filling = _filled(view, counting)
    later = view.requirement.stages[filling.stage + 1 :] if filling.missing else ()
    return (*filling.missing, *(slot for stage in later for slot in stage))


def still_approved(view: ApprovalView, votes: Sequence[Vote]) -> bool:
    """Whether the approvals still fill every slot with the roles their voters hold now (rule 5)."""
    counting, _ = _counting(view, votes)
    return not _filled(view, counting).missing


def _filled(view: ApprovalView, counting: Sequence[Vote]) -> Filling:
    approvals = {v.voter: Candidate(v.roles, v.at) for v in counting if v.verdict is Verdict.APPROVE}
    return fill(view.requirement.stages, approvals)


def _counting(view: ApprovalView, votes: Sequence[Vote]) -> tuple[list[Vote], dict[tuple[str, int], str]]:
    """The votes that count, one a person and one a principal, and why the others do not."""
    void = {(v.voter, v.revision): "revised" for v in votes if v.revision != view.revision}
    counting: dict[str, Vote] = {}
    # Rejections first, so none is lost to another vote for the same principal; then whoever votes in person.
    standing = _standing(votes, view.revision).values()
    for vote in sorted(standing, key=lambda v: (v.verdict is Verdict.APPROVE, v.acting_for is not None, v.voter)):
        principal = vote.acting_for or vote.voter
        reason = _void_reason(view, vote) or ("principal_already_counted" if principal in counting else "")
        if reason:
            void[vote.voter, vote.revision] = reason
        else:
            counting[principal] = vote
    return list(counting.values()), void


def _void_reason(view: ApprovalView, vote: Vote) -> str:
    if selves_of(view) & {vote.voter, vote.acting_for}:
        return "self_approval"
    if passed(view.expires_at, vote.at):
        return "expired"
    slots = (slot for stage in view.requirement.stages for slot in stage)
    return "" if any(slot.taken_as(vote.roles, vote.at) for slot in slots) else "role_lost"


def _standing(votes: Sequence[Vote], revision: int) -> dict[str, Vote]:
    """Each voter's standing vote on `revision`: a rejection is final, so it stands whichever came first (rule 3)."""
    standing: dict[str, Vote] = {}
    for vote in sorted(votes, key=lambda v: (v.verdict is Verdict.APPROVE, v.at)):
        if vote.revision == revision:
            standing.setdefault(vote.voter, vote)
    return standing


def selves_of(view: ApprovalView) -> frozenset[str]:
    """Everybody who counts as whoever asks: the requester's side, and who edited the request last (rule 6)."""
    return view.requester.selves | frozenset(name for name in (view.last_editor,) if name)
