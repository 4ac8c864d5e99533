"""`@hitl_tool` in the real worker: what was edited runs as approved, and a crash never makes a call run twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Json

from orchestrator.core.actions import action_from
from orchestrator.core.canonical import digest
from orchestrator.service import workflows
from orchestrator.wire import ApprovalRecord, WorkflowRecord
from tests.harness import APPS, Keyturn, running


@pytest.fixture
async def keyturn(database_url: str) -> AsyncIterator[Keyturn]:
    async with running(database_url, app=APPS / "tools.json") as found:
        yield found


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


def lines(trace: Path) -> list[str]:
    return [line.rsplit(" ", 1)[0] for line in trace.read_text().splitlines()] if trace.exists() else []


async def ended(keyturn: Keyturn, workflow: str) -> WorkflowRecord:
    return await keyturn.until(workflow, "completed", "failed", "rejected", "cancelled")


def log(done: WorkflowRecord) -> list[Any]:
    assert done.status == "completed", done.error
    assert isinstance(done.result, dict)
    return done.result["log"]


def messages(done: WorkflowRecord) -> list[tuple[str, str, str]]:
    assert done.status == "completed", done.error
    assert isinstance(done.result, dict)
    return [(one["tool_call_id"], one["status"], one["content"]) for one in done.result["messages"] if
            one["type"] == "tool"]  # fmt: skip


def arguments_of(asked: ApprovalRecord) -> dict[str, Any]:
    assert asked.action is not None
    arguments = asked.action["arguments"]
    assert isinstance(arguments, dict)
    return arguments


def calls(trace: Path, *amounts: float, **more: Any) -> list[dict[str, Any]]:
    return [{"name": "pay", "args": {"trace": str(trace), "amount": amount, **more}} for amount in amounts]


# Edited before it was decided


async def edit(keyturn: Keyturn, asked: ApprovalRecord, **action: Any) -> None:
    """What an edit does to a pending request's row."""
    assert asked.action is not None
    whole = action_from({**asked.action, **action}).to_json()
    async with keyturn.ctx.db.connection() as conn:
        await conn.execute(
            "UPDATE keyturn.approvals SET action = %s, digest = %s WHERE approval_id = %s",
            (Json(whole), digest(whole), asked.approval_id),
        )


def answer_of(monkeypatch: pytest.MonkeyPatch, asked: ApprovalRecord) -> None:
    """Answers say what was asked first, as they do once requests can be edited."""
    from orchestrator.engine import payloads

    plain = payloads._write_keyturn

    def with_first(one: payloads.Settled) -> Any:
        return {"asked_digest": asked.digest, **plain(one)}

    monkeypatch.setattr(payloads, "_write_keyturn", with_first)


async def test_the_edited_arguments_run_and_nothing_else(
    keyturn: Keyturn, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("direct", trace=str(trace), amount=10)
        asked = await keyturn.asked(workflow)
        answer_of(monkeypatch, asked)
        await edit(keyturn, asked, arguments={**arguments_of(asked), "amount": 7}, estimated_cost=7)
        await keyturn.approve(workflow)
        done = await ended(keyturn, workflow)
    assert log(done) == ["paid 7"]
    assert [line.split()[1] for line in lines(trace)] == ["7"]
    assert [one.state for one in done.approvals] == ["executed"]


@pytest.mark.parametrize(
    ("arguments", "more", "told"),
    [
        ({"amount": "seven"}, {}, "amount: Input should be a valid number"),
        ({"amount": 7, "extra": 1}, {"estimated_cost": 7}, "extra: there is no such argument"),
        ({"amount": 7}, {}, "does not fit its arguments in: estimated_cost"),
        ({}, {"operation": "pay_all"}, "does not fit its arguments in: operation"),
    ],
)
async def test_an_edit_that_does_not_fit_the_tool_runs_nothing_and_is_told(
    keyturn: Keyturn, trace: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, more: Any, told: str
) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("handled", trace=str(trace), amount=10)
        asked = await keyturn.asked(workflow)
        answer_of(monkeypatch, asked)
        await edit(keyturn, asked, arguments={**arguments_of(asked), **arguments}, **more)
        await keyturn.approve(workflow)
        done = await ended(keyturn, workflow)
    assert told in log(done)[0]
    assert log(done)[0].endswith("it did not run")
    assert lines(trace) == []


# Crashes


async def test_a_call_cut_short_is_asked_about_and_never_runs_twice_by_itself(keyturn: Keyturn, trace: Path) -> None:
    wanted = [*calls(trace, 1, sure=99), *calls(trace, 2, sure=99, seconds=600.0), *calls(trace, 3, sure=99)]
    workflow = await keyturn.submit("tool_node", calls=wanted)
    async with keyturn.working(lease_seconds=1.0) as worker:
        worker.drain_seconds = 0.0
        async with keyturn.ctx.db.listener("keyturn_events") as conn:
            while len(lines(trace)) < 2:
                async for _ in conn.notifies(timeout=0.05, stop_after=1):
                    pass
    async with keyturn.working():
        asked = await keyturn.asked(workflow)
        assert "was running, and nothing tells whether it happened" in asked.description
        assert [line.split()[1] for line in lines(trace)] == ["1", "2"]
        await keyturn.answer(asked.approval_id, "it happened")
        done = await ended(keyturn, workflow)
    found = messages(done)
    assert [one[:2] for one in found] == [(f"call-{place}", "success") for place in range(3)]
    assert (found[0][2], found[2][2]) == ("paid 1", "paid 3")
    assert [line.split()[1] for line in lines(trace)] == ["1", "2", "3"]


async def test_a_call_that_failed_runs_again_on_a_retry_and_those_beside_it_do_not(
    keyturn: Keyturn, trace: Path, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.touch()
    wanted = [*calls(trace, 1, sure=99), *calls(trace, 2, sure=99, fail=str(closed)), *calls(trace, 3, sure=99)]
    async with keyturn.working():
        workflow = await keyturn.submit("tool_node", calls=wanted)
        failed = await ended(keyturn, workflow)
        assert failed.error is not None
        assert "the till is closed" in str(failed.error["detail"])
        closed.unlink()
        await workflows.retry(keyturn.ctx, keyturn.me, workflow)
        done = await ended(keyturn, workflow)
    assert [one[2] for one in messages(done)] == ["paid 1", "paid 2", "paid 3"]
    assert [line.split()[1] for line in lines(trace)] == ["1", "2", "2", "3"]
