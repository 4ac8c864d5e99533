"""`@hitl_tool` in the real worker: AUTO, QUICK, FULL, edits, rejections, calls side by side, and crashes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

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


# Called from a node


async def test_a_sure_call_of_low_risk_runs_at_once_and_leaves_the_same_rows(keyturn: Keyturn, trace: Path) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("direct", trace=str(trace), amount=10, sure=90)
        done = await ended(keyturn, workflow)
    assert log(done) == ["paid 10"]
    (one,) = done.approvals
    assert (one.route, one.state, one.confidence, one.risk_level) == ("AUTO", "executed", 90, "low")
    assert one.action is not None
    assert one.action["operation"] == "pay"
    assert one.action["estimated_cost"] == 10
    assert one.action["target"] == str(trace)
    assert one.action["arguments"] == {"trace": str(trace), "amount": 10, "sure": 90, "seconds": 0, "fail": ""}
    assert one.resolved_by is not None
    assert one.resolved_by.startswith("policy:level:low@")
    assert len(lines(trace)) == 1
    assert "confirmation-resolved" in await keyturn.types(workflow)


@pytest.mark.parametrize(("sure", "route"), [(84.9, "QUICK"), (60, "QUICK"), (59.9, "FULL"), (None, "FULL")])
async def test_a_call_that_is_less_sure_waits_and_runs_when_it_is_approved(
    keyturn: Keyturn, trace: Path, sure: float | None, route: str
) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("direct", trace=str(trace), amount=10, sure=sure)
        asked = await keyturn.asked(workflow)
        assert (asked.route, asked.confidence, asked.description) == (route, sure or 0, "Pay an amount.")
        assert lines(trace) == []
        await keyturn.approve(workflow)
        done = await ended(keyturn, workflow)
    assert log(done) == ["paid 10"]
    assert [one.state for one in done.approvals] == ["executed"]
    assert len(lines(trace)) == 1


async def test_an_adjustment_of_the_file_counts_and_is_told(keyturn: Keyturn, trace: Path) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("direct", trace=str(trace), amount=1500, sure=90)
        asked = await keyturn.asked(workflow)
        page = await workflows.events_page(keyturn.ctx, keyturn.me, workflow, 0, 100)
    assert (asked.route, asked.confidence) == ("QUICK", 75)
    (told,) = [event.data for event in page.events if event.type == "confirmation-required"]
    assert told["adjustments"] == [{"name": "amount-over-1000", "points": -15}]


async def test_a_rejection_ends_the_workflow_unless_the_node_handles_it(keyturn: Keyturn, trace: Path) -> None:
    async with keyturn.working():
        plain = await keyturn.submit("direct", trace=str(trace), amount=10)
        await keyturn.asked(plain)
        await keyturn.reject(plain, reason="too much")
        failed = await ended(keyturn, plain)
        handled = await keyturn.submit("handled", trace=str(trace), amount=10)
        await keyturn.asked(handled)
        await keyturn.reject(handled, reason="too much")
        done = await ended(keyturn, handled)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "rejected"
    assert "pay was rejected by tara: too much; it did not run" in str(failed.error["detail"])
    assert log(done) == ["pay was rejected by tara: too much; it did not run", ["tara"], "too much", "pay"]
    assert lines(trace) == []


async def test_the_same_call_twice_in_a_node_is_asked_twice_and_runs_twice(keyturn: Keyturn, trace: Path) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("twice", trace=str(trace), amount=10)
        for runs in range(2):
            asked = await keyturn.asked(workflow)
            assert len(lines(trace)) == runs
            await keyturn.approve(workflow, approval_id=asked.approval_id)
            await keyturn.until(workflow, "waiting", "completed", "failed")
        done = await ended(keyturn, workflow)
    assert log(done) == ["paid 10", "paid 10"]
    assert len(trace.read_text().splitlines()) == 2
    assert len(set(trace.read_text().splitlines())) == 2, "each has a key of its own"
    assert [one.state for one in done.approvals] == ["executed", "executed"]


async def test_a_call_that_changes_from_run_to_run_never_runs_under_anothers_approval(
    keyturn: Keyturn, trace: Path
) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("unsteady", trace=str(trace))
        await keyturn.asked(workflow)
        await keyturn.approve(workflow)
        done = await ended(keyturn, workflow)
    assert done.status == "failed"
    assert done.error is not None
    assert (done.error["code"], done.error["changed"]) == ("hash_mismatch", ["arguments"])
    assert lines(trace) == []


async def test_a_governed_tool_inside_another_is_refused_at_once(keyturn: Keyturn, trace: Path) -> None:
    async with keyturn.working():
        done = await ended(keyturn, await keyturn.submit("nested_tools", trace=str(trace)))
    assert done.status == "failed"
    assert done.error is not None
    assert "a gated tool was called by a gated tool" in str(done.error["detail"])
    assert lines(trace) == []


# In a ToolNode


def calls(trace: Path, *amounts: float, **more: Any) -> list[dict[str, Any]]:
    return [{"name": "pay", "args": {"trace": str(trace), "amount": amount, **more}} for amount in amounts]


@pytest.mark.parametrize("graph", ["tool_node", "sent"])
@pytest.mark.parametrize("verdicts", [{1: True, 2: False}, {1: False, 2: True}])
async def test_calls_side_by_side_each_get_their_own_answer(
    keyturn: Keyturn, trace: Path, graph: str, verdicts: dict[float, bool]
) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit(graph, calls=calls(trace, 1, 2), trace=str(trace))
        for _ in range(2):
            found = await keyturn.until(workflow, "waiting")
            asked = [one for one in found.approvals if one.state == "pending"][-1]
            amount = arguments_of(asked)["amount"]
            decide = keyturn.approve if verdicts[amount] else keyturn.reject
            await decide(workflow, approval_id=asked.approval_id)
            if graph == "tool_node":
                await keyturn.until(workflow, "waiting", "completed", "failed")
        done = await ended(keyturn, workflow)
    refused = "pay was rejected by tara: not today; it did not run"
    assert messages(done) == [
        (f"call-{place}", "success" if yes else "error", f"paid {amount}" if yes else refused)
        for place, (amount, yes) in enumerate(verdicts.items())
    ]
    assert len(lines(trace)) == 1


@pytest.mark.parametrize("approved", [1, 2])
async def test_calls_that_begin_in_another_order_each_time_keep_their_answers(
    keyturn: Keyturn, trace: Path, approved: float
) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("any_order", trace=str(trace))
        for _ in range(2):
            found = await keyturn.until(workflow, "waiting", "failed")
            (asked,) = [one for one in found.approvals if one.state == "pending"]
            decide = keyturn.approve if arguments_of(asked)["amount"] == approved else keyturn.reject
            await decide(workflow, approval_id=asked.approval_id)
            await keyturn.until(workflow, "waiting", "completed", "failed")
        done = await ended(keyturn, workflow)
    refused = "pay was rejected by tara: not today; it did not run"
    assert log(done) == ([f"paid {approved}", refused] if approved == 1 else [refused, f"paid {approved}"])
    assert [line.split()[1] for line in lines(trace)] == [str(approved)]


async def test_calls_sent_one_by_one_are_all_asked_at_once(keyturn: Keyturn, trace: Path) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("sent", calls=calls(trace, 1, 2, 3), trace=str(trace))
        found = await keyturn.until(workflow, "waiting")
        assert len([one for one in found.approvals if one.state == "pending"]) == 3


@pytest.mark.parametrize("graph", ["tool_node", "sent"])
async def test_every_kind_of_tool_works_in_a_tool_node(keyturn: Keyturn, trace: Path, graph: str) -> None:
    asked_for = [
        {"name": "look", "args": {"what": "it"}},
        {"name": "pay", "args": {"trace": str(trace), "amount": 5, "sure": 99}},
        {"name": "book", "args": {"trace": str(trace), "day": "2026-02-03"}},
        {"name": "pay", "args": {"trace": str(trace), "amount": "five"}},
        *([{"name": "wipe", "args": {"trace": str(trace), "disk": "sda"}}] if graph == "tool_node" else []),
    ]
    async with keyturn.working():
        workflow = await keyturn.submit(graph, calls=asked_for, trace=str(trace))
        while (await keyturn.until(workflow, "waiting", "completed", "failed")).status == "waiting":
            asked = [one for one in (await keyturn.get(workflow)).approvals if one.state == "pending"]
            for one in asked:
                await keyturn.approve(workflow, approval_id=one.approval_id)
        done = await ended(keyturn, workflow)
    found = messages(done)
    assert found[:3] == [
        ("call-0", "success", "saw it"), ("call-1", "success", "paid 5"), ("call-2", "success", "2026-02-03"),
    ]  # fmt: skip
    assert found[3][:2] == ("call-3", "error"), "arguments that do not fit are the model's to mend; nobody is asked"
    expected = ["pay 5", "book 2026-02-03"]
    if graph == "tool_node":
        assert found[4] == ("call-4", "success", "wiped sda")
        expected.append("wipe sda")
    assert sorted(lines(trace)) == sorted(expected)


async def test_a_rejected_langchain_tool_answers_with_an_error_the_model_can_read(
    keyturn: Keyturn, trace: Path
) -> None:
    wanted = [{"name": "wipe", "args": {"trace": str(trace), "disk": "sda"}}]
    async with keyturn.working():
        workflow = await keyturn.submit("tool_node", calls=wanted, trace=str(trace))
        asked = await keyturn.asked(workflow)
        assert (asked.risk_level, asked.route) == ("medium", "QUICK")
        assert arguments_of(asked) == {"disk": "sda", "trace": str(trace)}, "what is injected is not shown"
        await keyturn.reject(workflow, reason="wrong disk")
        done = await ended(keyturn, workflow)
    assert messages(done) == [("call-0", "error", "wipe was rejected by tara: wrong disk; it did not run")]
    assert lines(trace) == []


@pytest.mark.parametrize(("sure", "route"), [(70, "AUTO"), (69, "QUICK"), (40, "QUICK"), (39, "FULL")])
async def test_a_tools_own_thresholds_and_the_agents_statement_count(
    keyturn: Keyturn, trace: Path, sure: float, route: str
) -> None:
    wanted = [{"name": "tune", "args": {"trace": str(trace), "level": 3}}]
    async with keyturn.working():
        workflow = await keyturn.submit("tool_node", calls=wanted, sure=sure)
        found = await keyturn.until(workflow, "waiting", "completed", "failed")
    (one,) = found.approvals
    assert (one.route, one.confidence) == (route, sure)
    if route == "AUTO":
        assert messages(found) == [("call-0", "success", '{"level": 3}')]


# Secrets


async def test_secrets_in_arguments_are_hidden_wherever_they_are_shown(keyturn: Keyturn, trace: Path) -> None:
    secret = "hunter2-very-secret"
    wanted = [{"name": "book", "args": {"trace": str(trace), "day": "2026-02-03", "password": secret}}]
    async with keyturn.working():
        workflow = await keyturn.submit("tool_node", calls=wanted)
        asked = await keyturn.asked(workflow)
        await keyturn.approve(workflow)
        await ended(keyturn, workflow)
        page = await workflows.events_page(keyturn.ctx, keyturn.me, workflow, 0, 1000)
    assert secret not in asked.model_dump_json()
    assert secret not in page.model_dump_json()


async def test_an_error_that_repeats_a_secret_is_told_without_it(keyturn: Keyturn, trace: Path) -> None:
    wanted = [{"name": "book", "args": {"trace": str(trace), "day": "2026-02-03", "password": "wrong"}}]
    async with keyturn.working():
        workflow = await keyturn.submit("tool_node", calls=wanted)
        await keyturn.asked(workflow)
        await keyturn.approve(workflow)
        done = await ended(keyturn, workflow)
        async with keyturn.ctx.db.connection() as conn:
            rows = await (await conn.execute("SELECT error FROM keyturn.effects")).fetchall()
    assert done.error is not None
    assert "wrong" not in str(done.error)
    assert "book failed: login with" in str(done.error["detail"])
    assert "wrong" not in str(rows)


# A confidence that is no number


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
async def test_a_confidence_that_is_no_number_counts_as_0(keyturn: Keyturn, number: str) -> None:
    async with keyturn.working():
        asked = await keyturn.asked(await keyturn.submit("numbers", fail=number))
    assert (asked.confidence, asked.route, asked.priority) == (0, "FULL", "urgent")
