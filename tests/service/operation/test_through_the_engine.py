"""Operations through the real engine: submitted, judged by the shipped rules, approved, run by a worker, recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from orchestrator.core.errors import InvalidInput
from tests.harness import Keyturn, running
from tests.operations import SHIPPED


@pytest.fixture
async def shipped(
    database_url: str, jobs: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Keyturn]:
    """A Keyturn with the shipped graphs, rules and runbooks, and the table of jobs."""
    monkeypatch.setenv("KEYTURN_CONFIG_DIR", str(SHIPPED))
    monkeypatch.setenv("KEYTURN_DATA_DIR", str(tmp_path / "data"))
    app = SHIPPED.parent / "graphs" / "langgraph.json"
    async with running(database_url, app=app, config=SHIPPED) as found:
        yield found


def rows(jobs: psycopg.Connection) -> int:
    found = jobs.execute("SELECT count(*) FROM public.jobs").fetchone()
    assert found is not None
    return int(found[0])


async def operation(keyturn: Keyturn, runbook: str, **parameters: object) -> str:
    return await keyturn.submit("operation", runbook=runbook, parameters=parameters)


async def test_a_low_operation_runs_by_itself(shipped: Keyturn) -> None:
    async with shipped.working():
        workflow = await operation(shipped, "vacuum-analyze", table="jobs")
        done = await shipped.until(workflow, "completed", "failed")
    assert done.status == "completed", done.error
    assert isinstance(done.result, dict)
    assert done.result["outcome"] == "applied"
    assert done.approvals[0].route == "AUTO"


async def test_thousands_of_rows_raise_the_risk_and_wait_for_a_person(
    shipped: Keyturn, jobs: psycopg.Connection
) -> None:
    jobs.execute(
        "INSERT INTO public.jobs SELECT n, 'done', now() - interval '60 days' FROM generate_series(11, 2010) n"
    )
    async with shipped.working():
        few = await operation(shipped, "purge-old-rows", table="jobs", keep_days=30, where={"state": "open"})
        assert (await shipped.until(few, "completed", "failed")).status == "completed"
        many = await operation(shipped, "purge-old-rows", table="jobs", keep_days=30)
        asked = await shipped.asked(many)
        assert (asked.risk_level, asked.description) == (
            "medium",
            "Delete 2005 rows of jobs that are older than 30 days",
        )
        assert any("1,000 rows" in str(reason) for reason in asked.reasons)
        assert rows(jobs) == 2008
        await shipped.approve(many)
        done = await shipped.until(many, "completed", "failed")
    assert done.status == "completed", done.error
    assert rows(jobs) == 3
    assert done.approvals[0].state == "executed"


async def test_a_rejected_operation_changes_nothing(shipped: Keyturn, jobs: psycopg.Connection) -> None:
    async with shipped.working():
        workflow = await operation(shipped, "purge-old-rows", table="jobs", keep_days=30, environment="production")
        assert (await shipped.asked(workflow)).risk_level == "critical"
        await shipped.reject(workflow)
        assert (await shipped.until(workflow, "rejected", "failed")).status == "rejected"
    assert rows(jobs) == 10


async def test_a_failed_step_fails_the_workflow_with_its_code_and_a_retry_goes_on(
    shipped: Keyturn, jobs: psycopg.Connection
) -> None:
    async with shipped.working():
        workflow = await operation(shipped, "purge-old-rows", table="jobs", keep_days=30, environment="production")
        await shipped.asked(workflow)
        jobs.execute("INSERT INTO public.jobs VALUES (11, 'late', now() - interval '50 days')")
        await shipped.approve(workflow, "theo")
        failed = await shipped.until(workflow, "completed", "failed")
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "step_failed"
    assert "rows is 8, expected 7" in str(failed.error)
    assert rows(jobs) == 11


@pytest.mark.parametrize(
    "content",
    [
        {"runbook": "format-disk", "parameters": {}},
        {"runbook": "purge-old-rows", "parameters": {"table": "jobs; DROP TABLE jobs", "keep_days": 1}},
        {"runbook": "purge-old-rows", "parameters": {"table": "keyturn.events", "keep_days": 1}},
        {"runbook": "purge-old-rows"},
        {"parameters": {}},
    ],
)
async def test_an_unknown_runbook_or_bad_parameters_are_refused_at_once(
    shipped: Keyturn, content: dict[str, object]
) -> None:
    with pytest.raises(InvalidInput):
        await shipped.submit("operation", **content)


async def test_a_plain_graph_with_a_raw_interrupt_is_governed(shipped: Keyturn) -> None:
    async with shipped.working():
        workflow = await shipped.submit("release_note", version="1.1", changes=["Faster"])
        asked = await shipped.asked(workflow)
        assert asked.kind == "question"
        await shipped.answer(asked.approval_id, "yes")
        done = await shipped.until(workflow, "completed", "failed")
    assert isinstance(done.result, dict)
    assert done.result["published"] == "Release 1.1\n- Faster"
