"""The reader of scenario files: what is wrong is told with file and place, and every policy key has a meaning here."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.core.model import Level
from orchestrator.core.policy_file import PolicyBook
from tests.acceptance.malformed import MalformedError
from tests.acceptance.reading import POLICY_KEYS, VERBS, Scenario, read_file, read_folder
from tests.acceptance.times import span
from tests.acceptance.translating import OFFICERS, action_of, policy_file, wraps, write_config

HERE = Path(__file__).parent
STEP = "{t: 0m, do: submit, req: R1, policy: p, by: rita}"
POLICY = "policies: {p: {1: {stages: [[{role: sre, n: 1}]]}}}"


def read(tmp_path: Path, text: str) -> list[Scenario]:
    file = tmp_path / "mine.yaml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return read_file(file)


def one(tmp_path: Path, *, policies: str = POLICY, steps: str = STEP, more: str = "") -> Scenario:
    text = f"directory: {{rita: []}}\nscenarios:\n- id: X1\n  {policies}\n  steps:\n  - {steps}\n"
    (found,) = read(tmp_path, text + (f"  {more}\n" if more else ""))
    return found


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("scenarios: [", "cannot be read"),
        ("- 1", "the file: is list"),
        ("scenarios: []", "`scenarios` is empty"),
        ("scenarios: [{title: x}]", "scenarios[0] has no `id`"),
        ("scenarios: [{id: X1}]", "X1: has neither"),
        ("scenarios: [{id: X1, steps: [], stpes: []}]", "`stpes` is not known"),
        ("scenarios: [{id: X1, steps: [{t: 0m, do: vot}]}]", "X1: step 1: `do` is 'vot'"),
        ("scenarios: [{id: X1, steps: [{t: 0m, do: tick, people: 1}]}]", "`people` is not known"),
        ("scenarios: [{id: X1, steps: [{t: 3, do: tick}]}]", "3 is no duration"),
        ("scenarios: [{id: X1, steps: [{t: 2m, do: tick}, {t: 1m, do: tick}]}]", "before the step above"),
        ("scenarios: [{id: X1, steps: [{t: 0m, do: vote, req: R1}]}]", "vote needs `by`, `decision`"),
        ("scenarios: [{id: X1, steps: [{t: 0m, do: execute, req: R9}]}]", "no step submits 'R9'"),
        ("scenarios: [{id: X1, steps: [{t: 0m, do: submit, req: R1, by: a, policy: q}]}]", "no policy 'q'"),
        ("scenarios: [{id: X1, steps: [], final: {R1: {state: approved}}}]", "no step submits 'R1'"),
        ("scenarios: [{id: X1, steps: [], policies: {p: {1: {stagse: []}}}}]", "`stagse` is not known"),
        ("scenarios: [{id: X1, steps: []}, {id: X1, steps: []}]", "X1 is used twice"),
        ("defaults: {distinct_persons: false}\nscenarios: [{id: X1, steps: []}]", "distinct_persons is always"),
        ("scenarios: [{id: X1, routing: [{in: {riks: [low]}, out: {route: AUTO}}]}]", "`riks` is not known"),
        ("scenarios: [{id: X1, steps: [], t0: soon}]", "t0 is 'soon'"),
    ],
)
def test_a_malformed_file_is_told_by_name_and_place(tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(MalformedError) as told:
        read(tmp_path, text)
    assert str(told.value).startswith("mine.yaml: ")
    assert place in str(told.value)


def test_a_folder_without_scenarios_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="no \\*\\.yaml file"):
        read_folder(tmp_path)


def test_every_file_of_this_folder_is_read() -> None:
    found = [scenario for file in read_folder(HERE / "scenarios") for scenario in read_file(file)]
    assert {"S01", "S02", "S03", "S04", "S05", "S06", "S08", "S11"} <= {scenario.id for scenario in found}
    used = {step.do for scenario in found for step in scenario.steps}
    assert used == set(VERBS), "every verb is played by some scenario here"


def test_lengths_of_time_are_read_as_they_are_written() -> None:
    assert span("239m59s", "x") == timedelta(hours=3, minutes=59, seconds=59)
    assert (span("-2h", "x"), span("0m", "x"), span(0, "x")) == (timedelta(hours=-2), timedelta(0), timedelta(0))
    assert span("1d2h", "x") == timedelta(hours=26)


ALL_KEYS = """policies:
    p:
      3:
        stages: [[{role: sre, n: 2}, {any_of: [dba, security]}], [{role: cto}]]
        risk: critical
        deny_threshold: 2
        request_ttl: 4h
        approval_ttl: 30m
        timeout_action: deny
        escalate_after: 1h
        escalate_to: [eng_manager]
        escalation_mode: replace
        role_recheck: [at_quorum, at_execution]
        fallback_role: change_manager
        freeze: {start: 1h, end: 2026-06-02T09:00:00Z}
        break_glass: {role: incident_commander, review_within: 24h}
        justification: required
        volatile_fields: [nonce]
        reminders: [30m]"""


def test_every_policy_key_reaches_the_policy(tmp_path: Path) -> None:
    payload = "{t: 0m, do: submit, req: R1, by: rita, payload: {environment: prod, service: api, nonce: 1}}"
    scenario = one(tmp_path, policies=ALL_KEYS, steps=payload, more="policy_by_environment: {prod: p}")
    body = scenario.policies["p"][3]
    assert set(body) == POLICY_KEYS, "a new key needs a translation"
    book = PolicyBook.load(policy_file(scenario, {"p": (3, body)}), "x.yaml", {OFFICERS})
    (policy,) = book.policies
    assert (policy.name, policy.version, policy.deny_threshold, policy.on_timeout) == ("p", 3, 2, "reject")
    assert [[(sorted(slot.roles), slot.count) for slot in stage] for stage in policy.stages] == [
        [(["sre"], 2), (["dba", "security"], 1)],
        [(["cto"], 1)],
    ]
    assert (policy.request_ttl, policy.approval_ttl) == (timedelta(hours=4), timedelta(minutes=30))
    assert (policy.escalate_after, policy.escalate_to) == (timedelta(hours=1), {"eng_manager"})
    assert policy.escalation_mode == "replace"
    assert (policy.justification, policy.recheck_at_execution) == ("decision", True)
    assert policy.volatile_fields == ("arguments.nonce",)
    assert policy.reminders == (timedelta(minutes=30),)
    assert policy.fallback_role == "change_manager"
    assert policy.break_glass is not None
    assert (policy.break_glass.role, policy.break_glass.review_within) == ("incident_commander", timedelta(days=1))
    (freeze,) = policy.freeze
    assert freeze.until(datetime(2026, 6, 1, 9, 59, tzinfo=UTC)) is None
    assert freeze.until(datetime(2026, 6, 1, 10, tzinfo=UTC)) == datetime(2026, 6, 2, 9, tzinfo=UTC)
    rules = (write_config(scenario, tmp_path / "config") / "hitl" / "risk-assessment-rules.yaml").read_text()
    assert f"level: {Level.CRITICAL.value}" in rules


def test_a_payload_that_is_no_action_is_wrapped_into_one(tmp_path: Path) -> None:
    plain = one(tmp_path, steps="{t: 0m, do: submit, req: R1, by: a, payload: {operation: deploy, environment: prod}}")
    assert not wraps(plain)
    own = one(tmp_path, steps="{t: 0m, do: submit, req: R1, by: a, payload: {operation: deploy, replicas: 3}}")
    assert wraps(own)
    wrapped = action_of({"operation": "deploy", "environment": "prod", "replicas": 3}, wrap=True)
    assert (wrapped["operation"], wrapped["environment"]) == ("run", "prod")
    assert wrapped["arguments"] == {"operation": "deploy", "environment": "prod", "replicas": 3}
