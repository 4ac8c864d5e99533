"""One decision: which approval is meant, what the pure core says, and what is written (rule 1).

What is read is of one moment, and it is written only if the workflow has not changed since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, cast

from orchestrator.core.canonical import redact
from orchestrator.core.deadlines import passed
from orchestrator.core.errors import (
    AlreadyResolved,
    AmbiguousApproval,
    AnswerInvalid,
    Expired,
    NotEligible,
    NotFound,
    NothingPending,
    SelfApproval,
    StaleRevision,
)
from orchestrator.core.model import ApprovalState, Kind, Status, Verdict, Vote
from orchestrator.core.questions import check_answer
from orchestrator.core.votes import (
    Approved,
    Counted,
    Identity,
    Rejected,
    Replayed,
    Resolution,
    StillPending,
    TimedOut,
    check_vote,
    identity,
    open_stage,
    resolve,
    selves_of,
)
from orchestrator.service.context import Caller, Context
from orchestrator.service.refusals import unknown
from orchestrator.store import decisions
from orchestrator.store.db import Connection, Params
from orchestrator.store.decisions import Asked, Question, Written, view_of
from orchestrator.store.endings import unasked
from orchestrator.store.events import Event
from orchestrator.wire import Decided

# How the dialects name what a vote says.
_ALLOWED_AS = {Verdict.APPROVE: {"approve", "accept"}, Verdict.REJECT: {"reject", "ignore", "response"}}
# How a request ends that nobody decided, and its workflow with it.
_ENDS = {
    ApprovalState.EXPIRED: (Status.EXPIRED, "approval_expired", "workflow-timed-out"),
    ApprovalState.WITHDRAWN: (Status.CANCELLED, "withdrawn", "workflow-cancelled"),
}
_RESPOND = {"respond", "response"}
# What became of a decision that was not refused.
Code = Literal["recorded", "replayed", "resolved", "withdrawn", "revised", "auto_approved", "reviewed"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a caller decides: a verdict or an answer, on which approval, and who they say they are."""

    verdict: Verdict | None
    text: str = ""
    named: str | None = None
    approval_id: str | None = None
    revision: int | None = None
    digest: str | None = None
    answer: object = None
    acting_for: str | None = None
    # The link it came by, if it came by one.
    link: str | None = None
    # Who made that link for somebody else.
    link_by: str | None = None
    # Whose roles matter as well: of those the caller stands in for.
    also: Sequence[str] = ()

    @property
    def spoken(self) -> bool:
        """Whether it comes with a text, be it a response to an agent."""
        return bool(self.text) or isinstance(self.answer, str)

    @property
    def people(self) -> list[str]:
        """Whose roles matter besides the caller's."""
        return [name.strip() for name in (self.named, self.acting_for, *self.also) if name]


def unknown_approval(approval_id: str) -> NotFound:
    """The refusal for an approval that is not in the caller's namespace."""
    return NotFound(f"there is no approval {approval_id!r}", approval_id=approval_id)


async def judge(ctx: Context, conn: Connection | None, caller: Caller, workflow_id: str, choice: Choice) -> Deciding:
    """What one decision of the caller is judged on. On `conn`, everybody else is kept out until its transaction ends.

    NotFound when the workflow is not in the caller's namespace.
    """
    question = Question(caller.namespace, workflow_id, [caller.person, *choice.people], ctx.clock(), choice.spoken)
    if conn is None:
        asked = await ctx.db.together(decisions.read, question)
    else:
        await decisions.lock(conn, caller.namespace, workflow_id)
        (asked,) = await decisions.read(conn, [question])
    if asked is None:
        raise unknown(workflow_id)
    return Deciding(caller, asked, tells=ctx.governance.tells)


