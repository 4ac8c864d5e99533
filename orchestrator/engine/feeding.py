"""Which decisions a thread may be given: those made for exactly what it asks, and nothing else (rule 9).

Stock LangGraph tools can change a thread while a request is pending. Its interrupts are other ones then, so a decision
is used only if the graph, asked again, asks for the same. Nothing here runs, stores or resumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from langgraph.types import Interrupt

from orchestrator.core.errors import ApprovalLapsed, DigestMismatch
from orchestrator.core.freezes import freeze_from_json, frozen_until
from orchestrator.core.model import BREAK_GLASS, Kind
from orchestrator.core.policy_file import PolicyBook
from orchestrator.engine import pause
from orchestrator.engine.lease import Decided
from orchestrator.engine.payloads import write
from orchestrator.engine.standing import Standing
from orchestrator.engine.standing_approvals import frozen_error

# Decisions by the interrupt they were made for; a batched interrupt has several.
Groups = Mapping[str, Sequence[Decided]]


@dataclass(slots=True)
class Fed:
    """The decisions given to the graph that no commit contains yet."""

    approval_ids: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def take(self, groups: Groups) -> None:
        """These are given to the graph now."""
        self.approval_ids = {key: [one.approval_id for one in ones] for key, ones in groups.items()}

    def consumed(self, standing: Standing, *, advanced: bool) -> list[str]:
        """Those the graph has taken: all once its superstep ended, else those it no longer asks about."""
        return [
            approval_id
            for interrupt_id, ids in self.approval_ids.items()
            if advanced or interrupt_id not in standing.interrupts
            for approval_id in ids
        ]


def grouped(decided: Iterable[Decided]) -> dict[str, list[Decided]]:
    """The decisions of each interrupt's newest round, where all of its requests are decided.

    A request of a batch that lapsed leaves its group short: the others' decisions must not stand in its place, so the
    whole interrupt is asked again.
    """
    groups: dict[str, list[Decided]] = {}
    for one in decided:
        groups.setdefault(one.interrupt_id, []).append(one)
    newest = {key: [one for one in ones if one.nth == max(o.nth for o in ones)] for key, ones in groups.items()}
    return {key: ones for key, ones in newest.items() if len(ones) == ones[0].of}


def check_lapsed(groups: Groups) -> None:
    """Refuse decisions whose time has passed, all of them at once, and with them the rest of their batches."""
    late = [one.approval_id for ones in groups.values() if any(one.lapsed for one in ones) for one in ones]
    if late:
        detail = "an approval was not used in time and has lapsed; retry the workflow to request it anew"
        raise ApprovalLapsed(detail, approval_id=late[0], approval_ids=late)


def check_frozen(groups: Groups, book: PolicyBook, now: datetime) -> None:
    """Refuse to run what a freeze holds (rule 16).

    The freezes of the request and those of the policy of that name as it is published now count, and none of them for
    what somebody broke the glass for.
    """
    known = {policy.name: policy.freeze for policy in book.policies}
    held: list[str] = []
    until = now
    for one in _approved(groups):
        freezes = [*(freeze_from_json(freeze) for freeze in one.freeze), *known.get(one.policy, ())]
        end = frozen_until(freezes, now) if freezes and BREAK_GLASS not in one.flags else None
        if end is not None:
            held.append(one.approval_id)
            until = max(until, end)
    if held:
        raise frozen_error(until, held)


def to_recheck(groups: Groups) -> list[str]:
    """The approvals whose voters' roles are read once more before anything runs (rule 5)."""
    return [one.approval_id for one in _approved(groups) if one.recheck and BREAK_GLASS not in one.flags]


def _approved(groups: Groups) -> Iterable[Decided]:
    return (
        one
        for ones in groups.values()
        for one in ones
        if one.settled.ask_kind is Kind.APPROVAL and one.settled.verdict == "approve"
    )


def resume_value(decided: Sequence[Decided], asked: Interrupt) -> object:
    """What to resume `asked` with. Refuses what is no longer what was decided on."""
    if not pause.same_payload(asked.value, decided[0].payload):
        raise _moved(decided)
    return write(decided[0].dialect, [one.settled for one in decided])


def moved(groups: Groups, standing: Standing) -> Groups:
    """The decisions, when an interrupt of theirs is gone although no task has taken any: the thread was changed from
    outside. None otherwise.
    """
    made = {key: ones for key, ones in groups.items() if not key.startswith(pause.BREAKPOINT)}
    return {} if standing.taken or made.keys() <= standing.interrupts.keys() else made


def check_ahead(groups: Groups, coming: Sequence[str]) -> None:
    """Refuse decisions that lapsed, answers (nothing tells whether a question that reads the same is the same), and a
    thread that would run any other nodes next than those decided about: what is only tried must not have effects.
    """
    nodes = {one.node for ones in groups.values() for one in ones}
    for ones in groups.values():
        if nodes != set(coming) or ones[0].settled.ask_kind is Kind.QUESTION:
            raise _moved(ones)


def found_again(groups: Groups, interrupts: Sequence[Interrupt]) -> dict[str, Sequence[Decided]]:
    """The decisions by the interrupts that ask for the same now. DigestMismatch when one finds none."""
    found: dict[str, Sequence[Decided]] = {}
    for key, ones in groups.items():
        same = [
            one.id for one in interrupts if one.id not in found and pause.same_payload(one.value, ones[0].payload)
        ]  # fmt: skip
        if not same:
            raise _moved(ones)
        found[key if key in same else same[0]] = ones
    return found


def _moved(decided: Sequence[Decided]) -> DigestMismatch:
    detail = (
        "the graph's state changed while the request was pending: it no longer asks what was decided on; nothing ran."
        " Restore the state and retry, or submit it anew"
    )
    return DigestMismatch(detail, approval_id=decided[0].approval_id)
