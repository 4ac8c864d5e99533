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
    SelfApproval,
    StaleRevision,
    VoteFinal,
)
from orchestrator.core.matching import Fill, fill
from orchestrator.core.model import ApprovalState, ApprovalView, Kind, Slot, Verdict, Vote


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
    takes no votes), Expired, AlreadyResolved, StaleRevision, SelfApproval, NotEligible, VoteFinal, DigestMismatch,
    JustificationRequired. A replay of one's own vote is no refusal, also when the approval has ended meanwhile.
    """
    if view.kind is Kind.QUESTION:
        raise AnswerInvalid("this is a question: send an answer, not an approval or a rejection")
    earlier = _standing([v for v in votes if v.voter == vote.voter], view.revision).get(vote.voter)
    if earlier and earlier.verdict is vote.verdict and vote.revision == view.revision:
        return Replayed(earlier)
    _check_open(view, vote, now)
    _check_voter(view, vote)
    if earlier and earlier.verdict is Verdict.REJECT:
        raise VoteFinal(f"{vote.voter} rejected this request; a rejection is final", voter=vote.voter)
    if digest is not None and digest != view.digest:
        raise DigestMismatch(
            "the vote names another action than the one that waits; read the request again, then decide",
            digest=view.digest,
        )
    _check_justification(view, vote)
    return Counted(earlier)


def _check_open(view: ApprovalView, vote: Vote, now: datetime) -> None:
    late = view.state is ApprovalState.PENDING and passed(view.expires_at, now)
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


def _check_voter(view: ApprovalView, vote: Vote) -> None:
    selves = _selves(view) & {vote.voter, vote.acting_for}
    if selves:
        raise SelfApproval(
            f"{vote.voter} cannot decide this: {' and '.join(sorted(str(name) for name in selves))} asked for it,"
            " launched what asked, or edited it last; somebody else must decide (the requester can cancel)",
            voter=vote.voter,
        )
    if not vote.roles & view.requirement.roles:
        needed = sorted(view.requirement.roles)
        raise NotEligible(
            f"{vote.voter} holds none of the roles that decide this: {', '.join(needed)}",
            voter=vote.voter,
            roles=needed,
        )


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
    approvals = {v.voter: v.roles for v in counting if v.verdict is Verdict.APPROVE}
    filling = fill(view.requirement.stages, approvals)
    tally = Tally(filling.filled, filling.missing, dissent, void)
    if rejections and len(rejections) >= view.requirement.deny_threshold:
        return Rejected(dissent, rejections[-1].justification, tally)
    if not filling.missing:
        return Approved(tally)
    if view.expires_at is not None and passed(view.expires_at, now):
        return TimedOut(view.expires_at, tally)
    return StillPending(tally, filling.stage)


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
    if _selves(view) & {vote.voter, vote.acting_for}:
        return "self_approval"
    if passed(view.expires_at, vote.at):
        return "expired"
    return "" if vote.roles & view.requirement.roles else "role_lost"


def _standing(votes: Sequence[Vote], revision: int) -> dict[str, Vote]:
    """Each voter's standing vote on `revision`: a rejection is final, so it stands whichever came first (rule 3)."""
    standing: dict[str, Vote] = {}
    for vote in sorted(votes, key=lambda v: (v.verdict is Verdict.APPROVE, v.at)):
        if vote.revision == revision:
            standing.setdefault(vote.voter, vote)
    return standing


def _selves(view: ApprovalView) -> frozenset[str]:
    return view.requester.selves | frozenset(name for name in (view.last_editor,) if name)
