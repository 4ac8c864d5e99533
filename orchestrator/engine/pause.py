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

from orchestrator.core.canonical import canonical_json, digest, redact
from orchestrator.core.confidence import DEFAULT_RULES, ConfidenceRules, Thresholds, adjusted, route
from orchestrator.core.deadlines import deadlines, lapses_at
from orchestrator.core.errors import GraphFault
from orchestrator.core.model import Adjustment, ApprovalState, Assessment, Kind, Level, Requirement, Route, Routing
from orchestrator.core.policy import Terms, terms_for
from orchestrator.core.questions import check_answer
from orchestrator.core.risk import RiskRules
from orchestrator.engine.lease import Lease
from orchestrator.engine.payloads import Ask, Settled, read, write
from orchestrator.store.db import Params
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


@dataclass(frozen=True, slots=True)
class Situation:
    """What a pause is judged in: the node of each interrupt, the round it is asked in, which still wait, and what an
    agent's confidence is worth.
    """

    now: datetime
    nodes: Mapping[str, str] = field(default_factory=dict[str, str])
    rounds: Mapping[str, int] = field(default_factory=dict[str, int])
    waiting: frozenset[str] = frozenset()
    confidence: ConfidenceRules = DEFAULT_RULES


def plan(lease: Lease, rules: RiskRules, interrupts: Iterable[Interrupt], situation: Situation) -> Pause:
    """What to commit for these interrupts. GraphFault when a payload cannot be read."""
    rows: list[Params] = []
    by_interrupt: dict[str, tuple[str, list[Params]]] = {}
    for interrupt in interrupts:
        if interrupt.id in situation.waiting:
            continue
        asks = read(interrupt)
        made = [_row(lease, rules, interrupt, ask, situation) for ask in asks]
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


def breakpoint_at(lease: Lease, rules: RiskRules, checkpoint: str, nodes: Sequence[str], now: datetime) -> Pause:
    """A graph compiled with `interrupt_before` or `interrupt_after` stopped there: a person says whether to go on."""
    names = ", ".join(nodes)
    question = {"prompt": f"The graph stops before {names}. Go on?", "options": [CONTINUE, STOP]}
    ask = Ask(Kind.QUESTION, "keyturn", question=question, description=str(question["prompt"]), allowed=("answer",))
    interrupt = Interrupt(value={"type": "question", **question}, id=f"{BREAKPOINT}{checkpoint}")
    row = _row(lease, rules, interrupt, ask, Situation(now, {interrupt.id: names}))
    return Pause([row], _events(row), Level.LOW, None, None)


def _row(lease: Lease, rules: RiskRules, interrupt: Interrupt, ask: Ask, situation: Situation) -> Params:
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
        _approval(lease, rules, ask, row["node"], situation)
        if ask.kind is Kind.APPROVAL
        else _question(lease, rules, ask, now)
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
    if ask.action is None:
        return ""
    parts = [ask.action.operation, ask.action.target, f"in {ask.action.environment}" if ask.action.environment else ""]
    return " ".join(part for part in parts if part)


def _adjustments(lease: Lease, ask: Ask, node: str, config: ConfidenceRules) -> tuple[Adjustment, ...]:
    """What an agent's confidence is adjusted by: what the interrupt brings, else what the configuration says."""
    if not ask.from_agent or ask.action is None:
        return ()
    if ask.adjustments is not None:
        return ask.adjustments
    return config.adjustments(ask.action, lease.requester, lease.facts(node), ask.confidence or 0.0)


def _thresholds(ask: Ask, config: ConfidenceRules) -> Thresholds:
    auto = config.thresholds.auto if ask.auto_threshold is None else ask.auto_threshold
    quick = min(config.thresholds.quick, auto) if ask.quick_threshold is None else ask.quick_threshold
    if quick > auto:
        detail = f"an interrupt() payload is malformed: its threshold quick ({quick:g}) is above auto ({auto:g})"
        raise GraphFault(detail)
    return Thresholds(auto, quick)


