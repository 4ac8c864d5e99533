"""The one exception tree. Each class has a stable `code`; `facts` carry what helps the caller.

HTTP status codes do not belong here: the edge maps codes to them in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class KeyturnError(Exception):
    """Base of every refusal and fault of Keyturn.

    `detail` says what was wrong, where, and what to do next; `facts` are JSON values that help a program.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong"

    def __init__(self, detail: str, **facts: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts: Mapping[str, object] = facts


class Refusal(KeyturnError):  # noqa: N818 the tree's words: refusals and faults
    """A request that was understood and is not allowed or not possible. Nothing was half done."""


class Fault(KeyturnError):  # noqa: N818 the tree's words: refusals and faults
    """Something of ours, or something we depend on, is broken."""


class NotFound(Refusal):
    """There is no such thing in the caller's namespace."""

    code = "not_found"
    title = "Not found"


class InvalidInput(Refusal):
    """What was sent does not have the shape that is asked for."""

    code = "invalid_input"
    title = "Invalid input"


class InvalidDocument(Refusal):
    """A configuration file is wrong; `problems` names file, line, path and what is allowed."""

    code = "invalid_document"
    title = "Invalid configuration file"

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems), problems=list(problems))
        self.problems = problems


class Unauthenticated(Refusal):
    """No credential, or one that is unknown, expired or revoked."""

    code = "unauthenticated"
    title = "Credential needed"


class Forbidden(Refusal):
    """The credential does not carry the permission that this call needs."""

    code = "forbidden"
    title = "Not permitted"


class NotEligible(Refusal):
    """The person holds none of the roles that may decide this approval."""

    code = "not_eligible"
    title = "Not an approver of this request"


class SelfApproval(Refusal):
    """The person asked for the action, or launched the agent that did (rule 6)."""

    code = "self_approval"
    title = "Nobody approves their own request"


class NotOwner(Refusal):
    """Only whoever asked may withdraw (rule 13)."""

    code = "not_owner"
    title = "Not your request"


class StageNotOpen(Refusal):
    """The person decides in a later stage than the one that is open (rule 15)."""

    code = "stage_not_open"
    title = "That stage is not open yet"


class ReviewOutstanding(Refusal):
    """The person owes a review of an earlier break-glass whose time has passed (rule 17)."""

    code = "review_outstanding"
    title = "An earlier break-glass is not reviewed"


class IdentityMismatch(Refusal):
    """A body names somebody other than the caller (rule 23)."""

    code = "identity_mismatch"
    title = "The body names somebody else"


class AlreadyResolved(Refusal):
    """The approval has ended; facts name `state`, `resolved_by` and `resolved_at` (rule 1)."""

    code = "already_resolved"
    title = "Already decided"


class StaleRevision(Refusal):
    """The vote names another revision than the present one."""

    code = "stale_revision"
    title = "The request was revised"


class VoteFinal(Refusal):
    """A rejection cannot be turned into an approval (rule 3)."""

    code = "vote_final"
    title = "A rejection is final"


class PrincipalAlreadyCounted(Refusal):
    """Somebody has voted in this person's place, or they have themselves (rule 7)."""

    code = "principal_already_counted"
    title = "That person's vote is counted already"


class PersonAlreadyCounted(Refusal):
    """The person has spent their one vote, for themselves or as somebody's delegate (rule 7)."""

    code = "person_already_counted"
    title = "You have voted already"


class DigestMismatch(Refusal):
    """What would run, or what the vote names, is not what was asked (rule 9)."""

    code = "hash_mismatch"
    title = "Not what was approved"


class AlreadyExecuted(Refusal):
    """An approval runs once (rule 9)."""

    code = "already_executed"
    title = "Already executed"


class ApprovalLapsed(Refusal):
    """The approval was good for a time that has passed (rule 11)."""

    code = "approval_lapsed"
    title = "The approval has lapsed"


class ApproversIneligible(Refusal):
    """Fewer than needed of those who approved still hold their roles when it is to run (rule 5)."""

    code = "approver_ineligible"
    title = "The approvers no longer hold their roles"


class Frozen(Refusal):
    """A freeze holds what was approved; facts carry `until` (rule 16)."""

    code = "frozen"
    title = "Held by a freeze"


class Unroutable(Refusal):
    """Nobody may decide the request, and no fallback is named (rule 14)."""

    code = "unroutable"
    title = "Nobody may decide this"


class NotEditable(Refusal):
    """Whoever asked does not take an edited action."""

    code = "not_editable"
    title = "The request cannot be edited"


class TokenWrongUser(Refusal):
    """A link was made for somebody else, or needs that person's credential (rule 18)."""

    code = "token_wrong_user"
    title = "The link is not yours"


class TokenUsed(Refusal):
    """A link works once (rule 18)."""

    code = "token_used"
    title = "The link was used"


class TokenInvalid(Refusal):
    """A link that was not made here, or was changed."""

    code = "token_invalid"
    title = "Not a link of ours"


