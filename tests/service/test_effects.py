"""The ledger of effects in the real worker: what finished never runs again, what is bound runs only as approved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.sdk.effects import DID_NOT_HAPPEN, HAPPENED, STOP
from orchestrator.service import workflows
from tests.harness import Keyturn


def lines(trace: Path) -> list[str]:
    return trace.read_text().splitlines() if trace.exists() else []


async def ledger(keyturn: Keyturn, workflow: str) -> list[dict[str, Any]]:
    async with keyturn.ctx.db.connection() as conn:
        found = await conn.execute(
            "SELECT * FROM keyturn.effects WHERE workflow_id = %s ORDER BY started_at", (workflow,)
        )
        return await found.fetchall()


@pytest.mark.parametrize("graph", ["paying", "paying_sync"])
async def test_an_effect_is_recorded_with_its_key_and_result(keyturn: Keyturn, graph: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit(graph, trace=str(trace))
        done = await keyturn.until(workflow, "completed", "failed")
    assert done.status == "completed", done.error
    (row,) = await ledger(keyturn, workflow)
    node = {"paying": "pay", "paying_sync": "pay_in_thread"}[graph]
    assert row["key"] == f"{workflow}:{node}:1:pay"
    assert row["state"] == "finished"
    assert row["attempts"] == 1
    assert lines(trace) == [f"pay {row['key']}"]
    if graph == "paying":
        assert row["result"] == row["key"]
        assert done.result == {"trace": str(trace), "log": [f"paid {row['key']}"]}


@pytest.mark.parametrize("graph", ["paying_fails", "paying_fails_sync"])
async def test_an_effect_that_raised_runs_again_on_a_retry(keyturn: Keyturn, graph: str, tmp_path: Path) -> None:
    trace, mended = tmp_path / "trace", tmp_path / "mended"
    async with keyturn.working():
        workflow = await keyturn.submit(graph, trace=str(trace), text=str(mended))
        failed = await keyturn.until(workflow, "completed", "failed")
        assert failed.status == "failed"
        (row,) = await ledger(keyturn, workflow)
        assert (row["state"], row["error"]) == ("failed", "the till is closed")
        mended.touch()
        await workflows.retry(keyturn.ctx, keyturn.me, workflow)
        done = await keyturn.until(workflow, "completed", "failed")
    assert done.status == "completed", done.error
    (row,) = await ledger(keyturn, workflow)
    assert (row["state"], row["attempts"]) == ("finished", 2)
    assert lines(trace) == [f"try {row['key']}"] * 2


async def test_an_effect_that_finished_gives_its_result_again_when_its_node_runs_again(
    keyturn: Keyturn, tmp_path: Path
) -> None:
    trace, mended = tmp_path / "trace", tmp_path / "mended"
    async with keyturn.working():
        workflow = await keyturn.submit("paid_then_fails", trace=str(trace), text=str(mended))
        await keyturn.until(workflow, "failed")
        mended.touch()
        await workflows.retry(keyturn.ctx, keyturn.me, workflow)
        done = await keyturn.until(workflow, "completed", "failed")
    assert done.status == "completed", done.error
    assert len(lines(trace)) == 1
    assert isinstance(done.result, dict)
    assert done.result["log"] == [f"paid {workflow}:paid_then_fails:1:pay"]


# Doubt


async def cut_off(keyturn: Keyturn, trace: Path) -> str:
    """A workflow whose worker stopped in the middle of its effect: the lease is left to run out."""
    workflow = await keyturn.submit("paying", trace=str(trace), seconds=600.0)
    async with keyturn.working(lease_seconds=1.0) as worker:
        worker.drain_seconds = 0.0
        async with keyturn.ctx.db.listener("keyturn_events") as conn:
            while not lines(trace):
                async for _ in conn.notifies(timeout=0.05, stop_after=1):
                    pass
    (row,) = await ledger(keyturn, workflow)
    assert row["state"] == "started"
    return workflow


@pytest.mark.parametrize(
    ("answer", "status", "runs"), [(HAPPENED, "completed", 1), (DID_NOT_HAPPEN, "completed", 2), (STOP, "failed", 1)]
)
async def test_an_effect_in_doubt_is_asked_about_and_the_answer_decides(
    keyturn: Keyturn, tmp_path: Path, answer: str, status: str, runs: int
) -> None:
    trace = tmp_path / "trace"
    workflow = await cut_off(keyturn, trace)
    async with keyturn.ctx.db.connection() as conn:
        # What runs now, if it runs, need not take ten minutes.
        await conn.execute("UPDATE keyturn.workflows SET input = (input::jsonb || '{\"seconds\": 0}')::json")
    async with keyturn.working():
        asked = await keyturn.asked(workflow)
        assert "“pay” was running" in asked.description
        assert lines(trace) == [f"pay {workflow}:pay:1:pay"]
        await keyturn.answer(asked.approval_id, answer)
        done = await keyturn.until(workflow, "completed", "failed", "cancelled")
    assert done.status == status, done.error
    assert len(lines(trace)) == runs
    if status == "failed":
        assert done.error is not None
        assert done.error["code"] == "rejected"


# Bound to an approval


async def test_a_bound_effect_runs_once_under_its_approval(keyturn: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("bound", trace=str(trace))
        asked = await keyturn.asked(workflow)
        await keyturn.approve(workflow)
        done = await keyturn.until(workflow, "completed", "failed")
    assert done.status == "completed", done.error
    (row,) = await ledger(keyturn, workflow)
    assert row["approval_id"] == asked.approval_id
    assert done.approvals[0].state == "executed"
    assert lines(trace) == [f"apply {row['key']}"]


async def test_an_effect_that_is_not_what_was_approved_does_not_run(keyturn: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("bound", trace=str(trace), text="another-shop")
        await keyturn.asked(workflow)
        await keyturn.approve(workflow)
        done = await keyturn.until(workflow, "completed", "failed")
    assert done.status == "failed"
    assert done.error is not None
    assert done.error["code"] == "hash_mismatch"
    assert done.error["changed"] == ["target"]
    assert lines(trace) == []
    assert await ledger(keyturn, workflow) == []
    assert done.approvals[0].state == "approved", "the approval stays good for what it was given for"


async def test_an_approval_is_used_by_one_effect_only(keyturn: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("bound_twice", trace=str(trace))
        await keyturn.asked(workflow)
        await keyturn.approve(workflow)
        done = await keyturn.until(workflow, "completed", "failed")
    assert done.status == "failed"
    assert done.error is not None
    assert done.error["code"] == "already_executed"
    assert lines(trace) == [f"apply {workflow}:apply:2:apply"]


async def lapse(keyturn: Keyturn, workflow: str) -> None:
    async with keyturn.ctx.db.connection() as conn:
        statement = "UPDATE keyturn.approvals SET lapses_at = now() WHERE workflow_id = %s AND state = 'approved'"
        assert (await conn.execute(statement, (workflow,))).rowcount == 1


async def test_an_approval_that_lapsed_before_its_delivery_runs_nothing_and_is_asked_anew_on_a_retry(
    keyturn: Keyturn, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    workflow = await keyturn.submit("bound", trace=str(trace))
    async with keyturn.working():
        first = await keyturn.asked(workflow)
    await keyturn.approve(workflow)
    await lapse(keyturn, workflow)
    async with keyturn.working():
        failed = await keyturn.until(workflow, "completed", "failed")
        assert failed.status == "failed"
        assert failed.error is not None
        assert failed.error["code"] == "approval_lapsed"
        assert failed.approvals[0].state == "lapsed"
        assert lines(trace) == []
        await workflows.retry(keyturn.ctx, keyturn.me, workflow)
        again = await keyturn.asked(workflow)
        assert again.approval_id != first.approval_id
        await keyturn.approve(workflow, approval_id=again.approval_id)
        done = await keyturn.until(workflow, "completed", "failed")
    assert done.status == "completed", done.error
    assert len(lines(trace)) == 1


async def test_an_approval_that_lapsed_between_gate_and_effect_runs_nothing(keyturn: Keyturn, tmp_path: Path) -> None:
    trace, hold = tmp_path / "trace", tmp_path / "hold"
    hold.touch()
    async with keyturn.working():
        workflow = await keyturn.submit("bound_late", trace=str(trace), text=str(hold))
        await keyturn.asked(workflow)
        await keyturn.approve(workflow)
        failed = await keyturn.until(workflow, "completed", "failed")
        assert failed.status == "failed", "the node between gate and effect failed"
        await lapse(keyturn, workflow)
        hold.unlink()
        await workflows.retry(keyturn.ctx, keyturn.me, workflow)
        done = await keyturn.until(workflow, "completed", "failed")
    assert done.status == "failed"
    assert done.error is not None
    assert done.error["code"] == "approval_lapsed"
    assert lines(trace) == []
