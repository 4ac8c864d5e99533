"""Gates that a YAML file puts before nodes of graphs that know nothing of Keyturn."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

from orchestrator.core.errors import GraphFault
from orchestrator.service import workflows
from orchestrator.wire import WorkflowRecord
from tests.apps import graphs_for_tests
from tests.harness import Keyturn, running

SHIPPED = Path(__file__).parents[2] / "config"
# The graph `steps` runs three nodes of plain LangGraph: first, second, third.
GATE = """
graphs:
  steps:
    nodes:
      second:
        operation: deploy
        action: "{'target': 'shop', 'environment': state.environment, 'arguments': state.arguments}"
"""
RISKY: dict[str, Any] = {"environment": "production", "arguments": {"version": 2}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration folder of this test's own, with the shipped rules in it."""
    shutil.copytree(SHIPPED, tmp_path / "config")
    return tmp_path / "config"


@asynccontextmanager
async def gated(database_url: str, config: Path, gates: str = GATE) -> AsyncGenerator[Keyturn]:
    """A Keyturn and its worker, with these gates behind the shipped triggers."""
    file = config / "hitl" / "interrupt-triggers.yaml"
    shipped = (SHIPPED / "hitl" / "interrupt-triggers.yaml").read_text()
    file.write_text(f"{shipped}\n{gates}")
    async with running(database_url, config=config) as keyturn, keyturn.working():
        yield keyturn


def lines(trace: Path) -> list[str]:
    return trace.read_text().splitlines() if trace.exists() else []


async def ended(keyturn: Keyturn, workflow: str) -> WorkflowRecord:
    return await keyturn.until(workflow, "completed", "failed", "rejected", "cancelled")


async def test_a_gate_lets_a_harmless_action_pass_and_records_it(
    database_url: str, config: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with gated(database_url, config) as keyturn:
        workflow = await keyturn.submit("steps", environment="staging", arguments={}, trace=str(trace))
        done = await ended(keyturn, workflow)
    assert done.status == "completed", done.error
    (one,) = done.approvals
    assert (one.node, one.route, one.state) == ("second", "AUTO", "executed")
    assert one.resolved_by is not None
    assert one.resolved_by.startswith("policy:level:low@")
    assert lines(trace) == ["first", "second", "third"]


async def test_a_gate_holds_a_risky_action_until_it_is_approved(
    database_url: str, config: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with gated(database_url, config) as keyturn:
        workflow = await keyturn.submit("steps", **RISKY, trace=str(trace))
        asked = await keyturn.asked(workflow)
        assert (asked.node, asked.risk_level, asked.kind) == ("second", "high", "approval")
        assert asked.action is not None
        assert (asked.action["operation"], asked.action["target"]) == ("deploy", "shop")
        assert asked.action["arguments"] == {"version": 2}
        assert lines(trace) == ["first"]
        await keyturn.approve(workflow)
        done = await ended(keyturn, workflow)
    assert done.status == "completed", done.error
    assert lines(trace) == ["first", "second", "third"]
    assert [one.state for one in done.approvals] == ["executed"]


@pytest.mark.parametrize(
    ("on_reject", "status", "ran"), [("cancel", "rejected", ["first"]), ("resume", "completed", ["first", "third"])]
)
async def test_a_rejected_gate_ends_the_workflow_or_skips_its_node(
    database_url: str, config: Path, tmp_path: Path, on_reject: str, status: str, ran: list[str]
) -> None:
    trace = tmp_path / "trace"
    async with gated(database_url, config, f"{GATE}        on_reject: {on_reject}\n") as keyturn:
        workflow = await keyturn.submit("steps", **RISKY, trace=str(trace))
        await keyturn.asked(workflow)
        await keyturn.reject(workflow, reason="not on a Friday")
        done = await ended(keyturn, workflow)
    assert done.status == status
    assert lines(trace) == ran
    if status == "rejected":
        assert done.reason == "not on a Friday"


async def change(database_url: str, workflow: str, **values: object) -> None:
    """Change the thread's state as LangGraph's own tools do."""
    url = f"{database_url}?options=-c%20search_path%3Dlanggraph"
    async with AsyncPostgresSaver.from_conn_string(url) as saver:
        graph = graphs_for_tests.steps.copy(update={"checkpointer": saver})
        await graph.aupdate_state({"configurable": {"thread_id": workflow}}, values, as_node="first")


async def test_what_changed_after_the_approval_does_not_run(database_url: str, config: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with gated(database_url, config) as keyturn:
        workflow = await keyturn.submit("steps", **RISKY, trace=str(trace))
        await keyturn.asked(workflow)
        await change(database_url, workflow, arguments={"version": 3})
        await keyturn.approve(workflow)
        failed = await ended(keyturn, workflow)
        assert failed.status == "failed"
        assert failed.error is not None
        assert failed.error["code"] == "hash_mismatch"
        assert [one.state for one in failed.approvals] == ["approved"]
        assert lines(trace) == ["first"]
        await change(database_url, workflow, arguments={"version": 2})
        await workflows.retry(keyturn.ctx, keyturn.me, workflow)
        done = await ended(keyturn, workflow)
    assert done.status == "completed", done.error
    assert lines(trace) == ["first", "second", "third"]


async def test_a_gate_that_cannot_say_what_would_run_stays_shut(
    database_url: str, config: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with gated(database_url, config) as keyturn:
        workflow = await keyturn.submit("steps", trace=str(trace))
        failed = await ended(keyturn, workflow)
        assert failed.status == "failed"
        assert failed.error is not None
        assert failed.error["code"] == "gate_fault"
        assert (failed.error["graph"], failed.error["node"]) == ("steps", "second")
        assert "graphs.steps.nodes.second.action" in str(failed.error["detail"])
        assert lines(trace) == ["first"]
        last = (await workflows.status(keyturn.ctx, keyturn.me, workflow)).history[-1]
        assert (last.type, last.data["code"]) == ("workflow-failed", "gate_fault")


async def test_a_gate_before_tasks_sent_in_parallel_asks_for_each(
    database_url: str, config: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    gate = GATE.replace("steps:", "fan_out:").replace("second:", "item:").replace("'shop'", "state.text")
    async with gated(database_url, config, gate) as keyturn:
        workflow = await keyturn.submit("fan_out", **RISKY, trace=str(trace))
        found = await keyturn.until(workflow, "waiting", "failed")
        asked = [one for one in found.approvals if one.state == "pending"]
        assert sorted(str(one.action and one.action["target"]) for one in asked) == ["0", "1", "2"]
        for one in asked:
            assert "item" not in " ".join(lines(trace))
            await keyturn.approve(workflow, approval_id=one.approval_id)
        done = await ended(keyturn, workflow)
    assert done.status == "completed", done.error
    assert len([line for line in lines(trace) if line.startswith("item")]) == 3


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            GATE.replace("second:", "secnd:"),
            "a gate is put before secnd, but the graph's nodes are first, second, third",
        ),
        (GATE.replace("steps:", "stps:"), "gates are set for stps"),
    ],
)
async def test_a_gate_before_what_does_not_exist_is_an_error_at_the_start(
    database_url: str, config: Path, wrong: str, told: str
) -> None:
    with pytest.raises(GraphFault) as refused:
        async with gated(database_url, config, wrong):
            pass
    assert told in refused.value.detail
    assert "langgraph.json" in refused.value.detail
