"""The barrier saver keeps LangGraph's own contract: its conformance suite, what stock LangGraph reads, strict types."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.report import CapabilityReport
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import EXT_CONSTRUCTOR_SINGLE_ARG, JsonPlusSerializer
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from orchestrator.engine.saver import BarrierSaver
from orchestrator.engine.standing import Progress
from orchestrator.store.checkpoints import Batch
from orchestrator.store.db import Database
from tests.apps import graphs_for_tests
from tests.harness import APPS, Keyturn, running, write_checkpoints


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def states(database_url: str) -> AsyncIterator[Keyturn]:
    async with running(database_url, app=APPS / "states.json") as found:
        yield found


# The contract


async def report_of(db: Database, **settings: Any) -> CapabilityReport:
    async def commit(thread_id: str, batch: Batch, progress: Progress) -> None:
        async with db.transaction() as conn:
            await write_checkpoints(conn, thread_id, batch)

    async def factory() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        yield BarrierSaver(db, commit, **settings)

    return await validate(checkpointer_test(name="BarrierSaver")(factory))


async def test_the_conformance_suite_of_langgraph_passes(db: Database) -> None:
    report = await report_of(db, keep_all=True)
    assert {name: result.failures for name, result in report.results.items() if result.failures} == {}
    assert report.passed_all()
    assert report.passed_all_base()
    assert sum(result.tests_passed for result in report.results.values()) > 50


async def test_without_full_history_the_suite_misses_superseded_checkpoints_and_nothing_else(db: Database) -> None:
    report = await report_of(db)
    failed = {name: {one.split(":")[0] for one in result.failures} for name, result in report.results.items()}
    assert {name: found for name, found in failed.items() if found} == {
        # Each of these asks for a checkpoint, by its id or in a list, after a later one has taken its place.
        "put": {
            "test_put_multiple_checkpoints_same_thread",
            "test_put_parent_config",
            "test_put_incremental_channel_update",
        },
        "get_tuple": {"test_get_tuple_specific_checkpoint_id"},
        "list": {
            "test_list_all",
            "test_list_by_thread",
            "test_list_ordering",
            "test_list_metadata_filter_single_key",
            "test_list_metadata_filter_step",
            "test_list_metadata_custom_keys",
            "test_list_before",
            "test_list_limit",
            "test_list_limit_plus_before",
            "test_list_combined_thread_and_filter",
        },
    }


# What stock LangGraph reads


@asynccontextmanager
async def stock(graph: Any, url: str) -> AsyncGenerator[Any]:
    """The graph on LangGraph's own saver, as somebody without Keyturn would open the same database."""
    settings = {"autocommit": True, "row_factory": dict_row, "options": "-c search_path=langgraph"}
    pool = AsyncConnectionPool[AsyncConnection[DictRow]](url, kwargs=settings, min_size=1, max_size=2, open=False)
    async with pool:
        yield graph.copy(update={"checkpointer": AsyncPostgresSaver(pool)})


async def test_stock_langgraph_reads_a_waiting_and_a_finished_thread(keyturn: Keyturn, database_url: str) -> None:
    workflow = await keyturn.submit("governed", operation="deploy", environment="production")
    config = {"configurable": {"thread_id": workflow}}
    async with keyturn.working(), stock(graphs_for_tests.governed, database_url) as graph:
        asked = await keyturn.asked(workflow)
        waiting = await graph.aget_state(config)
        assert waiting.next == ("gate",)
        assert waiting.values == {"operation": "deploy", "environment": "production", "log": ["assess"]}
        assert [one.value["action"]["operation"] for one in waiting.interrupts] == ["deploy"]
        assert asked.node == "gate"
        await keyturn.approve(workflow)
        await keyturn.until(workflow, "completed")
        done = await graph.aget_state(config)
        assert done.next == ()
        assert done.interrupts == ()
        assert done.values["log"] == ["assess", "gate:tara", "act"]
        history = [one async for one in graph.aget_state_history(config)]
        assert history[0].config == done.config
        assert all(one.parent_config in (None, *[other.config for other in history]) for one in history)


