"""Gates before a node: the action they describe, and that a gate which cannot describe it stops the node."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.core.actions import action_from
from orchestrator.core.errors import GateFault, InvalidDocument, InvalidInput
from orchestrator.core.gates import NodeGate
from orchestrator.core.model import Action
from orchestrator.core.risk import RiskRules

LEVELS = (
    "risk_levels: {low: {approvers: [a]}, medium: {approvers: [a]}, high: {approvers: [a]}, critical: {approvers: [a]}}"
)


def load(gate: str) -> RiskRules:
    return RiskRules.load(LEVELS, f"graphs: {{g: {{nodes: {{n: {gate}}}}}}}\n", ("risk.yaml", "triggers.yaml"))


def gate(expression: str, **fields: str) -> NodeGate:
    extra = "".join(f", {key}: {value}" for key, value in fields.items())
    return load(f'{{operation: deploy, action: "{expression}"{extra}}}').gates["g"]["n"]


def test_the_action_is_computed_from_the_state() -> None:
    found = gate(
        "{'target': state.service, 'environment': state.env, 'arguments': {'v': state['v'], 'twice': state.v * 2},"
        " 'estimated_cost': 5, 'metadata': {'tags': state.tags}}"
    ).action_for({"service": "api", "env": "production", "v": 3, "tags": ("x", "y"), "messages": [object()]})
    assert found == Action(
        "deploy", "production", "api", arguments={"v": 3, "twice": 6}, estimated_cost=5.0, metadata={"tags": ["x", "y"]}
    )
    assert isinstance(found.estimated_cost, float)


def test_the_gates_own_operation_and_environment_stand_where_the_expression_names_none() -> None:
    assert load("{operation: deploy}").gates["g"]["n"].action_for({}) == Action("deploy")
    assert gate("{}", environment="production").action_for({}) == Action("deploy", "production")
    both = gate("{'operation': state.op, 'environment': state.env}", environment="production")
    assert both.action_for({"op": "drop", "env": "test"}) == Action("drop", "test")
    assert both.action_for({"op": None, "env": ""}) == Action("deploy", "production")


def test_a_gate_says_what_happens_on_rejection_and_on_a_changed_action() -> None:
    found = gate("{}", on_reject="resume", on_mismatch="ask")
    assert (found.on_reject, found.on_mismatch) == ("resume", "ask")
    plain = gate("{}")
    assert (plain.on_reject, plain.on_mismatch) == ("cancel", "fail")


def test_an_action_kept_in_the_state_can_be_named_whole() -> None:
    found = gate("state.action").action_for({"action": {"operation": "purge", "metadata": {"rows": 5}}})
    assert found == Action("purge", metadata={"rows": 5})


@pytest.mark.parametrize(
    ("expression", "state", "why"),
    [
        ("{'target': state.service}", {}, 'Key not found in map : "service"'),
        ("{'target': state.n}", {"n": 5}, "`target` must be text, not int"),
        ("{'tarket': 'x'}", {}, "no field tarket; did you mean target?"),
        ("{'arguments': {'t': timestamp('2020-01-01T00:00:00Z')}}", {}, "is a datetime, which JSON cannot hold"),
        ("{'arguments': {'when': state.when}}", {"when": datetime.now(UTC)}, "state.when is a datetime"),
        ("{'target': state.a}", {"a": "x\0y"}, "state.a contains a NUL character"),
        ("{'estimated_cost': -1.0}", {}, "must not be negative"),
        ("state.action", {"action": ["x"]}, "not a mapping"),
        ("{'arguments': state}", {"messages": [object()]}, "state.messages[0] is a object"),
        ("{'arguments': {'l': state.l}}", {"l": list(range(1001))}, "state.l has 1001 entries"),
        ("{state.k: 'x'}", {"k": 5}, "a key that is not text"),
        ("{'target': 'a', 'target': 'b'}", {}, "duplicate key"),
    ],
)
def test_a_gate_that_cannot_say_what_would_run_raises(expression: str, state: dict[str, Any], why: str) -> None:
    with pytest.raises(GateFault) as caught:
        gate(expression).action_for(state)
    assert why in caught.value.detail
    assert caught.value.detail.startswith("the gate before node n of graph g cannot say what would run: ")
    assert caught.value.facts == {"graph": "g", "node": "n"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{operation: deploy, action: '5'}",
         "triggers.yaml:1: graphs.g.nodes.n.action: the expression gives INT; allowed: a map such as"),
        ("{operation: deploy, action: '{1: 2}'}", "gives MAP<INT, INT>; allowed: a map such as"),
        ("{operation: deploy, action: 'stat.x'}", "to 'stat.x', did you mean state?; allowed: state"),
        ("{action: '{}'}", "triggers.yaml:1: graphs.g.nodes.n.operation: is missing and must be given"),
        ("{operation: ''}", "graphs.g.nodes.n.operation: "),
        ("{operation: x, on_reject: no}", "on_reject: 'no' is not known; allowed: cancel or resume"),
        ("{operation: x, enviroment: y}", "unknown key, did you mean environment?; allowed: action, environment,"),
    ],
)  # fmt: skip
def test_a_wrong_gate_is_refused_when_the_file_is_loaded(text: str, problem: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        load(text)
    assert problem in caught.value.problems[0]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({}, "an action needs an `operation`"),
        ({"operation": "  "}, "an action needs an `operation`"),
        ({"operation": "x" * 201}, "`operation` is longer than 200 characters"),
        ({"operation": 5}, "`operation` must be text, not int"),
        ({"operation": "x", "cost": 5}, "an action has no field cost"),
        ({"operation": "x", "arguments": []}, "`arguments` must be a mapping, not list"),
        ({"operation": "x", "arguments": {1: 2}}, "has a key that is not text: 1"),
        ({"operation": "x", "arguments": {"n": float("nan")}}, "arguments.n is nan"),
        ({"operation": "x", "security_findings": {"a": 1}}, "`security_findings` must be a list of mappings, not dict"),
        ({"operation": "x", "security_findings": ["a"]}, "`security_findings[0]` must be a mapping, not str"),
        ({"operation": "x", "estimated_cost": True}, "`estimated_cost` must be a number, not bool"),
        ({"operation": "x", "estimated_cost": "5"}, "`estimated_cost` must be a number, not str"),
        ({"operation": "x", "metadata": {"b": b"x"}}, "metadata.b is a bytes"),
    ],
)
def test_what_is_no_action_is_refused_naming_the_field(value: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        action_from(value)
    assert why in caught.value.detail


def test_an_action_survives_storage() -> None:
    action = Action("x", "p", "t", "r", {"a": [1, {"b": None}]}, 5.5, ({"severity": "low"},), {"m": True})
    assert action_from(action.to_json()) == action


def test_too_deep_an_action_is_refused() -> None:
    value: object = 1
    for _ in range(5000):
        value = [value]
    with pytest.raises(InvalidInput, match="more than 64 levels"):
        action_from({"operation": "x", "arguments": {"a": value}})