class Expired(Refusal):
    """The request was not answered in time (rule 11), or a link not used (rule 18)."""

    code = "expired"
    title = "Too late"


class JustificationRequired(Refusal):
    """A reason is needed and none, or a blank one, was given (rule 19)."""

    code = "justification_required"
    title = "A justification is required"


class AnswerInvalid(Refusal):
    """An answer does not match what the question accepts."""

    code = "invalid_answer"
    title = "The answer does not fit the question"


class AmbiguousApproval(Refusal):
    """It takes a name to say which approval is meant; facts list the pending ones as `approvals`."""

    code = "approval_id_needed"
    title = "Say which approval is meant"


class NothingPending(Refusal):
    """The workflow has no pending approval to decide."""

    code = "nothing_pending"
    title = "Nothing is waiting for a decision"


class IdempotencyConflict(Refusal):
    """The same Idempotency-Key came with another body (rule 3)."""

    code = "idempotency_conflict"
    title = "The idempotency key was used for another request"


class TransitionConflict(Refusal):
    """The workflow is in a state from which this is not possible; facts carry `status` and `allowed`."""

    code = "conflict"
    title = "Not possible in this state"


class ThreadExists(Refusal):
    """A thread of this id is there already."""

    code = "thread_exists"
    title = "The thread exists"


class ThreadBusy(Refusal):
    """A run of the thread is under way or waits for a person; nothing else begins on it."""

    code = "thread_busy"
    title = "The thread is busy"


class ThreadEnded(Refusal):
    """The thread was ended; nothing begins on it any more."""

    code = "thread_ended"
    title = "The thread has ended"


class SessionEnded(Refusal):
    """The session has ended; facts carry `approvals`, which still wait for an answer."""

    code = "session_ended"
    title = "The session has ended"


class TooManySessions(Refusal):
    """The person has as many open sessions as they may; facts list them as `sessions`."""

    code = "too_many_sessions"
    title = "Too many open sessions"


class ApprovalPending(Refusal):
    """An approval waits in the session, and a message is never a decision; facts list what waits as `approvals`."""

    code = "approval_pending"
    title = "An approval waits"


class ActionRejected(Refusal):
    """An approver said no to what a graph was about to do, and the graph did not handle it."""

    code = "rejected"
    title = "The action was rejected"


class LeaseLost(Fault):
    """The workflow belongs to another worker now, or was cancelled; nothing was written."""

    code = "lease_lost"
    title = "The lease was lost"


class GraphChanged(Fault):
    """The node that waits for a decision no longer exists in the graph."""

    code = "graph_changed"
    title = "The graph has changed"


class GraphFault(Fault):
    """A graph could not be loaded or built."""

    code = "graph_fault"
    title = "The graph cannot be loaded"


class GateFault(Fault):
    """A gate in the triggers file could not say what the node is about to do; facts name `graph` and `node`."""

    code = "gate_fault"
    title = "The gate cannot describe the action"


class StepFailed(Fault):
    """A step of a runbook did not do what it should; facts name the `step`."""

    code = "step_failed"
    title = "A step of the runbook failed"


class RolledBack(Fault):
    """The operation did not succeed and its roll-back has run; facts say what failed and what was undone."""

    code = "rolled_back"
    title = "The operation was rolled back"


class ToolMissing(Fault):
    """A program that a step needs is not installed where the worker runs."""

    code = "tool_missing"
    title = "A program is not installed"


class Poisoned(Fault):
    """The workflow was claimed several times and never got anywhere: it is taken to be what kills its workers."""

    code = "poisoned"
    title = "The workflow keeps killing its workers"


class NotStorable(Fault):
    """A graph's state holds what Postgres cannot (a NUL character in a text, or a number that is none)."""

    code = "not_storable"
    title = "The state cannot be stored"


class Unavailable(Fault):
    """The database is away or has no free connection; facts carry `retry_after` in seconds."""

    code = "unavailable"
    title = "The database is away"


class DirectoryInUse(Fault):
    """Another process runs its Postgres in this directory."""

    code = "directory_in_use"
    title = "The data directory is in use"


class MigrationFault(Fault):
    """The database's schema and the migration files do not belong together."""

    code = "migration_fault"
    title = "The schema does not match"


class AnchorKeyMissing(Refusal):
    """This server has no key to sign anchors with, or cannot use the one it was given."""

    code = "anchor_key_missing"
    title = "No key to sign with"


class AnchorInvalid(Refusal):
    """An anchor is not what was signed."""

    code = "anchor_invalid"
    title = "The anchor is not good"


class UnknownInterrupt(NotFound):
    """No interrupt of the thread has this id, now or before; it is never taken for another one."""

    code = "unknown_interrupt"
    title = "No such interrupt"


class MoreApprovalsNeeded(Refusal):
    """The vote is recorded, and the policy wants more of them; facts name who is missing as `approvals`."""

    code = "more_approvals_needed"
    title = "Recorded, and more people must agree"


class Unsupported(Refusal):
    """A part of a protocol that is understood and not served here; the detail says why and what to do instead."""

    code = "unsupported"
    title = "Not served here"