def _approval(lease: Lease, rules: RiskRules, ask: Ask, node: str, situation: Situation) -> Params:
    assert ask.action is not None  # noqa: S101 an approval has an action: the reader saw to it
    now, config = situation.now, situation.confidence
    added = _adjustments(lease, ask, node, config)
    points = [one.points for one in added]
    confidence = adjusted(ask.confidence, points) if ask.from_agent else None
    assessment = rules.assess(ask.action, lease.requester, lease.facts(node), confidence, ask.raised_to)
    terms = terms_for(assessment.level, rules)
    thresholds = _thresholds(ask, config)
    routing = route(
        assessment.level, terms.auto_approve, ask.confidence, ask.from_agent, points,
        forbidden=assessment.forbidden_by is not None,
        auto_threshold=thresholds.auto, quick_threshold=thresholds.quick,
    )  # fmt: skip
    row = _judged(assessment, terms, routing, now)
    row["adjustments"] = [one.to_json() for one in added]  # for the event: the row itself keeps the score
    row["digest"] = digest(ask.action.to_json(), terms.volatile_fields)
    if routing.route is Route.AUTO:
        return {**row, **_resolved(ApprovalState.APPROVED, "approve", terms, "", now)}
    if routing.route is Route.DENIED:
        note = f"forbidden by rule {assessment.forbidden_by}"
        return {**row, **_resolved(ApprovalState.REJECTED, "reject", terms, note, now)}
    return row


def _question(lease: Lease, rules: RiskRules, ask: Ask, now: datetime) -> Params:
    # A question asks for no consent: whoever may decide may answer, the requester too.
    question = ask.question or {}
    base = terms_for(Level.LOW, rules)
    terms = Terms("question", base.version, Requirement(()), base.request_ttl, base.approval_ttl)
    routing = Routing(Route.QUICK, urgent=False, due_hours=72, score=None)
    row = _judged(Assessment(Level.LOW, ()), terms, routing, now)
    row["digest"] = digest(dict(question))
    if lease.mode == "autonomous" and "default" in question:
        check_answer(question, question["default"])
        row |= _resolved(ApprovalState.ANSWERED, "answer", terms, "the declared default", now)
        row["decision"]["answer"] = question["default"]
        row["route"] = Route.AUTO.value
    return row


def _judged(assessment: Assessment, terms: Terms, routing: Routing, now: datetime) -> Params:
    times = deadlines(terms, routing, now)
    return {
        "risk_level": assessment.level.value,
        "reasons": [reason.to_json() for reason in assessment.reasons],
        "route": routing.route.value,
        "confidence": routing.score,
        "urgent": routing.urgent,
        "policy": terms.policy,
        "policy_versions": [str(terms.version)],
        "requirement": terms.requirement.to_json(),
        "roles": sorted(terms.requirement.roles),
        "volatile_fields": list(terms.volatile_fields),
        "approval_ttl": terms.approval_ttl,
        "due_at": times.due_at,
        "expires_at": times.expires_at,
        "escalate_at": times.escalate_at,
        "lapses_at": None,
        "state": ApprovalState.PENDING,
        "decision": None,
        "resolved_by": None,
        "resolved_at": None,
    }


def _resolved(state: ApprovalState, verdict: str, terms: Terms, note: str, now: datetime) -> Params:
    """An automatic decision leaves the same row as a person's."""
    return {
        "state": state,
        "decision": {"verdict": verdict, "by": [terms.actor], "note": note},
        "resolved_by": terms.actor,
        "resolved_at": now,
        "lapses_at": lapses_at(terms, now) if state is ApprovalState.APPROVED else None,
    }


def settled_of(row: Params) -> Settled:
    """A row's decision, ready to be written back in its dialect. Of no meaning while it is pending."""
    undecided: dict[str, object] = {"verdict": "reject", "by": [], "note": ""}
    decision = cast("Mapping[str, object]", row["decision"] or undecided)
    return Settled(
        Kind(row["kind"]), row["approval_id"], row["action"], row["digest"], row["volatile_fields"], decision,
        row["allowed"],
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
