"""Graphs of every make run as promised: several requests at once, subgraphs, fan-out, stops and factories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import AmbiguousApproval, AnswerInvalid
from orchestrator.engine.segment import Segment
from orchestrator.service import workflows
from orchestrator.service.dispatch import Claimer
from orchestrator.wire import ApprovalRecord, WorkflowRecord
from tests.apps import built_graphs
from tests.harness import APPS, Keyturn, running


def lines(trace: Path) -> list[str]:
    return trace.read_text().splitlines() if trace.exists() else []


def pending(found: WorkflowRecord) -> dict[str, ApprovalRecord]:
    """What waits, by what it is about."""
    return {str(one.description): one for one in found.approvals if one.state == "pending"}


async def finished(keyturn: Keyturn, workflow: str) -> WorkflowRecord:
    done = await keyturn.until(workflow, "completed", "failed", "rejected", "cancelled")
    assert done.status == "completed", done.error
    return done


# Several requests at one pause


async def test_parallel_requests_are_approvals_of_their_own_and_the_workflow_goes_on_when_all_are_decided(
    keyturn: Keyturn, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("gates", trace=str(trace))
        asked = pending(await keyturn.until(workflow, "waiting"))
        assert {one.node for one in asked.values()} == {"left", "right"}
        before = lines(trace)
        assert sorted(before) == ["busy", "left begins", "right begins"]

        left, right = (asked[f"deploy {name} in production"] for name in ("left", "right"))
        with pytest.raises(AmbiguousApproval) as refused:
            await keyturn.approve(workflow)
        listed: Any = refused.value.facts["approvals"]
        assert {one["approval_id"] for one in listed} == {left.approval_id, right.approval_id}

        assert await keyturn.approve(workflow, approval_id=left.approval_id) == "resolved"
        found = await keyturn.get(workflow)
        assert found.status == "waiting", "the first decision leaves it waiting"
        assert list(pending(found)) == ["deploy right in production"]
        assert lines(trace) == before

        assert await keyturn.approve(workflow, approval_id=right.approval_id) == "resolved"
        done = await finished(keyturn, workflow)
    assert isinstance(done.result, dict)
    assert sorted(done.result["log"]) == ["busy", "finish", "left=True", "right=True"]
    after = lines(trace)[len(before) :]
    assert sorted(after[:-1]) == ["left True", "left begins", "right True", "right begins"], "one re-run, not two"
    assert after[-1] == f"finish {workflow}:finish:2"
    assert [one.state for one in done.approvals] == ["executed", "executed"]


async def test_one_rejection_ends_the_workflow_and_cancels_what_else_it_asked(keyturn: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("gates", trace=str(trace))
        asked = pending(await keyturn.until(workflow, "waiting"))
        left = asked["deploy left in production"]
        await keyturn.reject(workflow, approval_id=left.approval_id, reason="no")
        found = await keyturn.get(workflow)
    assert found.status == "rejected"
    assert {one.description: one.state for one in found.approvals} == {
        "deploy left in production": "rejected",
        "deploy right in production": "cancelled",
    }
    assert "finish" not in " ".join(lines(trace))


async def test_where_a_rejection_resumes_the_other_request_is_still_decided_for_itself(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("gates", on_reject="resume")
        asked = pending(await keyturn.until(workflow, "waiting"))
        left, right = (asked[f"deploy {name} in production"] for name in ("left", "right"))
        await keyturn.reject(workflow, approval_id=left.approval_id)
        assert (await keyturn.get(workflow)).status == "waiting"
        await keyturn.approve(workflow, approval_id=right.approval_id)
        done = await finished(keyturn, workflow)
    assert isinstance(done.result, dict)
    assert {"left=False", "right=True"} <= set(done.result["log"])


async def test_the_approvals_of_one_pause_begin_to_age_when_the_last_of_them_is_given(keyturn: Keyturn) -> None:
    workflow = await keyturn.submit("gates")
    async with keyturn.working():
        asked = pending(await keyturn.until(workflow, "waiting"))
    left, right = (asked[f"deploy {name} in production"] for name in ("left", "right"))
    await keyturn.approve(workflow, approval_id=left.approval_id)
    async with keyturn.ctx.db.connection() as conn:
        await conn.execute("UPDATE keyturn.approvals SET lapses_at = now() WHERE state = 'approved'")
    await keyturn.approve(workflow, approval_id=right.approval_id)
    first, second = (await keyturn.get(workflow)).approvals
    assert first.lapses_at == second.lapses_at
    async with keyturn.working():
        await finished(keyturn, workflow)


async def test_an_approval_that_lapsed_is_asked_anew_and_its_siblings_decision_stands(
    keyturn: Keyturn, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    workflow = await keyturn.submit("gates", trace=str(trace))
    async with keyturn.working():
        asked = pending(await keyturn.until(workflow, "waiting"))
    left, right = (asked[f"deploy {name} in production"] for name in ("left", "right"))
    for one in (left, right):
        await keyturn.approve(workflow, approval_id=one.approval_id)
    async with keyturn.ctx.db.connection() as conn:
        late = "UPDATE keyturn.approvals SET lapses_at = now() WHERE approval_id = %s"
        await conn.execute(late, (left.approval_id,))
    async with keyturn.working():
        failed = await keyturn.until(workflow, "completed", "failed")
        assert failed.reason == "approval_lapsed"
        await workflows.retry(keyturn.ctx, keyturn.me, workflow)
        again = await keyturn.asked(workflow)
        assert again.description == left.description
        assert again.approval_id != left.approval_id
        with pytest.raises(AmbiguousApproval, match="another request of this workflow was decided"):
            await keyturn.approve(workflow)
        await keyturn.approve(workflow, approval_id=again.approval_id)
        done = await finished(keyturn, workflow)
    assert isinstance(done.result, dict)
    assert sorted(done.result["log"]) == ["busy", "finish", "left=True", "right=True"]
    assert {one.approval_id: one.state for one in done.approvals} == {
        left.approval_id: "lapsed",
        right.approval_id: "executed",
        again.approval_id: "executed",
    }
    assert lines(trace).count("busy") == 1


async def test_requests_that_need_nobody_are_answered_while_the_workflow_runs(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("gates", environment="staging")
        done = await finished(keyturn, workflow)
    assert [one.route for one in done.approvals] == ["AUTO", "AUTO"]
    assert (await keyturn.types(workflow)).count("workflow-started") == 1


async def test_parallel_questions_join_once_both_are_answered(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("parallel")
        asked = pending(await keyturn.until(workflow, "waiting"))
        for prompt, value in (("right?", "r"), ("left?", "l")):
            await keyturn.answer(asked[prompt].approval_id, value)
        done = await finished(keyturn, workflow)
    assert isinstance(done.result, dict)
    assert sorted(done.result["log"]) == ["act", "left=l", "right=r"]


async def test_tasks_sent_by_one_node_ask_each_for_itself(keyturn: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("polls", trace=str(trace))
        asked = pending(await keyturn.until(workflow, "waiting"))
        assert set(asked) == {"ann?", "bob?", "cid?"}
        for number, (prompt, one) in enumerate(sorted(asked.items(), reverse=True)):
            assert (await keyturn.get(workflow)).status == "waiting"
            await keyturn.answer(one.approval_id, f"{prompt}{number}")
        done = await finished(keyturn, workflow)
    assert isinstance(done.result, dict)
    assert sorted(done.result["log"]) == ["ann=ann?2", "bob=bob?1", "cid=cid?0", "finish"]
    keys = [line.split()[1] for line in lines(trace)]
    assert len(set(keys)) == len(keys) == 4


async def test_the_second_question_of_a_node_is_asked_and_never_answered_by_the_first(
    keyturn: Keyturn, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("two_questions", trace=str(trace))
        one = await keyturn.asked(workflow)
        await keyturn.answer(one.approval_id, "alpha")
        two = await keyturn.asked(workflow)
        assert two.description == "second?"
        await keyturn.answer(two.approval_id, "beta")
        done = await finished(keyturn, workflow)
    assert isinstance(done.result, dict)
    assert done.result["log"] == ["alpha/beta"]
    assert [line for line in lines(trace) if line.startswith("got")] == ["got alpha", "got alpha", "got beta"]


# Subgraphs, loops and fan-out


@pytest.mark.parametrize("graph", ["nested", "called"])
async def test_an_interrupt_in_a_subgraph_pauses_the_workflow_and_goes_on_where_it_stood(
    keyturn: Keyturn, graph: str, tmp_path: Path
) -> None:
    content = {"operation": "deploy", "environment": "production"} if graph == "nested" else {}
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit(graph, trace=str(trace), **content)
        asked = await keyturn.asked(workflow)
    async with keyturn.working():
        if graph == "nested":
            assert asked.node == "gate"
            await keyturn.approve(workflow)
        else:
            await keyturn.answer(asked.approval_id, "yes")
        done = await finished(keyturn, workflow)
    assert isinstance(done.result, dict)
    expected = {
        "nested": ["outer", "assess", "gate:tara", "act"],
        "called": ["answer=yes", "finish", "finish"],
    }
    assert done.result["log"][-len(expected[graph]) :] == expected[graph]
    keys = lines(trace)
    assert len(keys) == len(set(keys)) == {"nested": 1, "called": 2}[graph]


async def test_a_subgraph_visited_in_a_loop_has_other_keys_on_each_visit(keyturn: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("loop", trace=str(trace))
        await finished(keyturn, workflow)
    keys = [key for line in lines(trace) for key in line.split()[1:]]
    assert len(keys) == len(set(keys)) == 9
    assert keys[:3] == [
        f"{workflow}:inner/deep:1.1",
        f"{workflow}:inner/deep:1.1:x",
        f"{workflow}:inner/finish:1.2",
    ]


async def test_tasks_of_a_fan_out_have_keys_of_their_own(keyturn: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("fan_out", trace=str(trace))
        done = await finished(keyturn, workflow)
    assert isinstance(done.result, dict)
    assert done.result["log"] == ["first", "item0", "item1", "item2"]
    found = sorted(line for line in lines(trace) if line.startswith("item"))
    assert found == [f"item {number} {workflow}:item:2.{number}" for number in range(3)]


# Stops that a graph was compiled with


async def test_a_compiled_in_stop_is_a_question_and_continue_passes_it(keyturn: Keyturn, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("stopping", trace=str(trace))
        asked = await keyturn.asked(workflow)
        assert asked.kind == "question"
        assert asked.node == "second"
        assert lines(trace) == ["first"]
        with pytest.raises(AnswerInvalid):
            await keyturn.answer(asked.approval_id, "maybe")
        await keyturn.answer(asked.approval_id, "continue")
        await finished(keyturn, workflow)
    assert lines(trace) == ["first", "second"]


async def test_a_compiled_in_stop_that_is_answered_with_stop_ends_the_workflow(
    keyturn: Keyturn, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with keyturn.working():
        workflow = await keyturn.submit("stopping", trace=str(trace))
        await keyturn.answer((await keyturn.asked(workflow)).approval_id, "stop")
        done = await keyturn.until(workflow, "cancelled", "completed", "failed")
    assert done.status == "cancelled"
    assert done.reason == "stopped_at_breakpoint"
    assert lines(trace) == ["first"]


# Objects and factories


async def test_a_graph_may_be_an_object_a_builder_or_a_factory_of_any_kind(database_url: str) -> None:
    async with running(database_url, app=APPS / "built.json") as keyturn:
        assert sorted(built_graphs.OPEN) == ["entered", "opened"]
        async with keyturn.working():
            for name in keyturn.catalog.entries:
                done = await finished(keyturn, await keyturn.submit(name))
                assert isinstance(done.result, dict)
                assert str(done.result["made_by"]).startswith(name)
                assert str(done.result["made_by"]).endswith("entered is open")
    assert built_graphs.OPEN == []


async def test_what_has_just_begun_is_not_told_in_a_commit_of_its_own(keyturn: Keyturn) -> None:
    workflow = await keyturn.submit("steps")
    (lease,) = await Claimer(keyturn.ctx, "tests", keyturn.catalog, 60.0, 1).claim(0, 0)
    ctx = keyturn.ctx
    segment = Segment(ctx.db, lease, keyturn.catalog.get("steps"), ctx.laws, "tests", ctx.clock)
    await segment.announce()
    page = await workflows.events_page(ctx, keyturn.me, workflow, 0, 10)
    assert [one.type for one in page.events] == ["workflow-submitted"]
    assert await segment.run() == "completed"
