"""The scenes without an outage: the low risk that runs by itself, the gates, and a plain LangGraph graph's question."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from typing import Final, cast

from orchestrator.cli.demo.play import PEOPLE, REQUESTER, Play
from orchestrator.store import demo
from orchestrator.wire import ApprovalRecord, WorkflowRecord

# Rows by age in days. The first purge takes the oldest, the second the next.
AGES: Final = {400: 4000, 120: 2000, 45: 1500, 2: 500}
OLD_DAYS: Final = 90
OLD_ROWS: Final = 6000
KEPT_ROWS: Final = 2000
_CHANGE_EACH: Final = 4
_FORBIDDEN: Final = 403
_CONFLICT: Final = 409
_REPLICAS: Final = 3
# What a Terraform plan counts. The example has one resource beside the replicas.
_CHANGES: Final = ("additions", "changes", "deletions")


def fill(play: Play) -> None:
    """Make the table that the operations work on."""
    play.stage.look(lambda conn: demo.create(conn, AGES, _CHANGE_EACH))


def rows_older(play: Play, days: int) -> int:
    """How many rows there are that are older than so many days."""
    return play.stage.look(lambda conn: demo.older(conn, days))


def vacuum(play: Play) -> None:
    """Low risk: nobody has to look, and the decision is recorded all the same."""
    tell = play.teller
    tell.scene("Vacuum and analyze: low risk, runs by itself")
    ended = play.finished(play.operate("Tidy the access log", "vacuum-analyze", table=demo.TABLE))
    for one in ended.approvals:
        tell.line(f"{one.description}: risk {one.risk_level}, route {one.route}, decided by {one.resolved_by}")
    automatic = [one for one in ended.approvals if one.route == "AUTO" and not one.votes]
    by_policy = len(automatic) == 1 and str(automatic[0].resolved_by).startswith("policy:")
    tell.check("The low risk was decided automatically, and the decision is on record.", held=by_policy)
    tell.check("The vacuum ran to its end without a person.", held=applied(ended))


def purge(play: Play) -> None:
    """The plan counts thousands of rows: the risk rises, and somebody else than the requester decides."""
    tell = play.teller
    tell.scene("Purge old rows: thousands of rows raise the risk")
    title = f"Purge the access log after {OLD_DAYS} days"
    workflow_id = play.operate(title, "purge-old-rows", table=demo.TABLE, keep_days=OLD_DAYS)
    asked = play.gate(workflow_id)
    show_gate(play, asked)
    raised = asked.risk_level == "medium" and "over-1000-rows" in [str(reason["rule"]) for reason in asked.reasons]
    tell.check(f"The plan counted {OLD_ROWS} rows, which raised the risk to medium.",
               held=raised and str(OLD_ROWS) in asked.description)  # fmt: skip
    own = play.refusal(workflow_id, REQUESTER, "I know what I do.")
    tell.check("The requester cannot approve their own request: 403.",
               held=(own.status, own.code) == (_FORBIDDEN, "self_approval"))  # fmt: skip
    approved = play.decide(workflow_id, "tom", "Nobody reads logs that old.")
    late = play.refusal(workflow_id, "tara", "Fine with me too.")
    tell.check("The second decider gets 409 and is told that tom decided.",
               held=(late.status, late.facts.get("resolved_by")) == (_CONFLICT, "tom"))  # fmt: skip
    ended = play.finished(workflow_id)
    left, others = rows_older(play, OLD_DAYS), rows_older(play, 0)
    tell.line(f"{left} old rows are left, {others} rows in all")
    if approved:
        tell.check(f"The {OLD_ROWS} rows are gone, the {KEPT_ROWS} others are there.",
                   held=applied(ended) and (left, others) == (0, KEPT_ROWS))  # fmt: skip
    else:
        tell.check("Rejected: not one row was deleted.", held=ended.status == "rejected" and left == OLD_ROWS)


def terraform(play: Play) -> None:
    """What Terraform's plan says is what the approver reads, and that plan is applied."""
    tell = play.teller
    tell.scene("Terraform change: the plan's own figures at the gate")
    if shutil.which("terraform") is None:
        tell.line("Skipped: terraform is not installed on this machine.")
        return
    workflow_id = play.operate(f"{_REPLICAS} replicas", "terraform-change", replicas=_REPLICAS)
    asked = play.gate(workflow_id)
    show_gate(play, asked)
    facts = cast("Mapping[str, object]", (asked.action or {}).get("metadata", {}))
    counted = [facts.get(name) for name in _CHANGES]
    tell.check("The gate shows what the plan adds, changes and deletes.",
               held=asked.risk_level == "high" and counted == [_REPLICAS + 1, 0, 0])  # fmt: skip
    approved = play.decide(workflow_id, "tara", "The plan only adds.")
    ended = play.finished(workflow_id)
    if approved:
        tell.check("Exactly that plan was applied, and nothing is left to change.", held=applied(ended))
    else:
        tell.check("Rejected: nothing was applied.", held=ended.status == "rejected")


def ask_release_note(play: Play) -> str:
    """Submit the plain LangGraph graph; returns the workflow, which waits for an answer."""
    workflow_id = play.submit("Release note 1.1", "release_note", version="1.1", changes=["Purges old log rows"])
    play.gate(workflow_id)
    return workflow_id


def answer_release_note(play: Play, workflow_id: str) -> None:
    """Answer the raw interrupt."""
    tell = play.teller
    tell.scene("A plain LangGraph graph with a raw interrupt()")
    asked = play.gate(workflow_id)
    payload = cast("Mapping[str, str]", (asked.question or {}).get("payload", {}))
    tell.line(f"It asks: {payload.get('question')}")
    tell.line(f"Draft: {' '.join(payload.get('draft', '').split())}")
    said = tell.answer("tom", "Your answer?", "yes")
    play.cast["tom"].answer(asked.approval_id, said, idempotency_key=uuid.uuid4().hex)
    tell.line(f"tom answers: {said}")
    ended = play.finished(workflow_id)
    result = cast("Mapping[str, object]", ended.result or {})
    expected = payload.get("draft") if said.lower() in {"yes", "y", "true"} else said
    tell.check("The answer reached the graph, which knows nothing of Keyturn, and it went on to its end.",
               held=ended.status == "completed" and result.get("published") == expected)  # fmt: skip


def show_gate(play: Play, asked: ApprovalRecord) -> None:
    """What an approver sees: what will run, why it needs them, and who may decide."""
    tell = play.teller
    tell.line(f"It waits: {asked.description}")
    tell.line(f"Risk {asked.risk_level}: {' '.join(str(reason['text']) for reason in asked.reasons)}")
    found = play.cast[REQUESTER].explain(asked.approval_id)
    deciders = " or ".join(f"{name} ({', '.join(PEOPLE[name])})" for name in found.can_decide)
    tell.line(f"One of {' or '.join(asked.approvers)} decides: {deciders}")
    for person in PEOPLE:
        for name, why in play.cast[REQUESTER].explain(asked.approval_id, person).why_not.items():
            tell.line(f"Not {name}: {why}")


def applied(ended: WorkflowRecord) -> bool:
    """Whether an operation was applied and verified."""
    result = cast("Mapping[str, object]", ended.result or {})
    return ended.status == "completed" and result.get("outcome") == "applied"