async def test_stock_langgraph_reads_the_thread_of_a_subgraph(keyturn: Keyturn, database_url: str) -> None:
    workflow = await keyturn.submit("nested", operation="deploy", environment="production")
    async with keyturn.working(), stock(graphs_for_tests.nested, database_url) as graph:
        await keyturn.asked(workflow)
        found = await graph.aget_state({"configurable": {"thread_id": workflow}}, subgraphs=True)
    assert found.next == ("inner",)
    (task,) = found.tasks
    assert task.state.next == ("gate",)
    assert task.state.values["log"] == ["outer", "assess"]


# Types


async def answered(states: Keyturn, graph: str, **content: Any) -> Any:
    """The result of a workflow that was read back from the tables in the middle."""
    workflow = await states.submit(graph, **content)
    async with states.working():
        asked = await states.asked(workflow)
    async with states.working():
        await states.answer(asked.approval_id, "yes")
        done = await states.until(workflow, "completed", "failed")
    assert done.status == "completed", done.error
    return done.result


async def test_state_types_come_back_as_they_were_under_strict_msgpack(
    states: Keyturn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "langgraph.checkpoint.serde.jsonplus")
    message = {"role": "user", "content": "hi", "id": "m1"}
    found = await answered(states, "typed", messages=[message])
    assert found["seen"] == ["HumanMessage", "AIMessage", "Order", "Colour", "Place", "Place", "datetime", "set"]
    assert found["order"] == {"number": 7, "colour": "red", "place": {"name": "cellar", "floor": -1}}
    assert (await answered(states, "model"))["seen"] == "Model Order"
    assert caplog.messages == []


@pytest.mark.parametrize("graph", ["rebuilt", "rebuilt_inside"])
async def test_channels_that_are_rebuilt_from_history_survive_a_pause(states: Keyturn, graph: str) -> None:
    assert (await answered(states, graph, log=["in"]))["log"] == ["in", "one", "two"]


async def test_a_finished_task_of_the_functional_interface_is_not_run_again(states: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    found = await answered(states, "functional", number=3, trace=str(trace))
    assert found == {"number": 12, "answer": "yes"}
    assert trace.read_text().splitlines() == ["double 3", "double 6"]


# Forged rows


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return Path.mkdir, (Path(self.folder),)  # pyright: ignore[reportReturnType] how pickle is attacked


def by_msgpack(folder: str) -> tuple[str, bytes]:
    call = ormsgpack.packb(("os", "mkdir", folder))
    return "msgpack", ormsgpack.packb(ormsgpack.Ext(EXT_CONSTRUCTOR_SINGLE_ARG, call))


def by_json(folder: str) -> tuple[str, bytes]:
    return "json", json.dumps({"lc": 2, "type": "constructor", "id": ["os", "mkdir"], "args": [folder]}).encode()


def by_pickle(folder: str) -> tuple[str, bytes]:
    return "pickle", pickle.dumps(Malicious(folder))


FORGERIES = [by_msgpack, by_json, by_pickle]


@pytest.mark.parametrize("forgery", FORGERIES)
def test_these_forgeries_would_run_code_where_nothing_is_strict(forgery: Any, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    lax = JsonPlusSerializer(pickle_fallback=True, allowed_json_modules=True, allowed_msgpack_modules=True)
    lax.loads_typed(forgery(str(folder)))
    assert folder.is_dir()


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_row_does_not_run_code(states: Keyturn, forgery: Any, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    workflow = await states.submit("typed", messages=[])
    async with states.working():
        asked = await states.asked(workflow)
    kind, blob = forgery(str(folder))
    forge = "UPDATE langgraph.checkpoint_blobs SET type = %s, blob = %s WHERE channel IN ('place', 'tags')"
    async with states.ctx.db.connection() as conn:
        assert (await conn.execute(forge, (kind, blob))).rowcount == 2
    async with states.working():
        await states.answer(asked.approval_id, "yes")
        done = await states.until(workflow, "completed", "failed")
    assert not folder.exists()
    if done.status == "failed":
        assert done.error is not None
        assert done.error["code"] == "node_error"
