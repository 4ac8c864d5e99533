"""The approval policies as written in `approval-policies.yaml`, and the book that picks one for a request.

A file is refused with every mistake named by file, line and path. What a policy asks for is worked out in `policy`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal, TypeAlias, cast

from pydantic import Field

from orchestrator.core.canonical import canonical_json
from orchestrator.core.cel import ExpressionError, Facts, PolicyCondition
from orchestrator.core.documents import DocumentModel, Duration, parse, path_text
from orchestrator.core.errors import InvalidDocument
from orchestrator.core.freeze_file import FreezeEntry, freeze_of, freeze_problems
from orchestrator.core.freezes import never_opens
from orchestrator.core.model import Level, Slot
from orchestrator.core.policy import BreakGlass, Justification, Mode, OnTimeout, Policy
from orchestrator.core.yaml_subset import Path

_Problem: TypeAlias = tuple[Path, str]
_DAY = timedelta(hours=24)
# What names the action may not change after its approval.
_FIELD = re.compile(r"estimated_cost|security_findings|metadata|(?:arguments|metadata)(?:\.[^.\s]+)+")
_VOLATILE = "arguments.<name>, metadata, metadata.<name>, estimated_cost or security_findings"
# As a person may hold it.
ROLE = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)
MAX_COUNT = 100


class SlotEntry(DocumentModel):
    """One slot as written: `role` or `any_of`, and how many people."""

    role: str | None = None
    any_of: tuple[str, ...] | None = None
    count: int = Field(default=1, ge=1, le=MAX_COUNT)


class EscalationEntry(DocumentModel):
    """`escalation` as written; what is left out comes from the risk level."""

    after: Duration | None = None
    to: tuple[str, ...] = ()
    mode: Mode = "add"


class BreakGlassEntry(DocumentModel):
    """`break_glass` as written."""

    role: str
    review_within: Duration


class PolicyEntry(DocumentModel):
    """One of `policies` as written."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")
    version: int | None = Field(default=None, ge=1)
    description: str = ""
    levels: tuple[Level, ...] | None = None
    match: PolicyCondition | None = None
    stages: tuple[tuple[SlotEntry, ...], ...] = ()
    deny_threshold: int = Field(default=1, ge=1, le=MAX_COUNT)
    request_ttl: Duration | None = None
    approval_ttl: Duration | None = None
    on_timeout: OnTimeout = "expire"
    escalation: EscalationEntry = EscalationEntry()
    reminders: tuple[Duration, ...] = ()
    require_justification: Justification = "none"
    recheck: tuple[Literal["at_quorum", "at_execution"], ...] = ("at_quorum",)
    volatile_fields: tuple[str, ...] = ()
    freeze: tuple[FreezeEntry, ...] = ()
    break_glass: BreakGlassEntry | None = None
    fallback_role: str | None = None


