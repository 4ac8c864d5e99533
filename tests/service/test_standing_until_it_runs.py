"""What was approved is looked at again right before it runs, however long ago its gate was passed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.service import identity, policies, workflows
from orchestrator.store import decisions
from orchestrator.wire import PersonRequest, PolicyText
from tests.harness import APPS, Keyturn, caller, running

DUAL = "policies: [{name: two, stages: [[{role: team_lead}, {role: tech_lead}]]}]"


@pytest.fixture
async def standing(database_url: str) -> AsyncIterator[Keyturn]:
    async with running(database_url, app=APPS / "standing.json") as found:
        yield found


async def publish(keyturn: Keyturn, text: str) -> None:
    await policies.publish(keyturn.ctx, caller("root"), PolicyText(text=text))


def this_week() -> str:
    now = datetime.now(UTC)
    return f"{{from: {now - timedelta(days=3):%Y-%m-%dT%H:%M}, to: {now + timedelta(days=3):%Y-%m-%dT%H:%M}}}"


async def test_a_gate_that_was_passed_is_no_leave_to_run_after_its_approval_lapsed(
    standing: Keyturn, tmp_path: Path
) -> None:
    trace, mended = tmp_path / "trace", tmp_path / "mended"
    async with standing.working():
        workflow = await standing.submit("passed", trace=str(trace), mended=str(mended))
        await standing.asked(workflow)
        await standing.approve(workflow)
        failed = await standing.until(workflow, "failed")
        assert (failed.reason, failed.approvals[0].delivered_at is not None) == ("node_error", True)
        async with standing.ctx.db.connection() as conn:
            await conn.execute("UPDATE keyturn.approvals SET lapses_at = now()")
        mended.touch()
        for _ in range(2):
            await workflows.retry(standing.ctx, standing.me, workflow)
            again = await standing.until(workflow, "failed", "completed")
            assert (again.status, again.reason, again.approvals[0].state) == ("failed", "approval_lapsed", "lapsed")
    assert not trace.exists()


async def test_a_retry_within_the_life_of_its_approval_runs(standing: Keyturn, tmp_path: Path) -> None:
    trace, mended = tmp_path / "trace", tmp_path / "mended"
    async with standing.working():
        workflow = await standing.submit("passed", trace=str(trace), mended=str(mended))
        await standing.asked(workflow)
        await standing.approve(workflow)
        await standing.until(workflow, "failed")
        mended.touch()
        await workflows.retry(standing.ctx, standing.me, workflow)
        done = await standing.until(workflow, "failed", "completed")
    assert (done.status, done.approvals[0].state) == ("completed", "executed")


async def test_a_freeze_that_is_published_while_it_runs_holds_the_effect(standing: Keyturn, tmp_path: Path) -> None:
    trace, reached, go = tmp_path / "trace", tmp_path / "reached", tmp_path / "go"
    policy = "policies: [{name: one, stages: [[{role: team_lead}]]%s}]"
    await publish(standing, policy % "")
    async with standing.working():
        workflow = await standing.submit("waiting", trace=str(trace), reached=str(reached), go=str(go))
        await standing.asked(workflow)
        await standing.approve(workflow, "tom")
        async with asyncio.timeout(20):
            while not reached.exists():  # noqa: ASYNC110 a node of another thread writes it
                await asyncio.sleep(0.02)
        await publish(standing, policy % f", freeze: [{this_week()}]")
        go.touch()
        held = await standing.until(workflow, "ready", "completed", "failed")
        assert (held.status, held.reason) == ("ready", "frozen")
        assert not trace.exists()
        await publish(standing, policy % "")
        assert (await standing.until(workflow, "completed", "failed")).status == "completed"
    assert trace.read_text().splitlines() == ["bound"]


async def test_a_role_taken_away_between_reading_and_writing_a_decision_does_not_count(
    standing: Keyturn, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(standing, DUAL)
    async with standing.working():
        workflow = await standing.submit("passed")
        await standing.asked(workflow)
    assert await standing.approve(workflow, "tom") == "recorded"
    together = standing.ctx.db.together

    async def late(work: Any, *given: Any, **more: Any) -> Any:
        if work is decisions.write:
            request = PersonRequest(person="tom", roles=[])
            await identity.put_person(standing.ctx, caller("root"), request)
        return await together(work, *given, **more)

    monkeypatch.setattr(standing.ctx.db, "together", late)
    assert await standing.approve(workflow, "theo") == "recorded"
    (asked,) = (await standing.get(workflow)).approvals
    assert asked.state == "pending"
    assert [one["reason"] for one in asked.void] == ["role_lost"]
