"""Cancelling ends a workflow at once, wherever it stands, and nothing that still runs can bring it back."""

from __future__ import annotations

import pytest

from orchestrator.core.errors import TransitionConflict
from orchestrator.service import workflows
from orchestrator.wire import WorkflowRecord
from tests.faults.conftest import RISKY, Farm


async def cancel(farm: Farm, workflow: str) -> WorkflowRecord:
    """Cancel, and the record right after: no waiting, whatever a worker does."""
    told = await workflows.cancel(farm.keyturn.ctx, farm.keyturn.me, workflow, "changed my mind")
    assert told.status == "cancelled"
    return await farm.keyturn.get(workflow)


async def stays_cancelled(farm: Farm, workflow: str) -> None:
    """A worker that has done other work since has not touched it."""
    await farm.completed(await farm.submit("steps"))
    found = await farm.keyturn.get(workflow)
    assert found.status == "cancelled"
    assert found.result is None
    assert (await farm.keyturn.types(workflow))[-1] == "workflow-cancelled"
    with pytest.raises(TransitionConflict):
        await workflows.cancel(farm.keyturn.ctx, farm.keyturn.me, workflow)
    with pytest.raises(TransitionConflict):
        await workflows.retry(farm.keyturn.ctx, farm.keyturn.me, workflow)
    await farm.check()


async def test_a_ready_workflow_that_is_cancelled_never_starts(farm: Farm) -> None:
    workflow = await farm.submit("steps")
    assert (await cancel(farm, workflow)).status == "cancelled"
    farm.worker()
    await stays_cancelled(farm, workflow)
    assert farm.target.calls_of(workflow) == []


async def test_a_running_async_node_is_stopped_by_a_cancel(farm: Farm) -> None:
    farm.worker()
    farm.target.hold("it-second")
    workflow = await farm.submit("steps")
    await farm.target.until("at it-second")
    assert (await cancel(farm, workflow)).status == "cancelled"
    # The node itself is cancelled: it does not stay until it is let go.
    await farm.target.until_any(f"broke {workflow}:second:2 CancelledError")
    farm.target.release("it-second")
    await stays_cancelled(farm, workflow)
    assert [call.key.split(":")[1] for call in farm.target.calls_of(workflow)] == ["first", "second"]


async def test_a_blocking_node_cannot_hold_up_a_cancel_and_its_result_is_refused(farm: Farm) -> None:
    farm.worker()
    farm.target.hold("it-block")
    workflow = await farm.submit("blocking")
    await farm.target.until("at it-block")
    found = await cancel(farm, workflow)
    assert found.status == "cancelled"
    assert found.finished_at is not None
    farm.target.release("it-block")
    await farm.target.until(f"end {workflow}:block:1")
    await stays_cancelled(farm, workflow)
    assert [call.key.split(":")[1] for call in farm.target.calls_of(workflow)] == ["block"]


async def test_a_waiting_workflow_that_is_cancelled_can_no_longer_be_approved(farm: Farm) -> None:
    farm.worker()
    workflow = await farm.submit("governed", **RISKY)
    await farm.keyturn.asked(workflow)
    found = await cancel(farm, workflow)
    assert [approval.state for approval in found.approvals] == ["cancelled"]
    await stays_cancelled(farm, workflow)
    assert farm.target.calls_of(workflow) == []


async def test_a_cancel_that_no_worker_hears_of_is_obeyed_all_the_same(farm: Farm) -> None:
    """The worker is stopped when the cancel is rung, past its lease, and goes on later."""
    worker = farm.doomed()
    farm.target.hold("it-block")
    workflow = await farm.submit("blocking")
    await farm.target.until("at it-block")
    await worker.freeze()
    assert (await cancel(farm, workflow)).status == "cancelled"
    farm.target.release("it-block")
    worker.thaw()
    await farm.target.until(f"end {workflow}:block:1")
    await stays_cancelled(farm, workflow)
    assert [call.key.split(":")[1] for call in farm.target.calls_of(workflow)] == ["block"]
