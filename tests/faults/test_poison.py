"""A graph that kills every worker it runs on fails alone; what ran beside it goes on."""

from __future__ import annotations

import asyncio

from tests.faults.conftest import Farm


async def supervise(farm: Farm, max_attempts: int) -> None:
    """Keep one worker running, as a service of the operating system would."""
    while True:
        worker = farm.worker(lease_seconds=1.0, max_attempts=max_attempts)
        await worker.ended(120.0)


async def test_a_graph_that_kills_its_workers_fails_as_poisoned_and_the_others_complete(farm: Farm) -> None:
    poison = await farm.submit("poison", label="poison")
    # These are in the same process, in the middle of a node, whenever it dies.
    others = [await farm.submit("charging", label=str(number)) for number in range(4)]
    farm.target.hold("poison-die", "0-inside", "1-inside")
    supervising = asyncio.create_task(supervise(farm, max_attempts=3))
    for point in ("poison-die", "0-inside", "1-inside"):
        await farm.target.until(f"at {point}")
    farm.target.release("poison-die", "0-inside", "1-inside")
    try:
        failed = await farm.keyturn.until(poison, "failed", "completed", seconds=40)
        for other in others:
            await farm.completed(other)
    finally:
        supervising.cancel()
    assert failed.reason == "poisoned"
    assert failed.error is not None
    assert failed.error["attempts"] == 3
    assert farm.target.marks().count("die") == 3
    # Its workers died of it, each time, and of nothing else.
    assert len(farm.children) == 4
    await farm.check()
