"""The main job through the engine: assess, pause, decide, resume, on real Postgres with the real worker."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.harness import Keyturn, caller, running


async def test_a_low_risk_action_runs_by_itself_and_leaves_the_rows_of_a_decision(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("governed", operation="vacuum")
        done = await keyturn.until(workflow, "completed", "failed")
    assert done.status == "completed", done.error
    (approval,) = done.approvals
    assert approval.state == "executed"
    assert approval.route == "AUTO"
    assert approval.resolved_by is not None
    assert approval.resolved_by.startswith("policy:")
    assert done.result == {"operation": "vacuum", "log": ["assess", f"gate:{approval.resolved_by}", "act"]}


async def test_a_risky_action_waits_and_goes_on_when_approved(keyturn: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("governed", operation="deploy", environment="production", trace=str(trace))
        asked = await keyturn.asked(workflow)
        assert asked.risk_level == "high"
        assert not trace.exists()
        assert await keyturn.approve(workflow) == "resolved"
        done = await keyturn.until(workflow, "completed", "failed")
    assert done.status == "completed", done.error
    assert trace.read_text().splitlines() == [f"act {workflow}:act:3"]
    assert done.approvals[0].state == "executed"
    assert await keyturn.types(workflow) == [
        "workflow-submitted",
        "workflow-started",
        "step-started",
        "step-finished",
        "step-started",
        "confirmation-required",
        "vote-recorded",
        "confirmation-resolved",
        "decision-delivered",
        "step-finished",
        "step-started",
        "step-finished",
        "workflow-completed",
    ]


async def test_rules_see_the_requesters_roles_and_the_asking_node(database_url: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    shutil.copytree(Path(__file__).parents[2] / "config", config)
    rules = config / "hitl" / "risk-assessment-rules.yaml"
    rules.write_text(
        rules.read_text(encoding="utf-8").replace(
            "\nrules:\n",
            "\nrules:\n  - name: leads-at-the-gate\n    level: critical\n"
            "    when: \"'team_lead' in requester.roles && workflow.node == 'gate'\"\n",
        ),
        encoding="utf-8",
    )
    async with running(database_url, config=config) as keyturn, keyturn.working():
        plain = await keyturn.submit("governed", operation="vacuum")
        keyturn.me = caller("tom")
        raised = await keyturn.submit("governed", operation="vacuum")
        assert (await keyturn.until(plain, "completed", "waiting", "failed")).risk_level == "low"
        assert (await keyturn.asked(raised)).risk_level == "critical"
