"""When the barrier saver commits, proved on real Postgres: what another connection sees when each node starts."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, LiteralString, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from orchestrator.engine.saver import BarrierSaver
from orchestrator.engine.standing import Progress
from orchestrator.store.checkpoints import Batch
from orchestrator.store.db import Connection, Database
from tests.apps.state_graphs import rebuilt
from tests.harness import write_checkpoints

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
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def saver(self, **settings: Any) -> BarrierSaver:
        async def commit(thread_id: str, batch: Batch, progress: Progress) -> None:
            async with self.db.transaction() as conn:
                await write_checkpoints(conn, thread_id, batch)
            self.happened.append("commit")
            async with self.changed:
                self.changed.notify_all()

        return BarrierSaver(self.db, commit, pure=PURE_NODES, **settings)

    async def committed(self, times: int) -> None:
        """Wait until there were that many commits."""
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: self.happened.count("commit") >= times)

    def node(self, name: str) -> Callable[[Any], dict[str, Any]]:
        def run(state: Any) -> dict[str, Any]:
            self.happened.append(name)
            return {"log": [name]}

        return run

    async def rows(self, table: str) -> int:
        """How many rows another connection sees."""
        async with self.db.connection() as conn:
            found = await (await conn.execute(COUNTS[table])).fetchone()
            assert found is not None
            return int(found["count"])


COUNTS: dict[str, LiteralString] = {
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

    async def second(state: Any) -> Any:
        scene.happened.append("second")
        stock = await scene.saver().aget_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
        assert stock is not None
        seen.append((await scene.rows("checkpoints"), stock.checkpoint["channel_values"]["log"]))
        return {"log": ["second"]}

    graph = chain({"first": scene.node("first"), "second": second, "third": scene.node("third")})
    await drive(graph, scene.saver(), {"log": []})
    assert scene.happened == ["first", "commit", "second", "commit", "third"]
    assert seen == [(1, ["first"])]


async def parents(scene: Scene) -> dict[str, str | None]:
    async with scene.db.connection() as conn:
        found = await conn.execute("SELECT checkpoint_id, parent_checkpoint_id FROM langgraph.checkpoints")
        return {row["checkpoint_id"]: row["parent_checkpoint_id"] for row in await found.fetchall()}


async def test_superseded_checkpoints_are_not_written_unless_the_full_history_is_asked_for(scene: Scene) -> None:
    names = ("look", "think", "act", "last")
    graph = chain({name: scene.node(name) for name in names})
    newest = scene.saver()
    await drive(graph, newest, {"log": []}, "newest")
    await newest.barrier()
    found = await parents(scene)
    assert len(found) == 2, "one at the barrier between the two effects, one at the end"
    assert {parent for parent in found.values() if parent} < set(found), "a parent that is named is there"
    blobs = await scene.rows("blobs")

    full = scene.saver(keep_all=True)
    await drive(graph, full, {"log": []}, "full")
    found = await parents(scene)
    assert len(found) == 2 + len(names) + 2
    assert {parent for parent in found.values() if parent} < set(found)
    assert blobs < await scene.rows("blobs") - blobs
    steps = [one.metadata.get("step") async for one in full.alist({"configurable": {"thread_id": "full"}})]
    assert steps == [4, 3, 2, 1, 0, -1]


async def test_a_subgraph_goes_on_from_its_own_uncommitted_checkpoint(scene: Scene) -> None:
    def choose(state: Any) -> str:
        scene.happened.append("choose")
        return "think"

    def think(state: Any) -> Any:
        return {"log": [f"think:{interrupt('go on?')}"]}

    builder = StateGraph(State)
    builder.add_node("think", think)
    builder.add_conditional_edges(START, choose, ["think"])
    graph = chain({"inner": builder.compile()})
    saver = scene.saver()
    paused = await drive(graph, saver, {"log": []})
    (asked,) = paused.interrupts
    done = await drive(graph, saver, Command(resume={asked.id: "yes"}))
    assert done.value["log"] == ["think:yes"]
    assert scene.happened == ["choose"], "it neither began anew nor was it committed in between"


async def test_a_node_that_changes_its_input_in_place_does_not_change_what_was_recorded(scene: Scene) -> None:
    def produce(state: Any) -> Any:
        return {"items": ["recorded"]}

    def meddle(state: Any) -> Any:
        state["items"].append("meddled")
        return {"number": 1}

    saver = scene.saver()
    await drive(chain({"look": produce, "think": meddle}), saver, {"items": []})
    await saver.barrier()
    other = scene.saver()
    found = await other.aget_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
    assert found is not None
    assert found.checkpoint["channel_values"]["items"] == ["recorded"]
    assert found.checkpoint["channel_values"]["number"] == 1


def nothing(state: Any) -> Any:
    return {}


def fan_out(work: Any, after: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("look", nothing)
    builder.add_node("work", work)
    builder.add_node("after", after)
    builder.add_edge(START, "look")
    builder.add_conditional_edges("look", lambda _: [Send("work", {"number": n}) for n in range(3)], ["work"])
    builder.add_edge("work", "after")
    builder.add_edge("after", END)
    return builder.compile()


async def test_parallel_tasks_are_all_committed_before_what_follows_them(scene: Scene) -> None:
    async def work(state: Any) -> Any:
        scene.happened.append(f"work {state['number']}")
        return {"log": [f"work {state['number']}"]}

    saver = scene.saver()
    await drive(fan_out(work, scene.node("after")), saver, {"log": []})
    assert sorted(scene.happened[:3]) == ["work 0", "work 1", "work 2"]
    assert scene.happened[3:] == ["commit", "after"]


async def test_a_finished_parallel_task_does_not_wait_long_for_its_siblings(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.engine.saver._LINGER", 0.0)
    seen: list[int] = []

    async def work(state: Any) -> Any:
        await scene.committed(state["number"])
        seen.append(await scene.rows("writes"))
        return {"log": [str(state["number"])]}

    await drive(fan_out(work, scene.node("after")), scene.saver(), {"log": []})
    assert seen[0] == 0
    assert 0 < seen[1] < seen[2], "each went on only when the one before it was in the table"


async def test_whoever_cancels_a_barrier_knows_what_came_of_it(scene: Scene) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    told: list[str] = []

    async def store(conn: Connection, items: Sequence[tuple[str, Batch, Progress]], /, *, wait: bool) -> list[bool]:
        del wait
        begun.set()
        await go.wait()
        for thread_id, batch, progress in items:
            await write_checkpoints(conn, thread_id, batch)
            told.extend(kind for kind, _ in progress.events)
        return [True] * len(items)

    async def commit(thread_id: str, batch: Batch, progress: Progress) -> None:
        await scene.db.together(store, (thread_id, batch, progress))

    saver = BarrierSaver(scene.db, commit)
    config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "1"}}
    await saver.aput_writes(config, [("log", ["done"])], "task", "~__pregel_pull, work")
    barrier = asyncio.create_task(saver.barrier())
    async with asyncio.timeout(10):
        await begun.wait()
        barrier.cancel()
        asyncio.get_running_loop().call_soon(go.set)
        with pytest.raises(asyncio.CancelledError):
            await barrier
    await saver.barrier()
    assert told == ["step-finished"]
    assert not any(saver.take()[0].values())
    assert not saver.progress.events


async def test_each_task_of_the_functional_interface_is_committed_while_its_entrypoint_still_runs(
    scene: Scene,
) -> None:
    seen: list[int] = []

    @task
    async def step(number: int) -> int:
        seen.append(await scene.rows("writes"))
        return number * 2

    @entrypoint()
    async def flow(number: int) -> int:
        once = await step(number)
        await scene.committed(1)
        return await step(once)

    done = await drive(flow, scene.saver(), 3)
    assert done.value == 12
    assert seen[0] == 0
    assert seen[1] > 0


async def test_a_channel_rebuilt_from_history_is_whole_when_a_run_goes_on_before_a_commit(scene: Scene) -> None:
    saver = scene.saver()
    paused = await drive(rebuilt, saver, {"log": ["in"]})
    done = await drive(rebuilt, saver, Command(resume={paused.interrupts[0].id: "yes"}))
    assert done.value["log"] == ["in", "one", "two"]