@dataclass(slots=True)
class Deciding:
    """One decision: the workflow and all its approvals. `tells` says whether anybody is to be told of it."""

    caller: Caller
    asked: Asked
    tells: bool = False

    @property
    def workflow(self) -> Params:
        """The workflow's row."""
        return self.asked.workflow

    @property
    def rows(self) -> list[Params]:
        """All its approvals."""
        return self.asked.approvals

    @property
    def now(self) -> datetime:
        """The instant the decision is made in."""
        return cast("datetime", self.workflow["now"])

    @property
    def behind(self) -> bool:
        """Whether time, or a policy published meanwhile, has changed what is asked and nobody wrote that down yet."""
        published = self.workflow["policy_version"] or 0
        return any(
            passed(row["wake_at"], self.now)
            or (
                row["state"] == ApprovalState.PENDING
                and row["kind"] == Kind.APPROVAL
                and row["policy_seen"] < published
            )
            for row in self.rows
        )

    def row(self, approval_id: str) -> Params:
        """The approval of this id."""
        found = next((row for row in self.rows if row["approval_id"] == approval_id), None)
        if found is None:
            raise unknown_approval(approval_id)
        return found

    def target(self, choice: Choice) -> Params:
        """The approval that is meant: the named one, or the only pending one, or the last one that was decided.

        Once another request of the workflow has ended, one that is pending is named, by `approval_id` or by a `digest`
        that none but it has: a decision on an earlier one, sent late or again, must not settle a later one.
        """
        if choice.approval_id is not None:
            return self.row(choice.approval_id)
        open_rows = [row for row in self.rows if row["state"] == ApprovalState.PENDING]
        over = [row for row in self.rows if _was_asked(row)]
        if choice.digest is not None and choice.digest not in {row["digest"] for row in over}:
            meant = [row for row in open_rows if row["digest"] == choice.digest]
            if len(meant) == 1:
                return meant[0]
        if len(open_rows) > 1:
            raise _say_which(open_rows, f"the workflow has {len(open_rows)} pending approvals")
        if open_rows and over:
            raise _say_which(open_rows, "another request of this workflow was decided before")
        if open_rows:
            return open_rows[0]
        ended = [row for row in self.rows if row["resolved_at"] is not None]
        if not ended:
            detail = f"the workflow is {self.workflow['status']} and has not asked for a decision"
            raise NothingPending(detail, status=self.workflow["status"])
        return max(ended, key=lambda row: row["resolved_at"])

    def decide(self, row: Params, choice: Choice) -> tuple[Written, Decided]:
        """What one decision writes, and what its caller is told then."""
        who = identity(self.caller.person, choice.named, "act_as" in self.caller.permissions)
        # What people say of a request may repeat the secrets in it (rule 25).
        choice = replace(choice, text=redact.hide(choice.text, [row["action"], row["payload"]]))
        if who.via is not None:
            self._check_bridge(row, who)
        if choice.link_by is not None:
            who = who._replace(via=choice.link_by)
        written = Written(row["approval_id"])
        if choice.verdict is None:
            code = self._answer(row, choice, who, written)
        else:
            _check_allowed(row, choice.verdict)
            code = self._vote(row, choice, choice.verdict, who, written)
        return written, self.told(row, code)

    def _check_bridge(self, row: Params, who: Identity) -> None:
        """A bridge speaks for people there are, and for nobody on what it asked for itself (rules 6 and 23)."""
        if who.person not in self.asked.roles:
            detail = f"there is no person {who.person!r} in this namespace to decide for"
            raise NotEligible(detail, voter=who.person)
        if row["kind"] == Kind.APPROVAL and self.caller.person in selves_of(view_of(row)):
            detail = f"{self.caller.person} asked for this or edited it, so nobody decides it through their credential"
            raise SelfApproval(detail, voter=who.person, via=self.caller.person)

    def _vote(self, row: Params, choice: Choice, verdict: Verdict, who: Identity, written: Written) -> Code:
        view, earlier = view_of(row), self.asked.votes(row)
        acting_for = self._principal(choice, who)
        cast_now = Vote(
            who.person, verdict, row["revision"] if choice.revision is None else choice.revision, self.now,
            self._roles(acting_for or who.person), acting_for, choice.text,
        )  # fmt: skip
        said = "answer" if choice.verdict is None else verdict.value
        told: dict[str, object] = {
            "request_id": row["approval_id"], "verdict": said, "revision": row["revision"],
            "justification": choice.text, "via": who.via, "key_id": self.caller.key_id,
            **({"answer": choice.text} if choice.verdict is None else {}),
            **({"acting_for": acting_for} if acting_for else {}), **({"link": choice.link} if choice.link else {}),
        }  # fmt: skip
        match check_vote(view, earlier, cast_now, self.now, choice.digest):
            case Replayed():
                written.events.append(Event("vote-recorded", who.person, {**told, "replayed": True}))
                return self._counted_again(row, earlier, choice, who, written)
            case Counted(replaces):
                _check_named(row, choice)
                cast_now = replace(cast_now, since=replaces and replaces.stands_since)
                written.vote = _columns(cast_now, who)
        written.events.append(Event("vote-recorded", who.person, told))
        standing = [one for one in earlier if one is not replaces] + [cast_now]
        outcome = resolve(view, standing, self.now)
        match outcome:
            case StillPending(_, stage):
                self._tell_next(row, stage, open_stage(view, earlier), written)
            case TimedOut(at):
                detail = f"the request expired at {at.isoformat()}"
                raise Expired(detail, expired_at=at.isoformat())
            case _:
                pass
        return "resolved" if self._add_up(row, outcome, choice, who, written) else "recorded"

    def _counted_again(
        self, row: Params, votes: Sequence[Vote], choice: Choice, who: Identity, written: Written
    ) -> Code:
        """A replay adds no vote. But those that stand may suffice by now, as when somebody has a role back."""
        if row["state"] != ApprovalState.PENDING or passed(row["expires_at"], self.now):
            return "replayed"
        outcome = resolve(view_of(row), votes, self.now)
        return "resolved" if self._add_up(row, outcome, choice, who, written) else "replayed"

    def _add_up(self, row: Params, outcome: Resolution, choice: Choice, who: Identity, written: Written) -> bool:
        """Keep the count of the votes; whether they end the request, which they then do."""
        written.tally = outcome.tally.to_json()
        row["tally"] = written.tally
        match outcome:
            case Approved(tally):
                by = list(dict.fromkeys(fill.person for fill in tally.filled))
                decision: dict[str, object] = {"verdict": "approve", "by": by, "note": choice.text}
                self.resolved(row, ApprovalState.APPROVED, who, decision, written)
            case Rejected(by, _) if choice.verdict is None:
                decision = {"verdict": "answer", "by": list(by), "note": "", "answer": choice.answer}
                self.resolved(row, ApprovalState.ANSWERED, who, decision, written)
            case Rejected(by, reason):
                decision = {"verdict": "reject", "by": list(by), "note": reason}
                self.resolved(row, ApprovalState.REJECTED, who, decision, written)
            case _:
                return False
        return True

    def _tell_next(self, row: Params, stage: int, before: int, written: Written) -> None:
        """A stage is complete: whoever decides in the next one is told."""
        if self.tells and row["notify"] and stage > before:
            roles = {role for slot in view_of(row).requirement.stages[stage] for role in slot.open_to}
            data = {"stage": stage + 1, "roles": sorted(roles)}
            written.notices.append({"kind": "requested", "approval_id": row["approval_id"], "data": data})

    def _principal(self, choice: Choice, who: Identity) -> str | None:
        """Whom the voter acts for; NotEligible where nobody has asked them to (rule 7)."""
        principal = (choice.acting_for or "").strip()
        if not principal or principal == who.person:
            return None
        if (principal, who.person) not in self.asked.delegations:
            detail = f"{principal} has not asked {who.person} to decide in their place at this time"
            raise NotEligible(detail, voter=who.person, acting_for=principal)
        return principal

    def _roles(self, person: str) -> frozenset[str]:
        return self.asked.roles.get(person, frozenset())

    def _answer(self, row: Params, choice: Choice, who: Identity, written: Written) -> Code:
        if row["kind"] == Kind.APPROVAL:
            # A response in place of running a tool is a rejection with a text for the agent: it counts as one.
            text = _response(row, choice)
            return self._vote(row, replace(choice, text=text), Verdict.REJECT, who, written)
        self._check_open(row)
        check_answer(cast("Mapping[str, object]", row["question"]), choice.answer)
        decision = {"verdict": "answer", "by": [who.person], "note": choice.text, "answer": choice.answer}
        told: dict[str, object] = {
            "request_id": row["approval_id"], "verdict": "answer", "answer": choice.answer, "via": who.via,
            **({"justification": choice.text} if choice.text else {}),
        }  # fmt: skip
        written.events.append(Event("vote-recorded", who.person, told))
        self.resolved(row, ApprovalState.ANSWERED, who, decision, written)
        return "resolved"

    def _check_open(self, row: Params) -> None:
        if row["state"] != ApprovalState.PENDING:
            when = row["resolved_at"].isoformat() if row["resolved_at"] else None
            detail = f"the question is {row['state']} already, by {row['resolved_by']} at {when}"
            raise AlreadyResolved(detail, state=row["state"], resolved_by=row["resolved_by"], resolved_at=when)
        if row["expires_at"] <= self.now:
            detail = f"the question expired at {row['expires_at'].isoformat()}"
            raise Expired(detail, expired_at=row["expires_at"].isoformat())

    def resolved(
        self, row: Params, state: ApprovalState, who: Identity, decision: Mapping[str, object], written: Written
    ) -> None:
        """The one transition of this request and what it means for its workflow."""
        if self.tells and row["notify"] and row["kind"] == Kind.APPROVAL:
            data = {"state": state.value, "by": decision["by"], "note": decision["note"]}
            written.notices.append({"kind": "settled", "approval_id": row["approval_id"], "data": data})
        written.resolution = {"state": state.value, "resolved_by": who.person, "decision": decision}
        row |= {"state": state.value, "resolved_by": who.person, "resolved_at": self.now}
        facts: dict[str, object] = {
            "request_id": row["approval_id"], "state": state.value, "by": decision["by"], "note": decision["note"],
            "digest": row["digest"], "revision": row["revision"], "node": row["node"],
        }  # fmt: skip
        written.events.append(Event("confirmation-resolved", who.person, facts))
        if state is ApprovalState.REJECTED and row["on_reject"] == "cancel":
            self._cancel(written, who)
            self._move(written, Status.REJECTED, str(decision["note"]))
            written.events.append(Event("workflow-rejected", who.person, {"request_id": row["approval_id"]}))
        elif state in _ENDS:
            self._cancel(written, who)
            status, reason, over = _ENDS[state]
            self._move(written, status, reason)
            written.events.append(Event(over, who.person, {"request_id": row["approval_id"], "reason": reason}))
        elif self.workflow["status"] == Status.WAITING and not self._still_open():
            # The workflow goes on when everything it asked at this pause is decided: one resume, one re-run of nodes.
            self._move(written, Status.READY, None)

    def _cancel(self, written: Written, who: Identity) -> None:
        """The workflow ends, and with it whatever else it asks."""
        written.cancel = True
        others = {row["approval_id"]: row["state"] for row in self.rows if row["approval_id"] != written.approval_id}
        written.events.extend(unasked(others, who.person, "the workflow ended"))

    def _still_open(self) -> bool:
        return any(row["state"] == ApprovalState.PENDING for row in self.rows)

    def _move(self, written: Written, status: Status, reason: str | None) -> None:
        self.workflow["status"] = status.value
        written.transition = {"status": status.value, "reason": reason, "finished": status.finished}

    def told(self, row: Params, code: Code) -> Decided:
        """What the caller is told."""
        return Decided(
            workflow_id=self.workflow["workflow_id"],
            approval_id=row["approval_id"],
            status=self.workflow["status"],
            code=code,
            state=row["state"],
            resolved_by=row["resolved_by"],
            resolved_at=row["resolved_at"],
        )


