"""A worker is stopped past its lease and continued: whoever took over has the only say."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import AsyncConnection

from tests.faults.conftest import RISKY, Farm


async def kept(farm: Farm, workflow: str) -> list[Any]:
    """Every row a zombie could still write."""
    async with await AsyncConnection.connect(farm.database_url) as conn:
        statements = (
            b"SELECT checkpoint_id, checkpoint::text FROM langgraph.checkpoints WHERE thread_id = %s ORDER BY 1",
            b"SELECT task_id, idx, channel, blob FROM langgraph.checkpoint_writes WHERE thread_id = %s ORDER BY 1, 2",
            b"SELECT seq, type, actor FROM keyturn.events WHERE workflow_id = %s ORDER BY 1",
            b"SELECT key, state, result::text, attempts FROM keyturn.effects WHERE workflow_id = %s ORDER BY 1",
            b"SELECT status, epoch, result::text, last_hash FROM keyturn.workflows WHERE workflow_id = %s",
        )
        return [await (await conn.execute(statement, [workflow])).fetchall() for statement in statements]


async def stopped_at(farm: Farm, graph: str, point: str) -> str:
    """A workflow whose worker is stopped at `point` for longer than its lease, and which another worker finished."""
    workflow = await farm.submit(graph, **RISKY)
    zombie = farm.doomed()
    await farm.keyturn.asked(workflow)
    farm.target.hold(point)
    await farm.keyturn.approve(workflow)
    await farm.target.until(f"at {point}")
    await zombie.freeze()
    farm.target.release(point)
    farm.worker()
    await farm.completed(workflow)
    return workflow


def long(*values: str) -> Any:
    return pytest.param(*values, marks=pytest.mark.faults)


# In a thread the zombie's effect goes on; in an async node the renewal that fails stops it first, or its next write.
@pytest.mark.parametrize(
    ("graph", "point"),
    [
        long("governed", "it-before"),
        long("governed", "it-inside"),
        ("governed", "it-called"),
        long("governed", "it-recorded"),
        long("governed_in_thread", "it-before"),
        ("governed_in_thread", "it-inside"),
        long("governed_in_thread", "it-called"),
        ("governed_in_thread", "it-recorded"),
    ],
)
async def test_the_writes_of_a_zombie_are_refused(farm: Farm, graph: str, point: str) -> None:
    workflow = await stopped_at(farm, graph, point)
    zombie, successor = farm.children
    before = await kept(farm, workflow)
    zombie.thaw()
    # The node's own key: it is the third step of the graph.
    node = "charge" if graph == "governed" else "charge_in_thread"
    await farm.target.until_any(f"broke {workflow}:{node}:3 ", f"end {workflow}:{node}:3", times=2)
    # It has not taken its stop for a node that blocks its loop.
    assert zombie.alive
    # It is out of the zombie's hands when the zombie does other work, alone.
    successor.terminate()
    await successor.ended()
    other = await farm.submit("steps")
    await farm.completed(other)
    assert {call.pid for call in farm.target.calls_of(other)} == {zombie.pid}
    assert await kept(farm, workflow) == before
    assert farm.target.applied()[f"charge {workflow}"] == 1
    # It never got to the node behind.
    assert {call.pid for call in farm.target.calls_of(workflow) if ":third:" in call.key} == {successor.pid}
    await farm.check()
