"""SIGTERM: a worker finishes the superstep it is in, hands its workflows back and ends; nothing runs twice."""

from __future__ import annotations

import asyncio
import os
import sys

from tests.conftest import REPOSITORY
from tests.faults.conftest import RISKY, Farm


async def test_a_terminated_worker_hands_its_workflow_back_and_no_completed_node_runs_again(farm: Farm) -> None:
    farm.target.hold("it-second")
    workflow = await farm.submit("steps")
    # Its lease is long: what it does not hand back would be stranded.
    worker = farm.worker(lease_seconds=120.0)
    await farm.target.until("at it-second")
    worker.terminate()
    farm.target.release("it-second")
    assert await worker.ended() == 0
    handed_back = await farm.keyturn.get(workflow)
    assert handed_back.status == "ready"
    assert handed_back.attempts == 0
    successor = farm.worker()
    await farm.completed(workflow)
    assert [(call.key.split(":")[1], call.pid) for call in farm.target.calls()] == [
        ("first", worker.pid),
        ("second", worker.pid),
        ("third", successor.pid),
    ]
    await farm.check(steps_alike=True)


async def test_a_draining_worker_takes_nothing_new_and_finishes_what_a_last_step_needs(farm: Farm) -> None:
    farm.target.hold("it-third")
    workflow = await farm.submit("steps")
    worker = farm.worker()
    await farm.target.until("at it-third")
    worker.terminate()
    await farm.said(worker, "draining")
    later = await farm.submit("steps", label="later")
    farm.target.release("it-third")
    assert await worker.ended() == 0
    assert (await farm.keyturn.get(workflow)).status in ("completed", "ready")
    assert (await farm.keyturn.get(later)).status == "ready"
    farm.worker()
    await farm.completed(workflow)
    await farm.completed(later)
    assert len(farm.target.calls_of(workflow)) == 3
    await farm.check(steps_alike=True)


async def test_the_command_keyturn_worker_drains_on_sigterm_too(farm: Farm) -> None:
    farm.target.hold("it-second")
    workflow = await farm.submit("governed", **RISKY)
    steps = await farm.submit("steps")
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator.cli", "worker", "--app", str(farm.app)),
        cwd=REPOSITORY,
        env={**os.environ, "KEYTURN_DATABASE_URL": farm.database_url, "KEYTURN_LEASE_SECONDS": "120"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await farm.target.until("at it-second")
        await farm.keyturn.asked(workflow)
        command.terminate()
        farm.target.release("it-second")
        assert await asyncio.wait_for(command.wait(), 20) == 0
    finally:
        if command.returncode is None:
            command.kill()
            await command.wait()
    assert (await farm.keyturn.get(steps)).status == "ready"
    await farm.keyturn.approve(workflow)
    farm.worker()
    await farm.completed(workflow)
    await farm.completed(steps)
    await farm.check(steps_alike=True)
