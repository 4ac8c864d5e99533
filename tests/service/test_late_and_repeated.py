"""Decisions that come late, twice, or through somebody else: none runs what nobody meant, and none is lost."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.core.errors import (
    AmbiguousApproval,
    NotEligible,
    SelfApproval,
    StaleRevision,
    TransitionConflict,
    Unavailable,
)
from orchestrator.embedded import EmbeddedPostgres
from orchestrator.service import approvals, workflows
from orchestrator.service.schema import prepare_database
from orchestrator.wire import ApproveRequest
from orchestrator.worker import Worker
from tests.conftest import REPOSITORY
from tests.harness import APPS, Keyturn, caller, running


@pytest.fixture
async def late(database_url: str) -> AsyncGenerator[Keyturn]:
    async with running(database_url, app=APPS / "late.json") as found:
        yield found


async def _let_lapse(keyturn: Keyturn, approval_id: str) -> None:
    async with keyturn.ctx.db.connection() as conn:
        await conn.execute("UPDATE keyturn.approvals SET lapses_at = now() WHERE approval_id = %s", (approval_id,))


async def test_a_batch_with_a_lapsed_item_is_asked_again_whole(late: Keyturn) -> None:
    async with late.working():
        workflow = await late.submit("batch")
        asked = (await late.until(workflow, "waiting")).approvals
    by_name = {one.action["operation"]: one.approval_id for one in asked if one.action}
    for approval_id in by_name.values():
        await late.approve(workflow, approval_id=approval_id)
    await _let_lapse(late, by_name["delete_everything"])
    async with late.working():
        failed = await late.until(workflow, "failed", "completed")
        assert failed.reason == "approval_lapsed"
        await workflows.retry(late.ctx, late.me, workflow)
        again = await late.until(workflow, "waiting", "failed", "completed")
        pending = {one.action["operation"]: one for one in again.approvals if one.state == "pending" and one.action}
        assert set(pending) == {"delete_everything", "send_mail"}
        await late.reject(workflow, approval_id=pending["delete_everything"].approval_id)
        await late.approve(workflow, approval_id=pending["send_mail"].approval_id)
        done = await late.until(workflow, "completed", "failed")
    assert done.result == {"log": [{"type": "ignore", "args": None}, {"type": "accept", "args": None}]}


async def test_the_life_of_approvals_of_one_pause_begins_with_the_last_decision(late: Keyturn) -> None:
    async with late.working():
        workflow = await late.submit("side_by_side")
        waiting = await late.until(workflow, "waiting")
        (low,) = [one for one in waiting.approvals if one.state == "approved"]
        (high,) = [one for one in waiting.approvals if one.state == "pending"]
        await _let_lapse(late, low.approval_id)
        await late.approve(workflow, approval_id=high.approval_id)
        assert (await late.until(workflow, "completed", "failed")).status == "completed"


async def test_an_effect_that_failed_does_not_run_again_after_its_approval_lapsed(
    late: Keyturn, tmp_path: Path
) -> None:
    trace, broken = tmp_path / "trace", tmp_path / "broken"
    broken.touch()
    async with late.working():
        workflow = await late.submit("bound", trace=str(trace), broken=str(broken))
        asked = await late.asked(workflow)
        await late.approve(workflow)
        failed = await late.until(workflow, "failed")
        # Other nodes with effects are done, the approved one is not: the approval is not used up.
        assert failed.approvals[0].state == "approved"
        await _let_lapse(late, asked.approval_id)
        broken.unlink()
        await workflows.retry(late.ctx, late.me, workflow)
        await asyncio.sleep(0)
        again = await late.until(workflow, "failed", "completed")
    assert (again.status, again.reason, again.approvals[0].state) == ("failed", "approval_lapsed", "lapsed")
    assert trace.read_text().splitlines() == ["charge"]


async def test_a_bound_effect_that_is_retried_in_time_uses_its_approval_up(late: Keyturn, tmp_path: Path) -> None:
    trace, broken = tmp_path / "trace", tmp_path / "broken"
    broken.touch()
    async with late.working():
        workflow = await late.submit("bound", trace=str(trace), broken=str(broken))
        await late.asked(workflow)
        await late.approve(workflow)
        await late.until(workflow, "failed")
        broken.unlink()
        await workflows.retry(late.ctx, late.me, workflow)
        done = await late.until(workflow, "completed")
    assert done.approvals[0].state == "executed"


async def test_a_worker_that_dies_after_a_bound_effect_does_not_make_anybody_decide_again(
    late: Keyturn, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with late.working() as worker:
        workflow = await late.submit("lingering", trace=str(trace))
        await late.asked(workflow)
        await late.approve(workflow)
        async with asyncio.timeout(20):
            while not trace.exists() or "charged" not in trace.read_text():  # noqa: ASYNC110 the node leaves only this
                await asyncio.sleep(0.02)
        # As if it had died: nothing of the segment is committed, and its lease runs out.
        worker._running[workflow].task.cancel()
        done = await late.until(workflow, "completed", "waiting", "failed")
    assert (done.status, [one.state for one in done.approvals]) == ("completed", ["executed"])
    assert trace.read_text().splitlines() == ["charge", "charged", "charged"]


async def test_the_same_body_sent_again_does_not_approve_the_next_gate_unseen(late: Keyturn) -> None:
    async with late.working():
        workflow = await late.submit("two_gates")
        await late.asked(workflow)
        assert await late.approve(workflow) == "resolved"
        await late.until(workflow, "waiting")
        second = await late.asked(workflow)
        with pytest.raises(AmbiguousApproval):
            await late.approve(workflow)
        assert (await late.get(workflow)).status == "waiting"
        assert await late.approve(workflow, approval_id=second.approval_id) == "resolved"
        assert (await late.until(workflow, "completed", "failed")).status == "completed"


async def test_an_idempotency_key_is_replayed_when_the_graph_has_asked_more_since(late: Keyturn) -> None:
    body = ApproveRequest(justification="looks right")
    async with late.working():
        workflow = await late.submit("two_gates")
        first = await late.asked(workflow)
        one = await approvals.approve(late.ctx, caller("tara"), workflow, body, "key-1")
        await late.until(workflow, "waiting")
        two = await approvals.approve(late.ctx, caller("tara"), workflow, body, "key-1")
    assert (one.code, two.code, two.approval_id) == ("resolved", "replayed", first.approval_id)


async def test_a_bridge_speaks_for_people_there_are_and_never_for_its_own_requests(late: Keyturn) -> None:
    bridge = caller("bridge", "default", "act_as")
    mine = caller("rita", "default", "act_as")
    async with late.working():
        workflow = await late.submit("two_gates")
        await late.asked(workflow)
        with pytest.raises(SelfApproval):
            await approvals.approve(late.ctx, mine, workflow, ApproveRequest(justification="x", approved_by="tara"))
        forged = ApproveRequest(justification="x", approved_by="policy:level:low@1")
        with pytest.raises(NotEligible):
            await approvals.approve(late.ctx, bridge, workflow, forged)
        done = await approvals.approve(
            late.ctx, bridge, workflow, ApproveRequest(justification="x", approved_by="tara")
        )
    assert (done.code, done.resolved_by) == ("resolved", "tara")


async def test_revision_zero_is_a_stale_revision(late: Keyturn) -> None:
    async with late.working():
        workflow = await late.submit("two_gates")
        await late.asked(workflow)
        with pytest.raises(StaleRevision):
            await late.approve(workflow, revision=0)


async def test_cancelling_ends_approved_siblings_and_its_refusals_are_events(late: Keyturn) -> None:
    async with late.working():
        workflow = await late.submit("side_by_side")
        await late.until(workflow, "waiting")
        await workflows.cancel(late.ctx, late.me, workflow, "enough")
        for verb in (workflows.cancel, workflows.retry):
            with pytest.raises(TransitionConflict):
                await verb(late.ctx, late.me, workflow)
    assert {one.state for one in (await late.get(workflow)).approvals} == {"cancelled"}
    assert (await late.types(workflow))[-3:] == ["workflow-cancelled", "refused", "refused"]


async def test_an_error_does_not_repeat_a_secret_of_the_input(late: Keyturn) -> None:
    async with late.working():
        workflow = await late.submit("leaking", password="CANARY-77")
        failed = await late.until(workflow, "failed")
    page = await workflows.events_page(late.ctx, late.me, workflow, 0, 100)
    assert "CANARY-77" not in failed.model_dump_json() + page.model_dump_json()
    assert "cannot log in" in str(failed.error)


async def _completed(keyturn: Keyturn, workflow: str) -> bool:
    try:
        return (await keyturn.get(workflow)).status == "completed"
    except Unavailable:
        return False


async def test_an_outage_longer_than_a_lease_does_not_run_a_node_twice_at_once(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="keyturn-outage-"))
    server = EmbeddedPostgres(folder)
    await asyncio.to_thread(server.start)
    trace = tmp_path / "trace"
    try:
        await prepare_database(server.url, REPOSITORY / "migrations")
        async with running(server.url, app=APPS / "late.json", lease_seconds=2.0) as keyturn, keyturn.working():
            workflow = await keyturn.submit("sleeping", trace=str(trace))
            async with asyncio.timeout(20):
                while not trace.exists():  # noqa: ASYNC110 the node leaves nothing but this file
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(server.stop)
            await asyncio.sleep(timedelta(seconds=3).total_seconds())  # an outage of more than a lease
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(60):
                while not await _completed(keyturn, workflow):  # noqa: ASYNC110 no channel tells while it is away
                    await asyncio.sleep(0.1)  # the pool, too, finds its way back by itself
        assert trace.read_text().splitlines() == ["begin", "end"]
    finally:
        await asyncio.to_thread(server.stop)
        shutil.rmtree(folder, ignore_errors=True)


async def test_a_worker_stopped_right_after_its_start_ends(late: Keyturn) -> None:
    for delay in range(0, 24, 2):
        stop = asyncio.Event()
        task = asyncio.create_task(Worker(late.ctx, late.catalog, late.settings).run(stop))
        await asyncio.sleep(delay / 250)
        stop.set()
        await asyncio.wait_for(task, 15)
