"""The scene of several people: two stages, an escalation, and a request that is edited before it is approved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from orchestrator.cli.demo.play import REQUESTER, Play
from orchestrator.store import demo, effects
from orchestrator.wire import ApprovalRecord, Edited

CLAIM: Final = "trip-7"
PAYEE: Final = "Hotel Adler"
ASKED: Final = 4800.0
RECEIPT: Final = 480.0
ESCALATE_SECONDS: Final = 1
POLICIES: Final = f"""
roles: [finance]
policies:
  - name: expenses
    match: action.operation == 'approve_expense'
    stages:
      - [{{role: team_lead}}]
      - [{{role: cto}}]
    escalation: {{after: {ESCALATE_SECONDS}s, to: [finance]}}
"""
_FORBIDDEN: Final = 403
_CHANGED: Final = {
    "arguments.amount": (ASKED, RECEIPT),
    "estimated_cost": (ASKED, RECEIPT),
}


def expense(play: Play) -> None:
    """Nobody of the first stage answers, so others may; a team lead corrects the amount, and all begins anew."""
    tell = play.teller
    tell.scene("An expense: two stages, an escalation, and a corrected amount")
    published = play.cast["owner"].publish_policies(POLICIES)
    tell.line(f"owner publishes policies, version {published.version}: a team_lead, then the cto decides; after"
              f" {ESCALATE_SECONDS} second without an answer finance may too.")  # fmt: skip
    message = f"Approve expense {CLAIM} of {ASKED:g} EUR for {PAYEE}"
    workflow_id = play.submit(message, "assistant", message=message)
    asked = play.gate(workflow_id)
    tell.line(f"It waits: {asked.description} Risk {asked.risk_level}, amount {_amount(asked):g}.")
    _in_order(play, workflow_id, asked)
    _escalated(play, workflow_id, asked)
    play.decide(workflow_id, "fay", "The trip was agreed.", ask=False)
    _corrected(play, workflow_id, asked.approval_id)
    _approved(play, workflow_id, asked.approval_id)


def _in_order(play: Play, workflow_id: str, asked: ApprovalRecord) -> None:
    """The second stage is not open yet."""
    wanted = [[slot["any_of"] for slot in stage] for stage in asked.stages]
    early = play.refusal(workflow_id, "cleo", "Paid from my budget.")
    play.teller.check("The cto decides in the second stage, which is not open yet: 403.",
                      held=wanted == [[["team_lead"]], [["cto"]]]
                      and (early.status, early.code) == (_FORBIDDEN, "stage_not_open"))  # fmt: skip


def _escalated(play: Play, workflow_id: str, asked: ApprovalRecord) -> None:
    """Nobody of the first stage answers; after a while somebody else may."""
    tell = play.teller
    told = play.event(workflow_id, lambda event: event.type == "approval-escalated")
    seconds = (told.at - asked.requested_at).total_seconds()
    now = play.requester.explain(asked.approval_id).can_decide
    tell.line(f"No team_lead answered for {seconds:.1f} seconds. Now {', '.join(now)} could decide.")
    added = (told.data["to"], told.data["mode"]) == (["finance"], "add")
    tell.check("It was escalated: fay of finance may fill the first stage too.",
               held=added and seconds >= ESCALATE_SECONDS and set(now) == {"fay", "tara", "tom"})  # fmt: skip


def _corrected(play: Play, workflow_id: str, approval_id: str) -> None:
    """A team lead edits the action: what differs is shown, fay's vote is void, and the editor may not approve."""
    tell = play.teller
    seen = play.requester.approval(approval_id)
    action = {
        **(seen.action or {}), "estimated_cost": RECEIPT, "arguments": {**_arguments(seen), "amount": RECEIPT},
    }  # fmt: skip
    edited = play.cast["tom"].edit(approval_id, action, revision=seen.revision, justification="The receipt says 480.")
    tell.line("tom corrects it: “The receipt says 480.”")
    for change in edited.changes:
        tell.line(f"{change['path']}: {change['before']:g} → {change['after']:g}")
    tell.check(f"Exactly the amount changed, and the risk was judged again: {seen.risk_level}, now"
               f" {edited.risk_level}.", held=_differs(edited) and seen.risk_level == "high"
               and edited.risk_level == "medium" and edited.digest != seen.digest)  # fmt: skip
    now = play.requester.approval(approval_id)
    tell.check("fay's vote was for the old amount and counts no more.",
               held=seen.filled == {"fay": "team_lead"} and not now.filled
               and list(now.void) == [{"person": "fay", "revision": 1, "reason": "revised"}])  # fmt: skip
    own = play.refusal(workflow_id, "tom", "Correct now.")
    tell.check("Who edited a request last cannot approve it: 403.",
               held=(own.status, own.code) == (_FORBIDDEN, "self_approval"))  # fmt: skip


def _differs(edited: Edited) -> bool:
    return {str(one["path"]): (one["before"], one["after"]) for one in edited.changes} == _CHANGED


def _approved(play: Play, workflow_id: str, approval_id: str) -> None:
    """Both stages approve the corrected request, and that is what runs."""
    tell = play.teller
    play.decide(workflow_id, "tara", "480 is what the receipt says.", ask=False)
    approved = play.decide(workflow_id, "cleo", "Paid from my budget.")
    ended = play.finished(workflow_id)
    entered = play.stage.look(lambda conn: demo.expense(conn, CLAIM))
    if not approved:
        tell.check("Rejected: nothing was entered.", held=ended.status == "completed" and not entered)
        return
    record = play.requester.approval(approval_id)
    tell.line(f"In the ledger of expenses: {', '.join(entered) or 'nothing'}")
    tell.check("Two people approved it, one in each stage, neither of them rita, who asked, nor tom, who edited.",
               held=record.filled == {"tara": "team_lead", "cleo": "cto"} and record.requested_by == REQUESTER
               and record.last_editor == "tom")  # fmt: skip
    used = [row for row in play.stage.look(lambda conn: effects.of_workflow(conn, workflow_id))
            if row["approval_id"] == approval_id]  # fmt: skip
    once = len(used) == 1 and used[0]["state"] == "finished" and record.state == "executed"
    tell.check(f"Exactly the corrected action ran, once: {CLAIM} is entered with {RECEIPT:.2f} EUR.",
               held=once and ended.status == "completed"
               and entered == [f"{CLAIM} {RECEIPT:.2f} EUR {PAYEE}"])  # fmt: skip


def _arguments(asked: ApprovalRecord) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", (asked.action or {})["arguments"])


def _amount(asked: ApprovalRecord) -> float:
    return float(_arguments(asked)["amount"])
