"""The checks can fail: each planted bug is found by the invariants, in the scenario that the others pass."""

from __future__ import annotations

import pytest

from tests.faults import planted
from tests.faults.conftest import RISKY, Farm
from tests.faults.invariants import violations

# The same without a bug; the other tests say so already.
LONG = pytest.mark.faults
CONTROL = pytest.param(None, set[str](), marks=LONG)
WITHOUT = pytest.param(False, marks=LONG)


async def broken(farm: Farm) -> set[str]:
    """The numbers of the invariants that do not hold."""
    return {one.split()[0] for one in await violations(farm.database_url, farm.target, farm.promised)}


async def killed_at(farm: Farm, point: str, bug: str | None) -> None:
    """What is ready runs up to a point, where its worker is killed; another worker with the same bug takes over."""
    plants = (bug,) if bug else ()
    farm.target.hold(point)
    doomed = farm.doomed(plants=plants)
    await farm.target.until(f"at {point}")
    await doomed.kill()
    farm.target.release(point)
    farm.worker(plants=plants)


async def noted(farm: Farm, workflow: str, kind: str, times: int) -> bool:
    return (await farm.keyturn.types(workflow)).count(kind) == times


@pytest.mark.parametrize("planting", [True, WITHOUT])
async def test_a_zombie_that_is_not_fenced_is_found(farm: Farm, planting: bool) -> None:
    if planting:
        await planted.remove_fence(farm.database_url)
    farm.target.hold("it-second")
    workflow = await farm.submit("steps")
    zombie = farm.doomed(plants=("deaf",))
    await farm.target.until("at it-second")
    await zombie.freeze()
    farm.target.release("it-second")
    successor = farm.worker()
    await farm.completed(workflow)
    successor.terminate()
    await successor.ended()
    zombie.thaw()
    await farm.target.until(f"end {workflow}:second:2", times=2)
    if planting:
        await farm.until(lambda: noted(farm, workflow, "workflow-completed", 2))
    else:
        await farm.said(zombie, "is no longer held at epoch 1")
    assert await broken(farm) == ({"I9"} if planting else set())


@pytest.mark.parametrize(("bug", "found"), [("random keys", {"I2", "I4"}), CONTROL])
async def test_an_effect_under_another_key_each_time_is_found(farm: Farm, bug: str | None, found: set[str]) -> None:
    workflow = await farm.submit("governed", operation="vacuum")
    await killed_at(farm, "it-called", bug)
    await farm.completed(workflow)
    assert await broken(farm) == found


@pytest.mark.parametrize(("bug", "found"), [("late barrier", {"I8"}), CONTROL])
async def test_a_completed_node_that_runs_again_is_found(farm: Farm, bug: str | None, found: set[str]) -> None:
    workflow = await farm.submit("steps")
    await killed_at(farm, "it-third", bug)
    await farm.completed(workflow)
    assert await broken(farm) == found


@pytest.mark.parametrize(("bug", "found"), [("delivered early", {"I1"}), CONTROL])
async def test_a_decision_that_is_lost_with_its_worker_is_found(farm: Farm, bug: str | None, found: set[str]) -> None:
    workflow = await farm.submit("governed", **RISKY)
    asking = farm.worker(plants=(bug,) if bug else ())
    await farm.keyturn.asked(workflow)
    asking.terminate()
    await asking.ended()
    await farm.keyturn.approve(workflow)
    await killed_at(farm, "it-before", bug)
    await farm.keyturn.until(workflow, "completed", "waiting")
    assert await broken(farm) == found


async def test_a_decision_that_is_acknowledged_without_being_stored_is_found(farm: Farm) -> None:
    farm.worker()
    workflow = await farm.submit("governed", **RISKY)
    asked = await farm.keyturn.asked(workflow)
    with planted.acknowledged_without_being_stored():
        assert await farm.keyturn.approve(workflow) == "resolved"
    farm.promised.decided[asked.approval_id] = ("approve", "tara")
    assert await broken(farm) == {"I7"}


@pytest.mark.parametrize(
    ("lost", "found"),
    [("resolution", {"I5", "I7"}), ("transition", {"I4", "I6"}), pytest.param(None, set[str](), marks=LONG)],
)
async def test_a_decision_that_is_acknowledged_and_not_whole_is_found(
    farm: Farm, lost: str | None, found: set[str]
) -> None:
    farm.worker()
    workflow = await farm.submit("governed", **RISKY)
    asked = await farm.keyturn.asked(workflow)
    if lost is not None:
        await planted.lose(farm.database_url, lost)
    assert await farm.keyturn.approve(workflow) == "resolved"
    farm.promised.decided[asked.approval_id] = ("approve", "tara")
    if lost is None:
        await farm.completed(workflow)
    # What was lost lets the worker go on at most to asking again.
    await farm.completed(await farm.submit("steps"))
    assert await broken(farm) == found
