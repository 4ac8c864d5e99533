"""Assessing risk: rules and triggers over an action; the highest level of everything that matches wins.

Rules are compiled once, when the files are loaded. Assessing is pure, takes microseconds and may be done from any
thread. A rule that cannot be evaluated counts as matched at critical, so a mistake can delay work but never wave it
through.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from pydantic import Field

from orchestrator.core.cel import Condition, ExpressionError, Facts, Predicate, facts_of
from orchestrator.core.documents import Document, DocumentModel, Duration, ModelT, OneOrMany, parse
from orchestrator.core.errors import InvalidDocument
from orchestrator.core.gates import GraphEntry, NodeGate, gates_of
from orchestrator.core.model import Action, Assessment, Level, Reason, Requester

ASKED = "asked-by-the-graph"
DEFAULT_ESCALATION = timedelta(minutes=30)


class LevelEntry(DocumentModel):
    """What a level means when no policy says otherwise; `risk_levels.<level>` in the rules file.

    `approvers` are roles, of which one person must hold any. `escalate_after` counts from the request, `request_ttl`
    too; `approval_ttl` counts from the approval.
    """

    auto_approve: bool = False
    notify: bool = True
    approvers: tuple[str, ...] = ()
    escalate_after: Duration = DEFAULT_ESCALATION
    require_justification: bool = False
    request_ttl: Duration = timedelta(hours=24)
    approval_ttl: Duration = timedelta(hours=1)


class LevelsEntry(DocumentModel):
    """`risk_levels` as written: all four, so that nothing is decided by an omission."""

    low: LevelEntry
    medium: LevelEntry
    high: LevelEntry
    critical: LevelEntry


class RuleEntry(DocumentModel):
    """One of `rules` as written: when `when` holds, the risk is at least `level`, or the action is forbidden."""

    name: str = Field(min_length=1, max_length=100)
    when: Condition
    level: Level | None = None
    forbid: bool = False
    reason: str = ""


class TriggerEntry(DocumentModel):
    """`triggers.<name>` as written.

    It matches an action whose operation is the trigger's name, and any action for which everything it lists holds:
    one of `operation` (names, `*` stands for anything), one of `environment`, and `when`. Case, spaces, dots and
    hyphens make no difference in names.
    """

    level: Level
    operation: OneOrMany = ()
    environment: OneOrMany = ()
    when: Condition | None = None
    reason: str = ""


class RiskFile(DocumentModel):
    """The whole of `risk-assessment-rules.yaml`."""

    risk_levels: LevelsEntry
    rules: tuple[RuleEntry, ...] = ()


class TriggersFile(DocumentModel):
    """The whole of `interrupt-triggers.yaml`."""

    triggers: dict[str, TriggerEntry] = Field(default_factory=dict[str, TriggerEntry])
    graphs: dict[str, GraphEntry] = Field(default_factory=dict[str, GraphEntry])


@dataclass(frozen=True, slots=True)
class _Names:
    """An action's names, folded once for all triggers."""

    operation: str
    environment: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled rule."""

    name: str
    level: Level
    forbid: bool
    text: str
    when: Predicate

    def matches(self, _names: _Names, facts: Facts) -> bool:
        """Whether the rule holds. Raises ExpressionError when that cannot be said."""
        return self.when.matches(facts)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A compiled trigger. `operation` and `environment` match folded names; None takes any."""

    name: str
    folded_name: str
    level: Level
    text: str
    operation: re.Pattern[str] | None
    environment: re.Pattern[str] | None
    when: Predicate | None
    forbid: bool = False

    def matches(self, names: _Names, facts: Facts) -> bool:
        """Whether the trigger holds. Raises ExpressionError when that cannot be said."""
        if names.operation == self.folded_name:
            return True
        if not (self.operation or self.environment or self.when):
            return False
        return (
            (self.operation is None or bool(self.operation.fullmatch(names.operation)))
            and (self.environment is None or bool(self.environment.fullmatch(names.environment)))
            and (self.when is None or self.when.matches(facts))
        )


