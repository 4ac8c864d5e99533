"""A worker is killed with SIGKILL before, during and after an effect; another goes on within one lease."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from orchestrator.sdk.effects import DID_NOT_HAPPEN, HAPPENED, STOP
from tests.faults.conftest import RISKY, Farm
from tests.faults.load import Load

LONG_IN_THREAD = pytest.param("charging_in_thread", marks=pytest.mark.faults)


async def killed_at(farm: Farm, *points: str) -> None:
    """A worker runs what is ready until it stands at these points, and dies there; another one takes over."""
    farm.target.hold(*points)
    doomed = farm.doomed()
    for point in points:
        await farm.target.until(f"at {point}")
    await doomed.kill()
    farm.target.release(*points)
    farm.worker()


async def test_another_worker_goes_on_within_one_lease(farm: Farm) -> None:
    workflow = await farm.submit("steps")
    farm.target.hold("it-second")
    doomed = farm.worker(lease_seconds=2.0)
    farm.worker(lease_seconds=2.0)
    await farm.target.until("at it-second")
    owner = next(child for child in farm.children if farm.target.calls()[0].pid == child.pid)
    await owner.kill()
    died = time.monotonic()
    await farm.target.until("at it-second", times=2)
    # One lease, one poll, and what a busy machine takes.
    assert time.monotonic() - died < 2.0 + 1.0 + 1.0
    farm.target.release("it-second")
    await farm.completed(workflow)
    assert doomed.pid
    await farm.check()


@pytest.mark.parametrize("graph", ["charging", LONG_IN_THREAD])
async def test_an_effect_that_had_not_begun_runs_once(farm: Farm, graph: str) -> None:
    workflow = await farm.submit(graph)
    await killed_at(farm, "it-before")
    await farm.completed(workflow)
    assert [call.taken for call in farm.target.calls()] == [True]
    await farm.check()


@pytest.mark.parametrize("graph", ["charging", "charging_in_thread"])
async def test_a_recorded_effect_returns_its_result_and_never_runs_again(farm: Farm, graph: str) -> None:
    workflow = await farm.submit(graph)
    await killed_at(farm, "it-recorded")
    kept = await farm.kept(workflow)
    assert len(farm.target.calls()) == 1
    assert kept["log"] == [f"charge {{'receipt': 'charge {workflow}'}}"]
    await farm.check()


async def test_an_effect_in_doubt_is_settled_by_what_verify_finds(farm: Farm) -> None:
    happened = await farm.submit("charging", label="one", verdict="happened")
    did_not = await farm.submit("charging", label="two", verdict="did not happen")
    await killed_at(farm, "one-called", "two-inside")
    assert (await farm.kept(happened))["log"] == ["charge {'receipt': 'found at the target'}"]
    await farm.completed(did_not)
    assert [call.taken for call in farm.target.calls_of(happened)] == [True]
    assert [call.taken for call in farm.target.calls_of(did_not)] == [True]
    await farm.check()


async def test_an_effect_that_nobody_can_verify_is_put_to_a_person(farm: Farm) -> None:
    happened = await farm.submit("charging", label="one", verdict="unknown")
    did_not = await farm.submit("charging", label="two", verdict="unknown")
    stopped = await farm.submit("charging", label="three", verdict="unknown")
    await killed_at(farm, "one-called", "two-inside", "three-called")
    for workflow, answer in ((happened, HAPPENED), (did_not, DID_NOT_HAPPEN), (stopped, STOP)):
        asked = await farm.keyturn.asked(workflow)
        assert asked.kind == "question"
        assert asked.question is not None
        assert asked.question["options"] == [HAPPENED, DID_NOT_HAPPEN, STOP]
        # Nothing runs while the question stands.
        assert len(farm.target.calls_of(workflow)) == (workflow is not did_not)
        await farm.keyturn.answer(asked.approval_id, answer)
    assert (await farm.kept(happened))["log"] == ["charge None"]
    await farm.completed(did_not)
    assert (await farm.ended(stopped)).reason == "rejected"
    for workflow in (happened, did_not, stopped):
        assert [call.taken for call in farm.target.calls_of(workflow)] == [True]
    await farm.check()


async def test_a_completed_node_with_effects_never_runs_again_once_a_later_node_has_started(farm: Farm) -> None:
    workflow = await farm.submit("steps")
    await killed_at(farm, "it-third")
    await farm.completed(workflow)
    # No ledger here: the third node was under way and ran again, those before it did not.
    assert [call.key.split(":")[1] for call in farm.target.calls()] == ["first", "second", "third", "third"]
    await farm.check()


async def test_a_decision_survives_the_worker_that_was_delivering_it(farm: Farm) -> None:
    workflow = await farm.submit("governed", **RISKY)
    first = farm.doomed()
    await farm.keyturn.asked(workflow)
    farm.target.hold("it-before")
    await farm.keyturn.approve(workflow)
    await farm.target.until("at it-before")
    await first.kill()
    farm.target.release("it-before")
    farm.worker()
    done = await farm.completed(workflow)
    assert [approval.state for approval in done.approvals] == ["executed"]
    assert len(farm.target.calls_of(workflow)) == 2
    await farm.check()


@pytest.mark.parametrize("point", [pytest.param("it-inside", marks=pytest.mark.faults), "it-called", "it-recorded"])
async def test_an_effect_bound_to_its_approval_happens_once_under_it(farm: Farm, point: str) -> None:
    workflow = await farm.submit("bound", **RISKY)
    farm.target.hold(point)
    doomed = farm.doomed()
    await farm.keyturn.asked(workflow)
    await farm.keyturn.approve(workflow)
    await farm.target.until(f"at {point}")
    await doomed.kill()
    farm.target.release(point)
    farm.worker()
    done = await farm.completed(workflow)
    assert [approval.state for approval in done.approvals] == ["executed"]
    assert [call.taken for call in farm.target.calls_of(workflow)] == [True, True]
    await farm.check()


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_nothing_is_lost_or_done_twice_when_workers_are_killed_at_random_under_load(farm: Farm) -> None:
    kills = rounds = 0
    # Whatever is under way when its worker dies counts as an attempt of it, and nothing here is poison.
    # A lease is longer than a loaded machine keeps a living worker from renewing it: what is killed here is to be dead.
    workers = [farm.worker(lease_seconds=3.0, max_attempts=1000) for _ in range(3)]
    while kills <= 20:
        load = asyncio.create_task(Load(farm).run(300, first=300 * rounds))
        while not load.done():
            await asyncio.wait({load}, timeout=random.uniform(0.05, 0.6))  # noqa: S311 when is what is at random
            place = random.randrange(len(workers))  # noqa: S311
            await workers[place].kill()
            workers[place] = farm.worker(lease_seconds=3.0, max_attempts=1000)
            kills += 1
        await load
        rounds += 1
    await farm.check()
