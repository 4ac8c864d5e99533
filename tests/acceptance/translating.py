"""Scenarios into what Keyturn reads: one policy file, one pair of risk files, actions.

A request names its policy in the workflow's title (and, where it has no payload of its own, in the action's metadata),
so that the payload stays what the scenario says and its digest can be compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import yaml

from orchestrator.core.actions import ACTION_FIELDS, action_from
from orchestrator.core.errors import InvalidInput
from tests.acceptance.malformed import MalformedError
from tests.acceptance.reading import Body, Scenario, mapping, sequence, texts
from tests.acceptance.times import at, span

# The scenarios' own people never decide what no policy is about.
OFFICER, OFFICERS = "officer", "officer"
LEVELS = ("low", "medium", "high", "critical")
ANYWHERE = {"*", "default", "any", "else", "other", "others"}
_VERDICTS = {"approve": "approve", "deny": "reject", "reject": "reject"}
_TIMEOUTS = {"expire": "expire", "deny": "reject", "reject": "reject", "escalate": "escalate", "approve": "approve"}
_ON_DECISION = {"true", "required", "require", "decision", "approve", "always", "yes", "vote"}
_NEVER = {"", "false", "none", "no", "optional", "deny", "reject"}


def person_name(name: str) -> str:
    """A scenario's person as Keyturn writes one: `agent:deploybot` is `agent.deploybot`."""
    return re.sub(r"[^A-Za-z0-9._@+-]", ".", name)


def role_name(name: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "_", name.casefold())


def verdict_of(decision: object, place: str) -> str:
    found = _VERDICTS.get(str(decision))
    if found is None:
        raise MalformedError(f"{place}: the decision {decision!r} is none of {', '.join(_VERDICTS)}")
    return found


# Actions


def is_action(payload: Body) -> bool:
    """Whether a payload can stand as the action itself: it has an operation and no field an action has not."""
    if "operation" not in payload or not payload.keys() <= set(ACTION_FIELDS):
        return False
    try:
        action_from(payload)
    except InvalidInput:
        return False
    return True


def wraps(scenario: Scenario) -> bool:
    """Whether the scenario's payloads must be wrapped: one that is no action by itself wraps them all."""
    given = [mapping(step.fields["payload"], str(step)) for step in scenario.steps if "payload" in step.fields]
    return not all(is_action(payload) for payload in given)


def action_of(payload: Body | None, policy: str | None = None, *, wrap: bool = False) -> dict[str, object]:
    """The action that a scenario's payload stands for; without one, an action that only names its policy."""
    if payload is None:
        return {"operation": "run", "metadata": {"policy": policy} if policy else {}}
    if not wrap:
        return dict(payload)
    environment = payload.get("environment", payload.get("env"))
    return {
        "operation": "run",
        "environment": environment if isinstance(environment, str) else "",
        "arguments": dict(payload),
    }


def whole(action: Body) -> dict[str, object]:
    """The action with every field, as it is digested."""
    return action_from(action).to_json()


# The policy file


def policy_file(scenario: Scenario, in_force: Mapping[str, tuple[int, Body]]) -> str:
    """The whole file, with the version of each policy that is in force."""
    entries = [_policy(scenario, name, *held) for name, held in in_force.items()]
    return dump({"roles": sorted(_roles(entries)), "policies": entries})


def _roles(entries: Sequence[Body]) -> set[str]:
    """Every role the policies name: a role is declared before it is used."""
    found: set[str] = set()
    for entry in entries:
        for stage in cast("list[list[dict[str, Any]]]", entry["stages"]):
            for slot in stage:
                found |= {slot["role"]} if "role" in slot else set(slot["any_of"])
        escalation, glass = cast("dict[str, Any]", entry.get("escalation", {})), entry.get("break_glass")
        found |= set(escalation.get("to", ()))
        found |= {str(cast("dict[str, Any]", glass)["role"])} if glass else set()
        found |= {str(entry["fallback_role"])} if "fallback_role" in entry else set()
    return found


