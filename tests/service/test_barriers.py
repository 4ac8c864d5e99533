"""When the barrier saver commits, proved on real Postgres: what another connection sees when each node starts."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from orchestrator.engine.saver import BarrierSaver, Progress
from orchestrator.sdk import PURE
from orchestrator.store import checkpoints
from orchestrator.store.checkpoints import Batch
from orchestrator.store.db import Database

PURE_NODES = frozenset({"look", "think"})


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    items: list[str]
    number: int


@dataclass
class Scene:
    """A graph run on a barrier saver; `happened` lists nodes and commits in their order."""

    db: Database
    happened: list[str] = field(default_factory=list)

    def saver(self, **settings: Any) -> BarrierSaver:
        async def commit(thread_id: str, batch: Batch, progress: Progress) -> None:
            async with self.db.transaction() as conn:
                await checkpoints.write(conn, thread_id, batch)
            self.happened.append("commit")

        return BarrierSaver(self.db, commit, pure=PURE_NODES, **settings)

    def node(self, name: str) -> Callable[[State], State]:
        def run(state: State) -> State:
            self.happened.append(name)
            return {"log": [name]}

        return run

    async def rows(self, table: str) -> int:
        """How many rows another connection sees."""
        async with self.db.connection() as conn:
            found = await (await conn.execute(COUNTS[table])).fetchone()
            assert found is not None
            return int(found["count"])


COUNTS = {
    "checkpoints": "SELECT count(*) FROM langgraph.checkpoints",
    "writes": "SELECT count(*) FROM langgraph.checkpoint_writes",
    "blobs": "SELECT count(*) FROM langgraph.checkpoint_blobs",
}


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    db = Database(database_url)
    await db.open()
    yield Scene(db)
    await db.close()


def chain(nodes: dict[str, Any], **settings: Any) -> Any:
    builder = StateGraph(State)
    for name, node in nodes.items():
        builder.add_node(name, node)
    for source, target in zip([START, *nodes], [*nodes, END], strict=True):
        builder.add_edge(source, target)
    return builder.compile(**settings)


async def drive(graph: Any, saver: BarrierSaver, feed: Any, thread: str = "t") -> Any:
    config = {"configurable": {"thread_id": thread, "__pregel_checkpointer": saver, "__pregel_strict_resume": True}}
    return await graph.ainvoke(feed, config, durability="sync", version="v2")


async def test_steps_without_effects_cost_no_commit(scene: Scene) -> None:
    saver = scene.saver()
    await drive(chain({name: scene.node(name) for name in ("look", "think", "act")}), saver, {"log": []})
    assert scene.happened == ["look", "think", "act"]
    assert await scene.rows("checkpoints") == 0
    await saver.barrier()
    assert scene.happened[3:] == ["commit"]
    assert await scene.rows("checkpoints") == 1


async def test_a_completed_node_with_effects_is_committed_before_the_next_one_starts(scene: Scene) -> None:
    seen: list[tuple[int, list[str]]] = []

    async def second(state: State) -> State:
        scene.happened.append("second")
        stock = await scene.saver().aget_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
        assert stock is not None
        seen.append((await scene.rows("checkpoints"), stock.checkpoint["channel_values"]["log"]))
        return {"log": ["second"]}

    graph = chain({"first": scene.node("first"), "second": second, "third": scene.node("third")})
    await drive(graph, scene.saver(), {"log": []})
    assert scene.happened == ["first", "commit", "second", "commit", "third"]
    assert seen == [(1, ["first"])]