def _was_asked(row: Params) -> bool:
    """Whether people were asked to approve it, and are no more: what a policy let through by itself was nobody's."""
    by_policy = str(row["resolved_by"] or "").startswith("policy:")
    return row["kind"] == Kind.APPROVAL and row["state"] != ApprovalState.PENDING and not by_policy


def _columns(one: Vote, who: Identity) -> Params:
    return {
        "revision": one.revision, "voter": one.voter, "acting_for": one.acting_for, "via": who.via,
        "verdict": one.verdict.value, "roles": sorted(one.roles), "justification": one.justification,
    }  # fmt: skip


def _say_which(open_rows: Sequence[Params], why: str) -> AmbiguousApproval:
    listed = [
        {name: row[name] for name in ("approval_id", "description", "node", "digest", "revision")} for row in open_rows
    ]
    return AmbiguousApproval(f"{why}; say which is meant with `approval_id`", approvals=listed)


def _check_allowed(row: Params, verdict: Verdict) -> None:
    if row["kind"] != Kind.APPROVAL:
        return
    # Where only an edited call may run, approving the edit is what runs it.
    edited = {"edit"} if verdict is Verdict.APPROVE and row["revision"] > 1 else set[str]()
    if not (_ALLOWED_AS[verdict] | edited) & set(row["allowed"]):
        allowed = ", ".join(row["allowed"])
        detail = f"{verdict.value} is not among what this request takes: {allowed}; cancelling the workflow is possible"
        raise AnswerInvalid(detail, allowed=row["allowed"])


def _check_named(row: Params, choice: Choice) -> None:
    """A vote on what was edited names what its voter has seen; a response has no place for it, and runs nothing."""
    if choice.verdict is not None and choice.revision is None and choice.digest is None and row["revision"] > 1:
        detail = (
            f"the request was edited and is at revision {row['revision']}. A vote names its revision: read the request"
            " again, then send its `revision`"
        )
        raise StaleRevision(detail, revision=row["revision"])


def _response(row: Params, choice: Choice) -> str:
    """The text of a response, where the tool takes responses; hidden in it is what the request hides."""
    if not _RESPOND & set(row["allowed"]) or not isinstance(choice.answer, str):
        allowed = ", ".join(row["allowed"])
        detail = f"this is an approval; it takes: {allowed} (a response is a text)"
        raise AnswerInvalid(detail, allowed=row["allowed"])
    return redact.hide(choice.answer, [row["action"], row["payload"]])
