"""How a workflow's life may end or go on: cancelled in each state, failed and retried, limited, on another version."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import AlreadyResolved, NothingPending, TransitionConflict
from orchestrator.service import workflows
from orchestrator.store import workflows as rows_of_workflows
from orchestrator.wire import SubmitRequest, WorkflowRecord
from tests.harness import APPS, Keyturn, running


def lines(trace: Path) -> list[str]:
    return trace.read_text().splitlines() if trace.exists() else []


async def failed(keyturn: Keyturn, workflow: str) -> dict[str, Any]:
    """The error of a workflow, once it has failed."""
    found = await keyturn.until(workflow, "failed", "completed", "cancelled")
    assert found.status == "failed"
    assert found.error is not None
    assert found.reason == found.error["code"]
    last = (await workflows.status(keyturn.ctx, keyturn.me, workflow)).history[-1]
    assert last.type == "workflow-failed"
    assert last.data["code"] == found.error["code"]
    return dict(found.error)


async def until_traced(keyturn: Keyturn, trace: Path, what: str) -> None:
    """Wait until a node left its mark."""
    async with keyturn.ctx.db.listener("keyturn_events") as conn:
        while what not in lines(trace):
            async for _ in conn.notifies(timeout=0.05, stop_after=1):
                pass


async def cancelled(keyturn: Keyturn, workflow: str) -> WorkflowRecord:
    told = await workflows.cancel(keyturn.ctx, keyturn.me, workflow, "changed my mind")
    assert told.status == "cancelled"
    found = await keyturn.get(workflow)
    assert (found.status, found.reason) == ("cancelled", "changed my mind")
    assert found.finished_at is not None
    return found


# Cancel


async def test_a_cancelled_ready_workflow_never_starts(keyturn: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    workflow = await keyturn.submit("steps", trace=str(trace))
    await cancelled(keyturn, workflow)
    async with keyturn.working():
        other = await keyturn.submit("steps")
        await keyturn.until(other, "completed")
    assert lines(trace) == []
    assert await keyturn.types(workflow) == ["workflow-submitted", "workflow-cancelled"]


async def test_a_cancel_ends_a_running_workflow_at_once(keyturn: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("steps", trace=str(trace), seconds=600.0)
        await until_traced(keyturn, trace, "third")
        await cancelled(keyturn, workflow)
    assert (await keyturn.get(workflow)).status == "cancelled"
    assert (await keyturn.types(workflow))[-1] == "workflow-cancelled"


async def test_a_cancel_ends_a_workflow_whose_node_blocks_a_thread_and_the_result_is_refused(
    keyturn: Keyturn, tmp_path: Path
) -> None:
    trace, go = tmp_path / "trace", tmp_path / "go"
    async with keyturn.working():
        workflow = await keyturn.submit("blocking", trace=str(trace), text=str(go))
        await until_traced(keyturn, trace, "block begins")
        await cancelled(keyturn, workflow)
        go.touch()
        await until_traced(keyturn, trace, "block ends")
        other = await keyturn.submit("steps")
        await keyturn.until(other, "completed")
    assert (await keyturn.get(workflow)).status == "cancelled"
    assert lines(trace) == ["first", "block begins", "block ends"]


async def test_a_cancelled_waiting_workflow_cannot_be_decided_any_more(keyturn: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("governed", operation="deploy", environment="production", trace=str(trace))
        await keyturn.asked(workflow)
        found = await cancelled(keyturn, workflow)
        assert [one.state for one in found.approvals] == ["cancelled"]
        with pytest.raises(AlreadyResolved):
            await keyturn.approve(workflow)
        with pytest.raises(TransitionConflict) as refused:
            await workflows.cancel(keyturn.ctx, keyturn.me, workflow)
        assert refused.value.facts["status"] == "cancelled"
    assert lines(trace) == []
    assert (await keyturn.types(workflow))[-2:] == ["refused", "refused"]


async def test_nothing_can_be_decided_before_anything_was_asked(keyturn: Keyturn) -> None:
    workflow = await keyturn.submit("governed", operation="deploy", environment="production")
    with pytest.raises(NothingPending):
        await keyturn.approve(workflow)


# Failures and retry


async def test_a_failed_workflow_goes_on_from_its_last_checkpoint_on_a_retry(keyturn: Keyturn, tmp_path: Path) -> None:
    trace, mended = tmp_path / "trace", tmp_path / "mended"
    async with keyturn.working():
        workflow = await keyturn.submit("failing", trace=str(trace), text=str(mended))
        error = await failed(keyturn, workflow)
        assert error["code"] == "node_error"
        assert error["detail"] == "RuntimeError: the boiler is cold"
        assert "explode" in error["where"]
        mended.touch()
        assert (await workflows.retry(keyturn.ctx, keyturn.me, workflow)).status == "ready"
        done = await keyturn.until(workflow, "completed", "failed")
    assert done.status == "completed", done.error
    assert lines(trace) == ["first", "explode", "explode"]
    assert "workflow-retried" in await keyturn.types(workflow)
    with pytest.raises(TransitionConflict):
        await workflows.retry(keyturn.ctx, keyturn.me, workflow)


async def test_a_retry_does_not_run_the_finished_siblings_of_what_failed(keyturn: Keyturn, tmp_path: Path) -> None:
    trace, mended = tmp_path / "trace", tmp_path / "mended"
    async with keyturn.working():
        workflow = await keyturn.submit("half_failing", trace=str(trace), text=str(mended))
        await failed(keyturn, workflow)
        mended.touch()
        await workflows.retry(keyturn.ctx, keyturn.me, workflow)
        done = await keyturn.until(workflow, "completed", "failed")
    assert done.status == "completed", done.error
    assert isinstance(done.result, dict)
    assert sorted(done.result["log"]) == ["badly", "finish", "well"]
    assert sorted(lines(trace)) == ["badly", "badly", f"finish {workflow}:finish:2", "well"]


async def test_a_failure_after_an_approval_does_not_ask_for_it_again(keyturn: Keyturn, tmp_path: Path) -> None:
    trace, hold = tmp_path / "trace", tmp_path / "hold"
    hold.touch()
    async with keyturn.working():
        workflow = await keyturn.submit("bound_late", trace=str(trace), text=str(hold))
        await keyturn.asked(workflow)
        await keyturn.approve(workflow)
        await failed(keyturn, workflow)
        hold.unlink()
        await workflows.retry(keyturn.ctx, keyturn.me, workflow)
        done = await keyturn.until(workflow, "completed", "waiting", "failed")
    assert done.status == "completed", done.error
    assert len(done.approvals) == 1
    assert lines(trace) == [f"apply {workflow}:apply:3:apply"]


@pytest.mark.parametrize("graph", ["unstorable", "unstorable_text", "unstorable_object"])
async def test_a_state_that_cannot_be_stored_fails_its_workflow_from_the_last_checkpoint_that_could(
    keyturn: Keyturn, graph: str
) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit(graph)
        error = await failed(keyturn, workflow)
        assert error["code"] == "not_storable"
        await workflows.retry(keyturn.ctx, keyturn.me, workflow)
        assert (await failed(keyturn, workflow))["code"] == "not_storable"


@pytest.mark.parametrize("graph", ["shouting", "unstorable_then_failing"])
async def test_a_failure_is_told_whatever_its_message_or_state_holds(keyturn: Keyturn, graph: str) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit(graph)
        error = await failed(keyturn, workflow)
    assert error["code"] == "node_error"
    assert (await keyturn.get(workflow)).attempts <= 1


async def test_an_interrupt_that_is_not_json_fails_its_workflow_and_says_so(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("not_json")
        error = await failed(keyturn, workflow)
        assert error["code"] == "graph_fault"
        assert "must be JSON" in error["detail"]
        assert (await keyturn.get(workflow)).approvals == []


async def test_a_graph_that_never_ends_fails_with_the_recursion_limit(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("runaway")
        assert (await failed(keyturn, workflow))["code"] == "recursion_limit"


# Limits


async def test_a_workflow_claimed_too_often_without_progress_is_taken_for_poison_and_others_go_on(
    keyturn: Keyturn, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    workflow = await keyturn.submit("steps", trace=str(trace))
    async with keyturn.ctx.db.connection() as conn:
        await conn.execute("UPDATE keyturn.workflows SET attempts = 5")
    other = await keyturn.submit("steps")
    async with keyturn.working():
        await keyturn.until(other, "completed")
        error = await failed(keyturn, workflow)
        assert error["code"] == "poisoned"
        assert error["attempts"] == 5
        assert lines(trace) == []
        await workflows.retry(keyturn.ctx, keyturn.me, workflow)
        await keyturn.until(workflow, "completed")


async def test_a_total_deadline_ends_a_workflow_that_runs_waits_or_was_never_claimed(
    keyturn: Keyturn, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"

    async def submit(graph: str, **content: Any) -> str:
        request = SubmitRequest(graph=graph, input=content, deadline=600)
        return (await workflows.submit(keyturn.ctx, keyturn.me, request)).workflow_id

    async with keyturn.working():
        runs = await submit("steps", trace=str(trace), seconds=600.0)
        waits = await submit("governed", operation="deploy", environment="production")
        done = await submit("steps")
        await until_traced(keyturn, trace, "third")
        await keyturn.asked(waits)
        await keyturn.until(done, "completed")
        async with keyturn.ctx.db.connection() as conn:
            await conn.execute("UPDATE keyturn.workflows SET deadline_at = now()")
        for workflow in (runs, waits):
            found = await keyturn.until(workflow, "timed_out", "failed", "completed")
            assert (found.status, found.reason) == ("timed_out", "deadline")
            assert (await keyturn.types(workflow))[-1] == "workflow-timed-out"
    assert [one.state for one in (await keyturn.get(waits)).approvals] == ["cancelled"]
    assert (await keyturn.get(done)).status == "completed"
    with pytest.raises(AlreadyResolved):
        await keyturn.approve(waits)


async def test_a_graph_runs_no_more_workflows_at_once_than_it_says(keyturn: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    ids = [await keyturn.submit("limited", trace=str(trace), text=str(tmp_path / "go")) for _ in range(5)]
    async with keyturn.working(), keyturn.working():
        while len(lines(trace)) < 2:
            await until_traced(keyturn, trace, "in")
        other = await keyturn.submit("steps")
        await keyturn.until(other, "completed")
        page = await workflows.page(keyturn.ctx, keyturn.me, graph="limited")
        assert sorted(one.status for one in page.workflows) == ["ready"] * 3 + ["running"] * 2
        (tmp_path / "go").touch()
        for workflow in ids:
            await keyturn.until(workflow, "completed")
    running_now, most = 0, 0
    for line in lines(trace):
        running_now += 1 if line == "in" else -1
        most = max(most, running_now)
    assert most == 2


async def test_a_worker_that_drains_claims_nothing_more(
    keyturn: Keyturn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = asyncio.Event()
    monkeypatch.setattr("orchestrator.worker.log.info", lambda *_: began.set())
    trace, go = tmp_path / "trace", tmp_path / "go"
    await keyturn.submit("blocking", trace=str(trace), text=str(go))

    async def submit_late() -> str:
        await began.wait()
        workflow = await keyturn.submit("steps")
        asyncio.get_running_loop().call_later(0.5, go.touch)
        return workflow

    async with keyturn.working():
        await until_traced(keyturn, trace, "block begins")
        submitting = asyncio.create_task(submit_late())
    late = await submitting
    async with keyturn.ctx.db.connection() as conn:
        row = await rows_of_workflows.get(conn, "default", late)
    assert row is not None
    assert (row["status"], row["epoch"]) == ("ready", 0)


# Versions


async def test_another_version_goes_on_and_the_event_says_so(database_url: str) -> None:
    async with running(database_url, app=APPS / "version_one.json") as first:
        workflow = await first.submit("deployer")
        async with first.working():
            await first.asked(workflow)
    async with running(database_url, app=APPS / "version_two.json") as second:
        await second.approve(workflow)
        async with second.working():
            done = await second.until(workflow, "completed", "failed")
        assert done.status == "completed", done.error
        assert done.result == {"log": ["prepare 1", "gate 2", "apply 2"]}
        page = await workflows.events_page(second.ctx, second.me, workflow, 0, 100)
        starts = [one.data for one in page.events if one.type == "workflow-started"]
        assert [(one["version"], one.get("submitted_for")) for one in starts] == [("1", None), ("2", "1")]


async def test_a_version_without_the_pending_node_fails_as_changed_and_goes_on_after_a_roll_back(
    database_url: str,
) -> None:
    async with running(database_url, app=APPS / "version_one.json") as first:
        workflow = await first.submit("deployer")
        async with first.working():
            await first.asked(workflow)
        await first.approve(workflow)
    async with running(database_url, app=APPS / "version_three.json") as third, third.working():
        error = await failed(third, workflow)
        assert error["code"] == "graph_changed"
        assert error["nodes"] == ["gate"]
    async with running(database_url, app=APPS / "version_one.json") as first, first.working():
        await workflows.retry(first.ctx, first.me, workflow)
        done = await first.until(workflow, "completed", "failed")
    assert done.status == "completed", done.error
    assert done.result == {"log": ["prepare 1", "gate 1", "apply 1"]}