def dump(value: object) -> str:
    """YAML without aliases, which Keyturn refuses."""
    return yaml.dump(value, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=1000)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def match(scenario: Scenario, policy: str) -> str:
    """Which requests a policy is for: those that name it, and by their environment those that name none."""
    quoted = json.dumps(policy)
    named = f"workflow.title == {quoted} || (has(action.metadata.policy) && action.metadata.policy == {quoted})"
    mine = [env for env, name in scenario.policy_by_environment.items() if name == policy]
    if not mine:
        return named
    listed = [env for env in scenario.policy_by_environment if env not in ANYWHERE]
    here = [f"action.environment == {json.dumps(env)}" for env in mine if env not in ANYWHERE]
    if any(env in ANYWHERE for env in mine):
        here.append(f"!(action.environment in {json.dumps(listed)})")
    return f"{named} || (workflow.title == '' && ({' || '.join(here)}))"


def _policy(scenario: Scenario, name: str, version: int, written: Body) -> dict[str, object]:
    place = f"{scenario.id}: policies.{name}.{version}"
    body = {**scenario.defaults, **written}
    found: dict[str, object] = {
        "name": re.sub(r"[^A-Za-z0-9_.-]", "_", name),
        "version": version,
        "match": match(scenario, name),
        "stages": [[_slot(slot, place) for slot in _stage(stage)] for stage in sequence(body.get("stages"), place)],
        "deny_threshold": body.get("deny_threshold", 1),
        "request_ttl": _duration(body.get("request_ttl", "24h"), place),
        "approval_ttl": _duration(body.get("approval_ttl", "1h"), place),
        "on_timeout": _one_of(body.get("timeout_action", "expire"), _TIMEOUTS, f"{place}.timeout_action"),
        "require_justification": _justification(body.get("justification"), place),
        "recheck": texts(body.get("role_recheck", ["at_quorum"])),
        "volatile_fields": _volatile(scenario, body),
    }
    if found["on_timeout"] == "approve":
        found["levels"] = ["low"]
    if escalation := _escalation(body, place):
        found["escalation"] = escalation
    if body.get("reminders"):
        found["reminders"] = [_duration(one, place) for one in texts(body["reminders"])]
    if body.get("fallback_role") is not None:
        found["fallback_role"] = role_name(str(body["fallback_role"]))
    if body.get("freeze"):
        given = body["freeze"]
        windows = cast("list[object]", given) if isinstance(given, list) else [given]
        found["freeze"] = [_freeze(mapping(one, f"{place}.freeze"), scenario.t0, place) for one in windows]
    if glass := mapping(body.get("break_glass"), f"{place}.break_glass"):
        within = _duration(glass.get("review_within", "24h"), place)
        found["break_glass"] = {"role": role_name(str(glass["role"])), "review_within": within}
    return found


def _stage(stage: object) -> list[object]:
    return cast("list[object]", stage) if isinstance(stage, list) else [stage]


def _slot(slot: object, place: str) -> dict[str, object]:
    """`{role, n}`, `{any_of, count}` or just the role."""
    if isinstance(slot, str):
        return {"role": role_name(slot), "count": 1}
    body = mapping(slot, f"{place}.stages")
    count = body.get("n", body.get("count", 1))
    roles = texts(body.get("any_of", body.get("role", body.get("roles"))))
    if not roles:
        raise MalformedError(f"{place}.stages: a slot names no role: {slot!r}")
    named = {"role": role_name(roles[0])} if len(roles) == 1 else {"any_of": [role_name(role) for role in roles]}
    return {**named, "count": count}


def _escalation(body: Body, place: str) -> dict[str, object]:
    found: dict[str, object] = {}
    after = body.get("escalate_after")
    # With the time-out or later it is the time-out that escalates.
    if after is not None and span(after, place) < span(body.get("request_ttl", "24h"), place):
        found["after"] = _duration(after, place)
    if body.get("escalate_to") is not None:
        found["to"] = [role_name(role) for role in texts(body["escalate_to"])]
    if found or body.get("timeout_action") == "escalate":
        found["mode"] = str(body.get("escalation_mode", "add"))
    return found


def _freeze(window: Body, t0: datetime, place: str) -> dict[str, object]:
    if not {"start", "end"} <= window.keys():
        raise MalformedError(f"{place}.freeze: needs `start` and `end`")
    starts, ends = at(window["start"], t0, place), at(window["end"], t0, place)
    return {"from": starts.astimezone(UTC).isoformat(), "to": ends.astimezone(UTC).isoformat()}