class PolicyFile(DocumentModel):
    """The whole of `approval-policies.yaml`."""

    roles: tuple[str, ...] = ()
    policies: tuple[PolicyEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyBook:
    """The policies of one file, in its order. `version` counts what was published; 0 is none."""

    version: int = 0
    policies: tuple[Policy, ...] = ()

    @classmethod
    def load(cls, text: str, file: str, level_roles: Collection[str] | None) -> PolicyBook:
        """The book of `text`. `file` is its name for messages; the roles of the risk levels need no declaration, and
        None takes any role.

        Raises InvalidDocument with every mistake.
        """
        document = parse(text, file)
        written = replace(document, value=_without_nothing(document.value)).validate(PolicyFile)
        placed = sorted(
            (document.line(path), document.problem(path, what)) for path, what in _mistakes(written, level_roles)
        )
        if placed:
            raise InvalidDocument(tuple(problem for _, problem in placed))
        return cls(0, tuple(_policy(entry) for entry in written.policies))

    def numbered(self, version: int, versions: Mapping[str, int]) -> PolicyBook:
        """The same book as it was published: with its version and those of its policies."""
        return PolicyBook(version, tuple(replace(one, version=versions[one.name]) for one in self.policies))

    def pick(self, facts: Facts, level: Level) -> Policy | None:
        """The first policy in the file that takes a request of `level`; None where the level's defaults stand.

        A match that cannot be evaluated counts as one: that policy's terms must be met too, beside those of the
        policy (or the level) that would have been taken without it.
        """
        if not self.policies:
            return None
        return self.look(facts, level)[0]

    def look(self, facts: Facts, level: Level) -> tuple[Policy | None, tuple[str, ...]]:
        """What `pick` gives, and a sentence for each match that could not be evaluated."""
        seen = facts.with_risk(level)
        doubtful: list[Policy] = []
        troubles: list[str] = []
        for policy in self.policies:
            try:
                if _takes(policy, seen, level):
                    return replace(policy, beside=tuple(doubtful)), tuple(troubles)
            except ExpressionError as error:
                doubtful.append(policy)
                troubles.append(f"the match of policy {policy.name} could not be evaluated, so its terms hold: {error}")
        if not doubtful:
            return None, ()
        first, *others = doubtful
        return replace(first, beside=(*others, None)), tuple(troubles)


@dataclass(frozen=True, slots=True)
class Written:
    """A policy as it stands in a file: its own version if it states one, a digest of the rest, and where it is."""

    version: int | None
    digest: str
    place: str


def written_policies(text: str, file: str) -> dict[str, Written]:
    """The policies of a file without mistakes, by name: for telling what has changed between two files."""
    document = parse(text, file)
    whole = cast("dict[str, list[dict[str, object]]]", _without_nothing(document.value))
    found: dict[str, Written] = {}
    for index, entry in enumerate(whole.get("policies", [])):
        path = ("policies", index, "version")
        rest = {key: value for key, value in entry.items() if key != "version"}
        digest = hashlib.sha256(canonical_json(rest).encode()).hexdigest()
        place = f"{file}:{document.line(path)}: {path_text(path)}"
        found[str(entry["name"])] = Written(cast("int | None", entry.get("version")), digest, place)
    return found


def _without_nothing(value: object) -> object:
    """A file whose policies are all commented out has no keys, or keys with nothing behind them."""
    if not isinstance(value, dict):
        return {} if value is None else value
    given = cast("dict[str, object]", value)
    return {key: item for key, item in given.items() if item is not None or key not in PolicyFile.model_fields}


def _takes(policy: Policy, seen: Facts, level: Level) -> bool:
    """Whether the policy takes the request. Raises ExpressionError when that cannot be said."""
    if policy.levels and level not in policy.levels:
        return False
    return policy.match is None or policy.match.matches(seen)


def _policy(entry: PolicyEntry) -> Policy:
    glass = entry.break_glass
    return Policy(
        name=entry.name,
        version=entry.version or 1,
        match=entry.match,
        levels=frozenset(entry.levels or ()),
        stages=tuple(tuple(Slot(_roles(slot), slot.count) for slot in stage) for stage in entry.stages),
        deny_threshold=entry.deny_threshold,
        request_ttl=entry.request_ttl,
        approval_ttl=entry.approval_ttl,
        on_timeout=entry.on_timeout,
        escalate_after=entry.escalation.after,
        escalate_to=frozenset(entry.escalation.to),
        escalation_mode=entry.escalation.mode,
        reminders=tuple(sorted(set(entry.reminders))),
        justification=entry.require_justification,
        recheck_at_execution="at_execution" in entry.recheck,
        volatile_fields=entry.volatile_fields,
        freeze=tuple(freeze_of(one) for one in entry.freeze),
        break_glass=BreakGlass(glass.role, glass.review_within) if glass else None,
        fallback_role=entry.fallback_role,
        description=entry.description,
    )


def _roles(slot: SlotEntry) -> frozenset[str]:
    return frozenset(slot.any_of or ()) | frozenset([slot.role] if slot.role else [])


def _mistakes(written: PolicyFile, level_roles: Collection[str] | None) -> Iterator[_Problem]:
    """What the model alone cannot see."""
    for index, role in enumerate(written.roles):
        if not ROLE.fullmatch(role):
            yield ("roles", index), f"{role!r} is no role; allowed: lower-case letters, digits, _ and -"
    known = None if level_roles is None else {*level_roles, *filter(ROLE.fullmatch, written.roles)}
    names: set[str] = set()
    for index, entry in enumerate(written.policies):
        path: Path = ("policies", index)
        if entry.name in names:
            yield (*path, "name"), f"the name {entry.name} is used by an earlier policy"
        names.add(entry.name)
        for part in (_stage_mistakes, _time_mistakes, _field_mistakes):
            yield from (((*path, *inner), what) for inner, what in part(entry))
        for inner, role in _named(entry):
            if known is not None and role not in known:
                yield (*path, *inner), _undefined(role, known)


def _undefined(role: str, known: Collection[str]) -> str:
    return f"the role {role!r} is not declared; allowed: {', '.join(sorted(known))}, or add it to `roles` at the top"


def _named(entry: PolicyEntry) -> Iterator[tuple[Path, str]]:
    """Every role the policy names, and where."""
    for stage, slots in enumerate(entry.stages):
        for number, slot in enumerate(slots):
            path: Path = ("stages", stage, number)
            if slot.role is not None:
                yield (*path, "role"), slot.role
            yield from (((*path, "any_of", index), role) for index, role in enumerate(slot.any_of or ()))
    yield from ((("escalation", "to", index), role) for index, role in enumerate(entry.escalation.to))
    if entry.break_glass:
        yield ("break_glass", "role"), entry.break_glass.role
    if entry.fallback_role is not None:
        yield ("fallback_role",), entry.fallback_role


def _stage_mistakes(entry: PolicyEntry) -> Iterator[_Problem]:
    for stage, slots in enumerate(entry.stages):
        if not slots:
            yield ("stages", stage), "a stage needs at least one slot, such as - {role: team_lead}"
        for number, slot in enumerate(slots):
            if (slot.role is None) is (slot.any_of is None):
                yield ("stages", stage, number), "must have either `role: <role>` or `any_of: [<role>, ...]`"
            elif slot.any_of is not None and not slot.any_of:
                yield ("stages", stage, number, "any_of"), "is empty; allowed: at least one role"


def _time_mistakes(entry: PolicyEntry) -> Iterator[_Problem]:
    ttl = entry.request_ttl or _DAY
    limit = "`request_ttl`" if entry.request_ttl else "`request_ttl`, which is 24h where none is given"
    if entry.escalation.after and entry.escalation.after >= ttl:
        yield ("escalation", "after"), f"never happens; allowed: less than {limit}"
    for index, after in enumerate(entry.reminders):
        if after >= ttl:
            yield ("reminders", index), f"never happens; allowed: less than {limit}"
    if entry.on_timeout == "approve" and (entry.levels is None or set(entry.levels) != {Level.LOW}):
        what = "approve is for low risk alone; add `levels: [low]`, or use expire, reject or escalate"
        yield ("on_timeout",), what
    found = [problem for index, one in enumerate(entry.freeze) for problem in freeze_problems(one, ("freeze", index))]
    yield from found
    if not found and never_opens(map(freeze_of, entry.freeze)):
        yield ("freeze",), "leaves no time of the week in which anything could run"


def _field_mistakes(entry: PolicyEntry) -> Iterator[_Problem]:
    if entry.levels is not None and not entry.levels:
        yield ("levels",), "is empty; allowed: some of low, medium, high and critical, or leave it out for all"
    for index, field in enumerate(entry.volatile_fields):
        if not _FIELD.fullmatch(field):
            yield ("volatile_fields", index), f"{field!r} is no field that may change; allowed: {_VOLATILE}"
