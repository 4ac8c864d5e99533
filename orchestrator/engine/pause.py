"""What becomes of the interrupts a graph paused at: assessed, routed, and turned into approval rows.

Everything is worked out here from values; the segment commits it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from langgraph.types import Interrupt

from orchestrator.core.actions import described
from orchestrator.core.asking import UNROUTABLE_ESCALATED, Asking, Judgement, Law, judge, resolved
from orchestrator.core.canonical import canonical_json, digest, redact
from orchestrator.core.errors import GraphFault
from orchestrator.core.model import ApprovalState, Assessment, Kind, Level, Requirement, Route, Routing
from orchestrator.core.policy import Terms, terms_for
from orchestrator.core.questions import check_answer
from orchestrator.engine.lease import Lease
from orchestrator.engine.payloads import Ask, Settled, read, write
from orchestrator.store.db import Params
from orchestrator.store.decisions import Notice
from orchestrator.store.events import Event

BREAKPOINT = "breakpoint:"
CONTINUE, STOP = "continue", "stop"


@dataclass(frozen=True, slots=True)
class Pause:
    """The rows and events of one pause. `resume` answers every interrupt when nothing waits for a person;
    `rejected_by` names the rule that denied a gate whose workflow ends with it.
    """

    rows: Sequence[Params]
    events: Sequence[Event]
    level: Level
    resume: Mapping[str, object] | None
    rejected_by: str | None

    @property
    def notices(self) -> list[Notice]:
        """Who may decide is told of what waits, where the risk level or the policy says so."""
        asked = (row for row in self.rows if row["state"] == ApprovalState.PENDING and row["notify"])
        return [
            {"kind": "unroutable" if UNROUTABLE_ESCALATED in row["flags"] else "requested",
             "approval_id": row["approval_id"], "data": _open_to(row)}
            for row in asked
        ]  # fmt: skip


def _open_to(row: Params) -> dict[str, object]:
    """Who decides first: the roles of the first stage. Nobody is asked for what nobody may decide."""
    if UNROUTABLE_ESCALATED in row["flags"]:
        return {}
    stage = Requirement.from_json(row["requirement"]).stages[0]
    return {"roles": sorted({role for slot in stage for role in slot.open_to})}


@dataclass(frozen=True, slots=True)
class Situation:
    """What a pause is judged in: the node of each interrupt, the round it is asked in, and which still wait."""

    now: datetime
    nodes: Mapping[str, str] = field(default_factory=dict[str, str])
    rounds: Mapping[str, int] = field(default_factory=dict[str, int])
    waiting: frozenset[str] = frozenset()


def plan(lease: Lease, law: Law, interrupts: Iterable[Interrupt], situation: Situation) -> Pause:
    """What to commit for these interrupts. GraphFault when a payload cannot be read."""
    rows: list[Params] = []
    by_interrupt: dict[str, tuple[str, list[Params]]] = {}
    for interrupt in interrupts:
        if interrupt.id in situation.waiting:
            continue
        asks = read(interrupt)
        made = [_row(lease, law, interrupt, ask, situation) for ask in asks]
        by_interrupt[interrupt.id] = (asks[0].dialect, made)
        rows += made
    waiting = bool(situation.waiting) or any(row["state"] == ApprovalState.PENDING for row in rows)
    denied = [row for row in rows if row["state"] == ApprovalState.REJECTED and row["on_reject"] == "cancel"]
    settled = {} if waiting or denied else by_interrupt
    resume = {key: write(dialect, [settled_of(row) for row in made]) for key, (dialect, made) in settled.items()}
    return Pause(
        rows=rows,
        events=[event for row in rows for event in _events(row)],
        level=Level.highest([Level(row["risk_level"]) for row in rows]),
        resume=None if waiting or denied else resume,
        rejected_by=str(denied[0]["resolved_by"]) if denied else None,
    )


def breakpoint_at(lease: Lease, law: Law, checkpoint: str, nodes: Sequence[str], now: datetime) -> Pause:
    """A graph compiled with `interrupt_before` or `interrupt_after` stopped there: a person says whether to go on."""
    names = ", ".join(nodes)
    question = {"prompt": f"The graph stops before {names}. Go on?", "options": [CONTINUE, STOP]}
    ask = Ask(Kind.QUESTION, "keyturn", question=question, description=str(question["prompt"]), allowed=("answer",))
    interrupt = Interrupt(value={"type": "question", **question}, id=f"{BREAKPOINT}{checkpoint}")
    row = _row(lease, law, interrupt, ask, Situation(now, {interrupt.id: names}))
    return Pause([row], _events(row), Level.LOW, None, None)


def _row(lease: Lease, law: Law, interrupt: Interrupt, ask: Ask, situation: Situation) -> Params:
    now, nth = situation.now, situation.rounds.get(interrupt.id, 0)
    row: Params = {
        "approval_id": _approval_id(lease.workflow_id, interrupt.id, ask.item, nth),
        "round": nth,
        "namespace": lease.namespace,
        "workflow_id": lease.workflow_id,
        "interrupt_id": interrupt.id,
        "item": ask.item,
        "node": situation.nodes.get(interrupt.id, ""),
        "kind": ask.kind.value,
        "dialect": ask.dialect,
        "payload": interrupt.value,
        "action": ask.action.to_json() if ask.action else None,
        "question": _shown(ask.question, interrupt.value),
        "allowed": list(ask.allowed),
        "description": redact.hide(ask.description or _described(ask), interrupt.value),
        "on_reject": ask.on_reject,
        "requester": lease.requester.person,
        "on_behalf_of": lease.requester.on_behalf_of,
        "launched_by": lease.requester.launched_by,
        "requested_at": now,
    }
    judged = (
        _approval(lease, law, ask, row["node"], now) if ask.kind is Kind.APPROVAL else _question(lease, law, ask, now)
    )
    return {**row, **judged}


def _approval_id(workflow_id: str, interrupt_id: str, item: int, nth: int) -> str:
    """The same request has the same id, also when the pause that asks it is computed again after a crash."""
    name = f"{workflow_id}\n{interrupt_id}\n{item}\n{nth}"
    return f"ap-{hashlib.sha256(name.encode()).hexdigest()[:24]}"


def _shown(question: Mapping[str, object] | None, payload: object) -> Mapping[str, object] | None:
    """The question with no secret of the payload in its sentence; the rest is masked where it is shown (rule 25)."""
    return question and {**question, "prompt": redact.hide(str(question["prompt"]), payload)}


def _described(ask: Ask) -> str:
    return described(ask.action) if ask.action else ""


def _approval(lease: Lease, law: Law, ask: Ask, node: str, now: datetime) -> Params:
    assert ask.action is not None  # noqa: S101 an approval has an action: the reader saw to it
    asking = Asking(
        lease.requester, lease.facts(node), ask.confidence, ask.from_agent, ask.adjustments,
        (ask.auto_threshold, ask.quick_threshold), ask.raised_to, ask.justification,
    )  # fmt: skip
    auto, quick = asking.bands(law)
    if quick > auto:
        detail = f"an interrupt() payload is malformed: its threshold quick ({quick:g}) is above auto ({auto:g})"
        raise GraphFault(detail)
    judged = judge(ask.action, asking, law, now)
    return {
        **judged.columns(now), "asked": asking.to_json(), "asked_digest": judged.digest, "editable": ask.editable,
        "notify": judged.terms.notify, "adjustments": [one.to_json() for one in judged.adjustments],
    }  # fmt: skip


def _question(lease: Lease, law: Law, ask: Ask, now: datetime) -> Params:
    # A question asks for no consent: whoever may decide may answer, the requester too.
    question = ask.question or {}
    base = terms_for(Level.LOW, law.rules)
    terms = Terms("question", base.version, Requirement(()), base.request_ttl, base.approval_ttl)
    routing = Routing(Route.QUICK, urgent=False, due_hours=72, score=None)
    found = digest(dict(question))
    row = Judgement(Assessment(Level.LOW, ()), terms, routing, (), None, found, law.book.version).columns(now)
    row |= {"asked": None, "asked_digest": found, "editable": False, "notify": False}
    if lease.mode == "autonomous" and "default" in question:
        check_answer(question, question["default"])
        row |= resolved(ApprovalState.ANSWERED, "answer", terms, "the declared default", now)
        decision = cast("Mapping[str, object]", row["decision"])
        row["decision"] = {**decision, "answer": question["default"], "defaulted": True}
        row["route"] = Route.AUTO.value
    return row


def settled_of(row: Params) -> Settled:
    """A row's decision, ready to be written back in its dialect. Of no meaning while it is pending."""
    undecided: dict[str, object] = {"verdict": "reject", "by": [], "note": ""}
    decision = cast("Mapping[str, object]", row["decision"] or undecided)
    return Settled(
        Kind(row["kind"]), row["approval_id"], row["action"], row["digest"], row["volatile_fields"], decision,
        row["allowed"], row["asked_digest"], row.get("revision", 1),
    )  # fmt: skip


def _events(row: Params) -> list[Event]:
    facts = {
        "request_id": row["approval_id"],
        "node": row["node"],
        "kind": row["kind"],
        "risk_level": row["risk_level"],
        "route": row["route"],
        "description": row["description"],
        "digest": row["digest"],
    }
    if row["confidence"] is not None:
        facts |= {"confidence": row["confidence"], "adjustments": row["adjustments"]}
    if row["state"] == ApprovalState.PENDING:
        more = {
            "action": row["action"], "question": row["question"], "reasons": row["reasons"], "policy": row["policy"],
            "due_at": row["due_at"].isoformat(), "expires_at": row["expires_at"].isoformat(),
            "requirement": row["requirement"], "revision": 1,
        }  # fmt: skip
        return [Event("confirmation-required", "keyturn", {**facts, **more})]
    return [
        Event(
            "confirmation-resolved", row["resolved_by"],
            {**facts, "action": row["action"], "reasons": row["reasons"], "state": str(row["state"]),
             "note": row["decision"]["note"], "policy": row["policy"]},
        )
    ]  # fmt: skip


def same_payload(asked: object, stored: object) -> bool:
    """Whether an interrupt still asks what the stored request was made for."""
    return canonical_json(asked) == canonical_json(stored)