def _justification(value: object, place: str) -> str:
    text = str(value if value is not None else "").casefold()
    if text in _NEVER:
        return "none"
    if text in _ON_DECISION:
        return "decision"
    if text in {"request", "both"}:
        return text
    raise MalformedError(f"{place}.justification: {value!r}; known are required, none, decision, request, both")


def needs_justification(body: Body) -> bool:
    """Whether deciding under a policy body needs a reason."""
    return _justification(body.get("justification"), "policy") in {"decision", "both"}


def asks_requester(body: Body) -> bool:
    """Whether asking under a policy body needs a reason."""
    return _justification(body.get("justification"), "policy") in {"request", "both"}


def _volatile(scenario: Scenario, body: Body) -> list[str]:
    """Volatile fields of a payload that is wrapped are the wrapping action's arguments."""
    fields = list(dict.fromkeys((*texts(body.get("volatile_fields")), *scenario.volatile_fields)))
    return [f"arguments.{field}" for field in fields] if wraps(scenario) else fields


def _one_of(value: object, known: Mapping[str, str], place: str) -> str:
    found = known.get(str(value))
    if found is None:
        raise MalformedError(f"{place}: {value!r}; known are {', '.join(known)}")
    return found


def _duration(value: object, place: str) -> str:
    seconds = span(value, place).total_seconds()
    return f"{seconds:g}s" if seconds != int(seconds) else f"{int(seconds)}s"


# The risk files


def write_config(scenario: Scenario, folder: Path) -> Path:
    """A configuration folder with the risk rules that the scenario needs."""
    hitl = folder / "hitl"
    hitl.mkdir(parents=True)
    (hitl / "risk-assessment-rules.yaml").write_text(dump(_risk_file(scenario)), encoding="utf-8")
    (hitl / "interrupt-triggers.yaml").write_text(dump({"triggers": {}}), encoding="utf-8")
    return folder


def _risk_file(scenario: Scenario) -> dict[str, object]:
    # What a policy does not say escalates and expires only when nobody looks any more.
    never = {"request_ttl": "365d", "escalate_after": "364d"}
    levels: dict[str, dict[str, object]] = {level: {"approvers": [OFFICERS], **never} for level in LEVELS}
    levels["low"] = {"auto_approve": True, "notify": False, "approvers": [OFFICERS], **never}
    return {"risk_levels": levels, "rules": [*_policy_risks(scenario), *_routing_rules()]}


def _policy_risks(scenario: Scenario) -> Sequence[dict[str, object]]:
    """A policy's `risk` is that of the requests it is for: what an edit moves to another policy is judged by that."""
    rules: list[dict[str, object]] = []
    for name, versions in scenario.policies.items():
        risk = next((str(body["risk"]) for body in versions.values() if body.get("risk")), "low")
        if risk != "low":
            rules.append({"name": f"policy {name}", "when": match(scenario, name), "level": risk})
    return rules


def _routing_rules() -> Sequence[dict[str, object]]:
    """What a routing row says of the matching rules, as an action can say it."""
    given = "has(action.metadata.risks) && '{level}' in action.metadata.risks"
    rules: list[dict[str, object]] = [
        {"name": f"routing {level}", "when": given.format(level=level), "level": level} for level in LEVELS
    ]
    broken = "has(action.metadata.rule_error) && action.metadata.rule_error.nothing.there > 1"
    rules.append({"name": "routing error", "when": broken, "level": "low"})
    rules.append({"name": "routing forbid", "when": "has(action.metadata.forbid)", "forbid": True})
    return rules


def adjustments(value: object) -> list[dict[str, object]]:
    """Points, as numbers or named, as a gate's payload carries them."""
    found: list[dict[str, object]] = []
    for number, one in enumerate(sequence(value, "adjust"), start=1):
        named = mapping(one, "adjust") if isinstance(one, Mapping) else {"points": one}
        found.append({"name": str(named.get("name", f"adjustment {number}")), "points": named["points"]})
    return found


def volatile_of(scenario: Scenario, body: Body) -> list[str]:
    """The volatile fields that a policy body declares, as paths within the action."""
    return _volatile(scenario, {**scenario.defaults, **body})