@dataclass(frozen=True, slots=True)
class RiskRules:
    """Levels, rules, triggers and gates of one pair of files; `version` is a hash of their text."""

    levels: Mapping[Level, LevelEntry]
    rules: tuple[Rule, ...]
    triggers: tuple[Trigger, ...]
    gates: Mapping[str, Mapping[str, NodeGate]]
    version: str

    @property
    def roles(self) -> frozenset[str]:
        """Every role that decides some level."""
        return frozenset(role for entry in self.levels.values() for role in entry.approvers)

    @classmethod
    def load(cls, risk_text: str, triggers_text: str, files: tuple[str, str]) -> RiskRules:
        """The rules of the two files, compiled. `files` are their names for messages.

        Raises InvalidDocument with every mistake of both files.
        """
        problems: list[str] = []
        risk = _read(risk_text, files[0], RiskFile, problems)
        triggers = _read(triggers_text, files[1], TriggersFile, problems)
        if risk:
            problems += _risk_problems(*risk)
        if triggers:
            problems += _trigger_problems(*triggers)
        if risk is None or triggers is None or problems:
            raise InvalidDocument(tuple(problems))
        return cls(
            levels={level: getattr(risk[1].risk_levels, level.value) for level in Level},
            rules=tuple(_rule(entry) for entry in risk[1].rules),
            triggers=tuple(_trigger(name, entry) for name, entry in triggers[1].triggers.items()),
            gates=gates_of(triggers[1].graphs),
            version=hashlib.sha256(f"{risk_text}\0{triggers_text}".encode()).hexdigest()[:12],
        )

    def assess(
        self,
        action: Action,
        requester: Requester,
        workflow: Mapping[str, object],
        confidence: float | None,
        asked: Level | None = None,
    ) -> Assessment:
        """The risk of `action`, with a reason for every rule and trigger that matched.

        `confidence` is 0 to 100, NaN counts as 0, and None means that none applies (a person or a pipeline asks).
        `asked` is the level the graph itself asks for: it can raise the result, never lower it. Never raises: what
        cannot be judged is critical.
        """
        return self.judge(action, facts_of(action, requester, workflow, confidence), asked)

    def judge(self, action: Action, facts: Facts, asked: Level | None = None) -> Assessment:
        """The same for a caller who needs `facts` of the action again, as a policy book does."""
        found = list(self._matches(_Names(folded(action.operation), folded(action.environment)), facts))
        reasons = [reason for reason, _ in found]
        if asked is not None and asked is not Level.LOW:
            reasons.append(Reason(ASKED, asked, f"The graph asks for at least {asked.value}."))
        forbidden = next((reason.rule for reason, forbids in found if forbids), None)
        return Assessment(Level.highest([reason.level for reason in reasons]), tuple(reasons), forbidden)

    def _matches(self, names: _Names, facts: Facts) -> Iterator[tuple[Reason, bool]]:
        """The reason for each match, and whether it forbids the action."""
        for entry in (*self.rules, *self.triggers):
            try:
                if entry.matches(names, facts):
                    yield Reason(entry.name, entry.level, entry.text), entry.forbid
            except ExpressionError as error:
                text = f"{entry.name} could not be evaluated, so it counts as critical: {error}"
                yield Reason(entry.name, Level.CRITICAL, text), False


def folded(name: str) -> str:
    """A name as triggers compare it: lower case, with one underscore for spaces, dots, slashes and hyphens."""
    return re.sub(r"[\s._/\-]+", "_", name.strip().casefold())


def _pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    """One expression for names in which `*` stands for anything."""
    parts = (".*".join(re.escape(part) for part in folded(name).split("*")) for name in names)
    return re.compile("|".join(f"(?:{part})" for part in parts), re.DOTALL) if names else None


def _rule(entry: RuleEntry) -> Rule:
    text = entry.reason or f"Rule {entry.name} matched."
    return Rule(entry.name, entry.level or Level.CRITICAL, entry.forbid, text, entry.when)


def _trigger(name: str, entry: TriggerEntry) -> Trigger:
    text = entry.reason or f"Trigger {name} matched."
    return Trigger(
        name, folded(name), entry.level, text, _pattern(entry.operation), _pattern(entry.environment), entry.when
    )


def _read(text: str, file: str, model: type[ModelT], problems: list[str]) -> tuple[Document, ModelT] | None:
    """The document and its model; None, with its mistakes added to `problems`, when it is wrong."""
    try:
        document = parse(text, file)
        return document, document.validate(model)
    except InvalidDocument as error:
        problems += error.problems
        return None


def _risk_problems(document: Document, file: RiskFile) -> Iterator[str]:
    """What the model alone cannot see."""
    for level in Level:
        entry: LevelEntry = getattr(file.risk_levels, level.value)
        yield from (document.problem(("risk_levels", level.value), what) for what in _level_problems(level, entry))
    seen: set[str] = set()
    for index, rule in enumerate(file.rules):
        if rule.name in seen:
            yield document.problem(("rules", index, "name"), f"the name {rule.name} is used by an earlier rule")
        seen.add(rule.name)
        if rule.forbid is (rule.level is not None):
            yield document.problem(("rules", index), "must have either `level: <risk level>` or `forbid: true`")


def _level_problems(level: Level, entry: LevelEntry) -> Iterator[str]:
    if level is Level.CRITICAL and entry.auto_approve:
        yield "critical is never approved automatically; allowed: auto_approve: false"
    if not entry.approvers and (not entry.auto_approve or level is Level.CRITICAL):
        yield "nobody could approve this level; name at least one role in `approvers`"
    if any(not role.strip() for role in entry.approvers):
        yield "a role in `approvers` is blank"
    if entry.escalate_after >= entry.request_ttl:
        yield "`escalate_after` must be shorter than `request_ttl`, or it never happens"


def _trigger_problems(document: Document, file: TriggersFile) -> Iterator[str]:
    for name, entry in file.triggers.items():
        for key in ("operation", "environment"):
            if any(not pattern.strip() for pattern in getattr(entry, key)):
                yield document.problem(("triggers", name, key), "is blank; allowed: a name, `*` stands for anything")
