"""The barrier saver keeps LangGraph's own contract: its conformance suite, and what stock LangGraph reads of it."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import ormsgpack
import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.report import CapabilityReport
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel

from orchestrator.engine.saver import BarrierSaver, Progress
from orchestrator.store import checkpoints
from orchestrator.store.checkpoints import Batch
from orchestrator.store.db import Database


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    await database.open()
    yield database
    await database.close()


def saver_on(db: Database, **settings: Any) -> BarrierSaver:
    async def commit(thread_id: str, batch: Batch, progress: Progress) -> None:
        async with db.transaction() as conn:
            await checkpoints.write(conn, thread_id, batch)

    return BarrierSaver(db, commit, **settings)


async def report_of(db: Database, **settings: Any) -> CapabilityReport:
    async def factory() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        yield saver_on(db, **settings)

    return await validate(checkpointer_test(name="BarrierSaver")(factory))


async def test_the_conformance_suite_of_langgraph_passes(db: Database) -> None:
    report = await report_of(db, keep_all=True)
    assert {name: result.failures for name, result in report.results.items() if result.failures} == {}
    assert report.passed_all()
    assert report.passed_all_base()
    assert sum(result.tests_passed for result in report.results.values()) > 50


async def test_without_full_history_only_questions_after_superseded_checkpoints_fail(db: Database) -> None:
    report = await report_of(db)
    failed = {name: [one.split(":")[0] for one in result.failures] for name, result in report.results.items()}
    print(failed)
