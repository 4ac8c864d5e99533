"""The configuration that ships: it loads, and it says of each kind of operation what the documentation promises."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.config import Governance, load_governance
from orchestrator.core.errors import InvalidDocument
from orchestrator.core.model import Action, Level, Requester
from orchestrator.core.policy import Escalation, terms_for

CONFIG = Path(__file__).resolve().parents[2] / "config"
LOW, MEDIUM, HIGH, CRITICAL = Level
FINDING = {"id": "CVE-1", "severity": "HIGH"}


@pytest.fixture(scope="module")
def governance() -> Governance:
    return load_governance(CONFIG)


@pytest.mark.parametrize(
    ("action", "level"),
    [
        (Action("delete_project", "production"), CRITICAL),
        (Action("Delete Project", "PROD"), CRITICAL),
        (Action("drop table", "live-eu"), CRITICAL),
        (Action("destroy", "eu-production"), CRITICAL),
        (Action("delete_project", "staging"), LOW),
        (Action("delete_production"), CRITICAL),
        (Action("deploy", "production"), HIGH),
        (Action("service.deploy", "prod-eu"), HIGH),
        (Action("deploy", "staging"), LOW),
        (Action("deploy_production"), HIGH),
        (Action("modify_infrastructure"), HIGH),
        (Action("terraform apply", "staging"), HIGH),
        (Action("update", resource_type="Firewall"), HIGH),
        (Action("security_finding_critical"), CRITICAL),
        (Action("merge", security_findings=({"severity": "low"}, {"severity": "CRITICAL"})), CRITICAL),
        (Action("security_finding_high"), HIGH),
        (Action("merge", security_findings=(FINDING,)), HIGH),
        (Action("merge", security_findings=({"severity": "medium"},)), LOW),
        (Action("merge", security_findings=({"id": "CVE-1"},)), CRITICAL),
        (Action("scale", estimated_cost=100), LOW),
        (Action("scale", estimated_cost=100.5), MEDIUM),
        (Action("scale", estimated_cost=1000), MEDIUM),
        (Action("scale", estimated_cost=1000.5), HIGH),
        (Action("cost_above_threshold"), MEDIUM),
        (Action("data_export"), HIGH),
        (Action("bulk export"), HIGH),
        (Action("purge rows", metadata={"rows": 1000}), LOW),
        (Action("purge rows", metadata={"rows": 1001}), MEDIUM),
        (Action("purge rows", metadata={"rows": 100001}), HIGH),
        (Action("purge rows", "production", metadata={"rows": 1}), HIGH),
        (Action("purge rows", "eu-prod", metadata={"rows": 1}), HIGH),
        (Action("purge rows", "production", metadata={"rows": 0}), LOW),
        (Action("purge rows", metadata={"rows": "thousands"}), CRITICAL),
        (Action("apply", metadata={"deletions": 0}), LOW),
        (Action("apply", metadata={"deletions": 1}), HIGH),
        (Action("vacuum", "production"), LOW),
        (Action("restart"), LOW),
    ],
    ids=lambda value: f"{value.operation} {value.environment}" if isinstance(value, Action) else None,
)
def test_the_shipped_rules(governance: Governance, action: Action, level: Level) -> None:
    found = governance.rules.assess(action, Requester("rita"), {"graph": "operation"}, None)
    assert (found.level, found.forbidden_by) == (level, None), found.reasons
    assert bool(found.reasons) is (level is not LOW)


def test_the_shipped_levels(governance: Governance) -> None:
    terms = {level: terms_for(level, governance.rules) for level in Level}
    assert {level: found.auto_approve for level, found in terms.items()} == {
        LOW: True, MEDIUM: False, HIGH: False, CRITICAL: False,
    }  # fmt: skip
    assert {level: found.notify for level, found in terms.items()} == {
        LOW: False, MEDIUM: True, HIGH: True, CRITICAL: True,
    }  # fmt: skip
    assert terms[MEDIUM].requirement.roles == {"team_lead"}
    assert terms[HIGH].requirement.roles == {"team_lead", "tech_lead"}
    assert terms[CRITICAL].requirement.roles == {"tech_lead", "cto"}
    assert {level: found.escalation for level, found in terms.items() if level is not LOW} == {
        MEDIUM: Escalation(timedelta(minutes=30), frozenset({"team_lead", "tech_lead"})),
        HIGH: Escalation(timedelta(minutes=30), frozenset({"tech_lead", "cto"})),
        CRITICAL: Escalation(timedelta(minutes=15), frozenset({"tech_lead", "cto"})),
    }
    assert [found.recheck_at_execution for found in terms.values()] == [False, False, False, True]
    assert [found.requirement.justification_on_decision for found in terms.values()] == [False, False, False, True]
    assert {(found.request_ttl, found.approval_ttl) for found in terms.values()} == {
        (timedelta(hours=24), timedelta(hours=1))
    }


def test_no_gate_is_put_before_anything_until_an_operator_writes_one(governance: Governance) -> None:
    assert not governance.rules.gates
    assert governance.gate("deployer", "apply") is None


def test_the_example_gate_in_the_shipped_file_works_when_it_is_uncommented(tmp_path: Path) -> None:
    folder = tmp_path / "hitl"
    folder.mkdir()
    for file in (CONFIG / "hitl").glob("*.yaml"):
        head, mark, tail = file.read_text().partition("# graphs:\n")
        example = "".join(line.removeprefix("# ") for line in f"{mark}{tail}".splitlines(keepends=True))
        (folder / file.name).write_text(f"{head}{example}")
    gate = load_governance(tmp_path).gate("deployer", "apply")
    assert gate is not None
    assert gate.action_for({"service": "api", "version": "1.2"}) == Action(
        "deploy", "production", "api", arguments={"version": "1.2"}
    )


def test_the_example_rules_in_the_shipped_file_work_when_they_are_uncommented(tmp_path: Path) -> None:
    folder = tmp_path / "hitl"
    folder.mkdir()
    (folder / "interrupt-triggers.yaml").write_text("triggers: {}\n")
    text = (CONFIG / "hitl/risk-assessment-rules.yaml").read_text()
    head, _, tail = text.partition("  # Examples to take over:\n  #\n")
    lines = (f"  {line.removeprefix('  # ')}" for line in tail.splitlines(keepends=True) if line.strip() != "#")
    (folder / "risk-assessment-rules.yaml").write_text(head + "".join(lines))
    assess = load_governance(tmp_path).rules.assess
    ledger = assess(Action("drop_table", target="ledger"), Requester("a"), {}, None)
    assert ledger.forbidden_by == "never-touch-the-ledger"
    assert assess(Action("x"), Requester("a"), {}, 49.0).level is MEDIUM


def test_every_file_that_is_missing_or_unreadable_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "hitl"
    folder.mkdir()
    (folder / "interrupt-triggers.yaml").write_bytes(b"triggers: \xff\n")
    with pytest.raises(InvalidDocument) as caught:
        load_governance(tmp_path)
    missing, unreadable = caught.value.problems
    assert missing.startswith(f"{folder}/risk-assessment-rules.yaml:1: (the file): does not exist; create it, or")
    assert unreadable == f"{folder}/interrupt-triggers.yaml:1: (the file): is not UTF-8 text (byte 10)"


def test_mistakes_name_the_real_file(tmp_path: Path) -> None:
    folder = tmp_path / "hitl"
    folder.mkdir()
    (folder / "risk-assessment-rules.yaml").write_text((CONFIG / "hitl/risk-assessment-rules.yaml").read_text())
    (folder / "interrupt-triggers.yaml").write_text("triggers:\n  x: {level: hgh}\n")
    with pytest.raises(InvalidDocument) as caught:
        load_governance(tmp_path)
    place = f"{folder}/interrupt-triggers.yaml:2: triggers.x.level"
    assert caught.value.problems == (f"{place}: 'hgh' is not known; allowed: low, medium, high or critical",)
