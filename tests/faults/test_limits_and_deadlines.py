"""Limits over several processes, and total time-outs wherever a workflow stands."""

from __future__ import annotations

from psycopg import AsyncConnection

from orchestrator.service import workflows
from orchestrator.service.dispatch import Claimer
from orchestrator.wire import SubmitRequest
from tests.faults.conftest import RISKY, Farm


async def test_a_limit_on_running_workflows_holds_over_two_worker_processes(farm: Farm) -> None:
    submitted = [await farm.submit("limited") for _ in range(12)]
    farm.worker()
    farm.worker()
    for workflow in submitted:
        await farm.completed(workflow)
    running = most = 0
    for line in farm.target.marks():
        running += {"in": 1, "out": -1}[line]
        most = max(most, running)
    assert most == 2
    await farm.check(steps_alike=True)


async def test_a_worker_stopped_while_it_claims_keeps_no_other_from_claiming(farm: Farm) -> None:
    async with await AsyncConnection.connect(farm.database_url) as stopped, stopped.transaction():
        # As it holds it, in the middle of counting what runs.
        await stopped.execute("SELECT pg_advisory_xact_lock(hashtextextended('keyturn.limited', 0))")
        limited = await farm.submit("limited")
        claimer = Claimer(farm.keyturn.ctx, "elsewhere", farm.keyturn.catalog, 15.0, 4)
        assert await claimer.claim(0, 0) == []
        assert claimer.busy, "it would look again only when it is woken"
        farm.worker()
        other = await farm.submit("steps")
        await farm.keyturn.until(other, "completed", seconds=5.0)
        assert (await farm.keyturn.get(limited)).status == "ready"
    await farm.completed(limited)
    await farm.check()


async def submit(farm: Farm, graph: str, deadline: float, **content: object) -> str:
    request = SubmitRequest(graph=graph, input={"target": str(farm.target.folder), **content}, deadline=deadline)
    return (await workflows.submit(farm.keyturn.ctx, farm.keyturn.me, request)).workflow_id


async def test_a_total_time_out_ends_a_workflow_that_is_ready_running_or_waiting(farm: Farm) -> None:
    farm.target.hold("it-second", "it-block", "in the way-second")
    # The one graph of which only one may run is taken, so another of it stays ready.
    in_the_way = await farm.submit("single", label="in the way")
    farm.worker()
    await farm.target.until("at in the way-second")
    ready = await submit(farm, "single", 2.0)
    running = await submit(farm, "steps", 2.0)
    blocking = await submit(farm, "blocking", 2.0)
    waiting = await submit(farm, "governed", 2.0, **RISKY)
    in_time = await submit(farm, "steps", 60.0, label="quick")
    await farm.target.until("at it-second")
    await farm.target.until("at it-block")
    asked = await farm.keyturn.asked(waiting)
    assert (await farm.keyturn.get(ready)).status == "ready"
    for workflow in (ready, running, blocking, waiting):
        ended = await farm.ended(workflow)
        assert (ended.status, ended.reason) == ("timed_out", "deadline")
        assert (await farm.keyturn.types(workflow))[-1] == "workflow-timed-out"
    assert [one.state for one in (await farm.keyturn.get(waiting)).approvals] == ["cancelled"]
    farm.target.release("it-second", "it-block", "in the way-second")
    await farm.target.until_any(f"broke {running}:second:2 CancelledError")
    await farm.target.until(f"end {blocking}:block:1")
    await farm.completed(in_time)
    await farm.completed(in_the_way)
    for workflow in (ready, running, blocking, waiting):
        assert (await farm.keyturn.get(workflow)).status == "timed_out"
    assert asked.approval_id
    assert [call.key.split(":")[1] for call in farm.target.calls_of(running)] == ["first", "second"]
    assert [call.key.split(":")[1] for call in farm.target.calls_of(blocking)] == ["block"]
    await farm.check()


async def test_what_may_have_run_under_an_approval_is_looked_at_also_once_it_has_lapsed(farm: Farm) -> None:
    doomed = farm.doomed()
    workflow = await farm.submit("bound", **RISKY)
    await farm.keyturn.asked(workflow)
    farm.target.hold("it-called")
    await farm.keyturn.approve(workflow)
    await farm.target.until("at it-called")
    await doomed.kill()
    async with farm.keyturn.ctx.db.connection() as conn:
        await conn.execute("UPDATE keyturn.approvals SET lapses_at = now() - interval '1 minute'")
    farm.target.release("it-called")
    farm.worker()
    await farm.completed(workflow)
    await farm.check()
