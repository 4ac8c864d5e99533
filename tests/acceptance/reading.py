"""Scenario files into values. FORMAT.md is the description; what it does not know is refused, naming file and place.

Texts that only explain (`property`, `assumptions`, notes) are let through; nothing else is skipped over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import yaml

from tests.acceptance.malformed import MalformedError
from tests.acceptance.times import ANY, at, instant, span

Body = Mapping[str, object]

VERBS = {
    "submit": {"req", "policy", "payload", "by", "on_behalf_of", "launched_by", "key", "justification", "risk",
               "confidence", "adjust", "editable", "dialect", "on_reject"},
    "vote": {"req", "by", "decision", "acting_for", "revision", "key", "justification", "digest", "via"},
    "edit": {"req", "by", "payload", "revision", "key", "justification", "via"},
    "execute": {"req", "payload"},
    "withdraw": {"req", "by", "key", "reason", "justification"},
    "break_glass": {"req", "by", "justification", "key"},
    "link": {"link", "req", "person", "decision", "ttl", "by"},
    "link_get": {"link", "by", "times"},
    "link_post": {"link", "by", "times"},
    "policy_publish": {"policy", "version", "body"},
    "role_add": {"person", "role"},
    "role_remove": {"person", "role"},
    "tick": {"req"},
    "assert": {"req"},
    # Our own, described below the heading of FORMAT.md.
    "batch": {"by", "decisions"},
    "review": {"req", "by", "note"},
    "delegate": {"by", "from", "to", "start", "end", "name"},
    "undelegate": {"by", "name"},
    "simulate": {"policy", "body", "by"},
    "explain": {"req", "person", "by"},
}  # fmt: skip
NEEDED = {
    "submit": {"req", "by"}, "vote": {"req", "by", "decision"}, "edit": {"req", "by", "payload"}, "execute": {"req"},
    "withdraw": {"req", "by"}, "break_glass": {"req", "by"}, "link": {"link", "req", "person", "decision"},
    "link_get": {"link"}, "link_post": {"link"}, "policy_publish": {"policy"}, "role_add": {"person", "role"},
    "role_remove": {"person", "role"}, "assert": {"req"}, "batch": {"by", "decisions"}, "review": {"req", "by"},
    "delegate": {"from", "to", "start", "end"}, "undelegate": {"name"}, "simulate": {"policy", "body"},
    "explain": {"req"},
}  # fmt: skip
POLICY_KEYS = {
    "stages", "risk", "deny_threshold", "request_ttl", "approval_ttl", "timeout_action", "escalate_after",
    "escalate_to", "escalation_mode", "role_recheck", "fallback_role", "freeze", "break_glass", "justification",
    "volatile_fields", "reminders",
}  # fmt: skip
FINAL_KEYS = {
    "state", "filled", "void", "dissent", "reason", "policy_versions", "flags", "bypassed", "outbox", "events",
    "resumed_with", "ran", "revision", "risk", "status",
}  # fmt: skip
_SCENARIO_KEYS = {
    "id", "title", "policies", "policy_by_environment", "volatile_fields", "delegations", "links", "routing", "t0",
    "steps", "final", "directory", "defaults",
}  # fmt: skip
_EXPLAINING = {
    "property", "properties", "assumptions", "note", "notes", "why", "comment", "description", "rule", "rules",
    "covers", "tags",
}  # fmt: skip
# Rules that hold always here, as the files' conventions say; a file that wants them otherwise cannot be played.
_FIXED = {"distinct_persons": True, "on_policy_change": "stricter_wins"}


@dataclass(frozen=True)
class Step:
    """One step: when, which verb, its fields, and what to expect of it."""

    number: int
    offset: timedelta
    do: str
    fields: Body
    expect: Body

    def __str__(self) -> str:
        return f"step {self.number} ({self.do} at {self.offset})"

    def text(self, name: str) -> str:
        return str(self.fields[name])

    def maybe(self, name: str) -> str | None:
        value = self.fields.get(name)
        return None if value is None else str(value)


@dataclass(frozen=True)
class Link:
    """A link in a message: for whom, on which request, deciding what, and for how long it is good."""

    req: str
    person: str
    decision: str
    ttl: timedelta


@dataclass(frozen=True)
class Delegation:
    """Somebody who acts for somebody else for a while."""

    person: str
    to: str
    starts: datetime
    ends: datetime


@dataclass(frozen=True)
class Scenario:
    """One scenario, whole."""

    file: str
    id: str
    title: str
    t0: datetime
    directory: Mapping[str, Sequence[str]]
    policies: Mapping[str, Mapping[int, Body]]
    policy_by_environment: Mapping[str, str]
    volatile_fields: Sequence[str]
    delegations: Sequence[Delegation]
    links: Mapping[str, Link]
    routing: Sequence[Body]
    steps: Sequence[Step]
    final: Mapping[str, Body]
    defaults: Body = field(default_factory=dict[str, object])

    def __str__(self) -> str:
        return f"{self.id}-{Path(self.file).stem}"


def read_folder(folder: Path) -> list[Path]:
    """The scenario files of a folder. MalformedError when there are none: nothing played is nothing passed."""
    files = sorted(path for path in folder.glob("*.y*ml") if path.suffix in {".yaml", ".yml"})
    if not files:
        raise MalformedError(f"{folder}: has no *.yaml file to play")
    return files


def read_file(file: Path) -> list[Scenario]:
    """Every scenario of one file. MalformedError names the file, the scenario and the place."""
    try:
        document: object = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MalformedError(f"{file.name}: cannot be read: {' '.join(str(error).split())}") from error
    try:
        return _scenarios(file.name, document)
    except MalformedError as error:
        raise MalformedError(f"{file.name}: {error}") from error


def _scenarios(name: str, document: object) -> list[Scenario]:
    body = mapping(document, "the file")
    listed = body.get("scenarios")
    if isinstance(listed, Mapping):
        listed = [
            {"id": key, **mapping(value, str(key))} for key, value in cast("Mapping[str, object]", listed).items()
        ]
    entries = sequence(listed, "scenarios")
    if not entries:
        raise MalformedError("`scenarios` is empty")
    found = [_scenario(name, body, mapping(entry, f"scenarios[{n}]"), n) for n, entry in enumerate(entries)]
    ids = [one.id for one in found]
    if twice := sorted({one for one in ids if ids.count(one) > 1}):
        raise MalformedError(f"the id {', '.join(twice)} is used twice")
    return found


def _scenario(file: str, whole: Body, entry: Body, number: int) -> Scenario:
    if "id" not in entry:
        raise MalformedError(f"scenarios[{number}] has no `id`")
    name = str(entry["id"])
    _known(entry, _SCENARIO_KEYS, name)
    if "steps" not in entry and "routing" not in entry:
        raise MalformedError(f"{name}: has neither `steps` nor `routing`: nothing would be played")
    t0 = _t0(entry.get("t0", whole.get("t0")), name)
    directory = {
        **mapping(whole.get("directory"), "directory"),
        **mapping(entry.get("directory"), f"{name}: directory"),
    }
    scenario = Scenario(
        file=file,
        id=name,
        title=str(entry.get("title", "")),
        t0=t0,
        directory={str(person): texts(roles) for person, roles in directory.items()},
        policies=_policies(entry.get("policies"), name),
        policy_by_environment={
            str(key): str(value)
            for key, value in mapping(entry.get("policy_by_environment"), f"{name}: policy_by_environment").items()
        },
        volatile_fields=texts(entry.get("volatile_fields")),
        delegations=[
            _delegation(mapping(one, f"{name}: delegations[{n}]"), t0, f"{name}: delegations[{n}]")
            for n, one in enumerate(sequence(entry.get("delegations"), f"{name}: delegations"))
        ],
        links={
            str(key): link_of(mapping(value, f"{name}: links.{key}"), f"{name}: links.{key}")
            for key, value in mapping(entry.get("links"), f"{name}: links").items()
        },
        routing=[_row(mapping(row, f"{name}: routing[{n}]"), f"{name}: routing[{n}]")
                 for n, row in enumerate(sequence(entry.get("routing"), f"{name}: routing"))],
        steps=_steps(entry.get("steps"), name),
        final=_final(entry.get("final"), name),
        defaults=_defaults({**mapping(whole.get("defaults"), "defaults"),
                            **mapping(entry.get("defaults"), f"{name}: defaults")}),
    )  # fmt: skip
    _check_references(scenario)
    return scenario


def _t0(value: object, name: str) -> datetime:
    if value is None:
        return ANY
    found = instant(value, f"{name}: t0")
    if found is None:
        raise MalformedError(f"{name}: t0 is {value!r}; write an absolute time like 2026-06-01T09:00:00Z")
    return found


def _defaults(value: Body) -> Body:
    for key, held in _FIXED.items():
        if value.get(key, held) != held:
            raise MalformedError(f"defaults: {key} is always {held!r} here, not {value[key]!r}")
    return {key: held for key, held in value.items() if key not in _FIXED}


def _policies(value: object, name: str) -> Mapping[str, Mapping[int, Body]]:
    found: dict[str, dict[int, Body]] = {}
    for policy, versions in mapping(value, f"{name}: policies").items():
        place = f"{name}: policies.{policy}"
        bodies = mapping(versions, place)
        if "stages" in bodies:  # without versions: it is the first one
            bodies = {"1": bodies}
        found[str(policy)] = {}
        for version, body in bodies.items():
            number = version_of(version, place)
            found[str(policy)][number] = policy_body(mapping(body, f"{place}.{version}"), f"{place}.{version}")
        if not found[str(policy)]:
            raise MalformedError(f"{place}: has no version")
    return found


def version_of(value: object, place: str) -> int:
    try:
        return int(str(value).lstrip("v"))
    except ValueError as error:
        raise MalformedError(f"{place}: the version {value!r} is no whole number") from error


def policy_body(body: Body, place: str) -> Body:
    _known(body, POLICY_KEYS, place)
    return body


def link_of(value: Body, place: str) -> Link:
    for key in ("req", "person", "decision"):
        if key not in value:
            raise MalformedError(f"{place}: has no `{key}`")
    return Link(str(value["req"]), str(value["person"]), str(value["decision"]), span(value.get("ttl", "1h"), place))


def _delegation(value: Body, t0: datetime, place: str) -> Delegation:
    for key in ("from", "to"):
        if key not in value:
            raise MalformedError(f"{place}: has no `{key}`")
    start, end = value.get("start", "0m"), value.get("end", "52w")
    return Delegation(str(value["from"]), str(value["to"]), at(start, t0, place), at(end, t0, place))


def _row(value: Body, place: str) -> Body:
    row_in, row_out = mapping(value.get("in"), f"{place}.in"), mapping(value.get("out"), f"{place}.out")
    _known(row_in, {"risks", "confidence", "adjust", "rule_error", "freeze", "forbid"}, f"{place}.in")
    _known(row_out, {"route", "urgent", "due_h", "score", "risk"}, f"{place}.out")
    if not row_out:
        raise MalformedError(f"{place}: has no `out`")
    return {"in": row_in, "out": row_out}


def _steps(value: object, name: str) -> list[Step]:
    steps: list[Step] = []
    for number, entry in enumerate(sequence(value, f"{name}: steps"), start=1):
        place = f"{name}: step {number}"
        body = mapping(entry, place)
        do = str(body.get("do", ""))
        if do not in VERBS:
            raise MalformedError(f"{place}: `do` is {do!r}; known are {', '.join(VERBS)}")
        fields = {key: item for key, item in body.items() if key not in {"t", "do", "expect"}}
        _known(fields, VERBS[do] | {"by"}, place)
        if missing := NEEDED.get(do, set()) - fields.keys():
            raise MalformedError(f"{place}: {do} needs `{'`, `'.join(sorted(missing))}`")
        offset = span(body["t"], place) if "t" in body else steps[-1].offset if steps else timedelta(0)
        if steps and offset < steps[-1].offset:
            raise MalformedError(f"{place}: is at {body['t']}, before the step above it")
        steps.append(Step(number, offset, do, fields, mapping(body.get("expect"), f"{place}: expect")))
    return steps


def _final(value: object, name: str) -> Mapping[str, Body]:
    final = {str(req): mapping(item, f"{name}: final.{req}") for req, item in mapping(value, f"{name}: final").items()}
    for req, item in final.items():
        _known(item, FINAL_KEYS, f"{name}: final.{req}", texts_pass=False)
    return final


def _check_references(scenario: Scenario) -> None:
    """Names that nothing stands behind would otherwise fail far away, as something else."""
    made = {str(step.fields["req"]) for step in scenario.steps if step.do == "submit"}
    named = set(scenario.policies) | {str(s.fields["policy"]) for s in scenario.steps if s.do == "policy_publish"}
    links = set(scenario.links) | {str(step.fields["link"]) for step in scenario.steps if step.do == "link"}
    for step in scenario.steps:
        place = f"{scenario.id}: step {step.number}"
        if step.fields.get("req") is not None and str(step.fields["req"]) not in made:
            raise MalformedError(f"{place}: no step submits {step.fields['req']!r}")
        if step.do == "submit" and step.fields.get("policy") is not None and str(step.fields["policy"]) not in named:
            raise MalformedError(f"{place}: there is no policy {step.fields['policy']!r}")
        if step.do.startswith("link_") and str(step.fields["link"]) not in links:
            raise MalformedError(f"{place}: there is no link {step.fields['link']!r}")
    for req in (*scenario.final, *(link.req for link in scenario.links.values())):
        if req not in made:
            raise MalformedError(f"{scenario.id}: no step submits {req!r}")
    for policy in scenario.policy_by_environment.values():
        if policy not in named:
            raise MalformedError(f"{scenario.id}: policy_by_environment: there is no policy {policy!r}")


def _known(body: Body, known: set[str], place: str, *, texts_pass: bool = True) -> None:
    """Refuse keys that nothing looks at, unless they are plain texts of explanation."""
    for key, value in body.items():
        explains = isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))
        if key not in known and not (texts_pass and explains and key in _EXPLAINING):
            raise MalformedError(f"{place}: `{key}` is not known; known are {', '.join(sorted(known))}")


def mapping(value: object, place: str) -> dict[str, object]:
    """`value` as a mapping with text keys; nothing given is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise MalformedError(f"{place}: is {type(value).__name__}, not a mapping")
    return {str(key): item for key, item in cast("Mapping[object, object]", value).items()}


def sequence(value: object, place: str) -> list[object]:
    """`value` as a list; nothing given is an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedError(f"{place}: is {type(value).__name__}, not a list")
    return cast("list[object]", value)


def texts(value: object) -> list[str]:
    """One text or a list of them, as a list."""
    if value is None:
        return []
    return [str(one) for one in cast("list[object]", value)] if isinstance(value, list) else [str(value)]
