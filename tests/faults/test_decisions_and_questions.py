"""A decision reaches exactly the question it was made for, once, or nothing at all."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import AsyncConnection

from orchestrator.core.errors import AlreadyResolved, KeyturnError, NotFound
from orchestrator.service import workflows
from orchestrator.wire import ApprovalRecord
from tests.faults.conftest import RISKY, Farm


async def state_of(farm: Farm, workflow: str) -> list[Any]:
    """What a decision could change: the row, its checkpoints and what it asks."""
    async with await AsyncConnection.connect(farm.database_url) as conn:
        statements = (
            b"SELECT status, epoch, node, result::text FROM keyturn.workflows WHERE workflow_id = %s",
            b"SELECT approval_id, state, delivered_at FROM keyturn.approvals WHERE workflow_id = %s ORDER BY 1",
            b"SELECT checkpoint_id FROM langgraph.checkpoints WHERE thread_id = %s ORDER BY 1",
            b"SELECT task_id, idx, channel FROM langgraph.checkpoint_writes WHERE thread_id = %s ORDER BY 1, 2",
        )
        return [await (await conn.execute(statement, [workflow])).fetchall() for statement in statements]


async def pending(farm: Farm, workflow: str, count: int) -> dict[str, ApprovalRecord]:
    """What a waiting workflow asks, by its prompt."""
    found = await farm.keyturn.until(workflow, "waiting")
    asked = {str(one.question["prompt"]): one for one in found.approvals if one.state == "pending" and one.question}
    assert len(asked) == count
    return asked


async def test_a_crash_between_two_questions_of_one_node_never_answers_the_second_with_the_first(farm: Farm) -> None:
    workflow = await farm.submit("two_questions")
    doomed = farm.doomed()
    one = (await pending(farm, workflow, 1))["first?"]
    farm.target.hold("it-between")
    await farm.keyturn.answer(one.approval_id, "A")
    await farm.target.until("at it-between")
    await doomed.kill()
    farm.target.release("it-between")
    second_worker = farm.doomed()
    two = (await pending(farm, workflow, 1))["second?"]
    assert two.approval_id != one.approval_id
    # The worker that was to deliver the second answer dies too, at the same place.
    farm.target.hold("it-between")
    await farm.keyturn.answer(two.approval_id, "B")
    await farm.target.until("at it-between", times=3)
    await second_worker.kill()
    farm.target.release("it-between")
    farm.worker()
    assert (await farm.kept(workflow))["log"] == ["A/B"]
    assert "second is A" not in farm.target.marks()
    await farm.check()


async def test_an_answer_to_one_of_two_questions_never_answers_the_other(farm: Farm) -> None:
    workflow = await farm.submit("side_by_side")
    farm.worker()
    asked = await pending(farm, workflow, 2)
    one, other = asked["left?"], asked["right?"]
    async with await AsyncConnection.connect(farm.database_url) as conn:
        found = await conn.execute(
            b"SELECT interrupt_id FROM keyturn.approvals WHERE approval_id = %s", [other.approval_id]
        )
        row = await found.fetchone()
    assert row is not None
    # What LangGraph would take for a resume map is only an answer here.
    body = {row[0]: {"answer": "smuggled"}}
    await farm.keyturn.answer(one.approval_id, body)
    still = await pending(farm, workflow, 1)
    assert set(still) == {"right?"}
    await farm.keyturn.answer(other.approval_id, "R")
    assert sorted((await farm.kept(workflow))["log"])[1:] == [f"left={body}", "right=R"]
    await farm.check()


async def test_a_decision_for_an_unknown_or_other_workflow_or_request_changes_nothing(farm: Farm) -> None:
    farm.worker()
    workflow = await farm.submit("governed", **RISKY)
    other = await farm.submit("two_questions")
    mine, theirs = await farm.keyturn.asked(workflow), await farm.keyturn.asked(other)
    before = await state_of(farm, workflow), await state_of(farm, other)
    keyturn = farm.keyturn
    for attempt in (
        keyturn.approve("wf-unknown"),
        keyturn.reject("wf-unknown"),
        keyturn.answer("ap-unknown", "yes"),
        keyturn.approve(workflow, approval_id="ap-unknown"),
        # Each names a request that exists, and not the one of this workflow.
        keyturn.approve(workflow, approval_id=theirs.approval_id),
        keyturn.approve(other, approval_id=mine.approval_id),
    ):
        with pytest.raises(NotFound):
            await attempt
    with pytest.raises(KeyturnError):
        await keyturn.approve(workflow, revision=mine.revision + 1)
    with pytest.raises(KeyturnError):
        await keyturn.approve(workflow, digest="0" * 64)
    with pytest.raises(KeyturnError):
        await keyturn.approve(other)
    assert (await state_of(farm, workflow), await state_of(farm, other)) == before
    assert farm.target.calls() == []
    await farm.check()


@pytest.mark.parametrize("ending", ["completed", "rejected", "cancelled"])
async def test_a_decision_for_a_workflow_that_has_ended_changes_nothing(farm: Farm, ending: str) -> None:
    farm.worker()
    workflow = await farm.submit("governed", **RISKY)
    asked = await farm.keyturn.asked(workflow)
    if ending == "completed":
        await farm.keyturn.approve(workflow)
    elif ending == "rejected":
        await farm.keyturn.reject(workflow)
    else:
        await workflows.cancel(farm.keyturn.ctx, farm.keyturn.me, workflow)
    assert (await farm.ended(workflow)).status == ending
    before, calls = await state_of(farm, workflow), farm.target.calls()
    for decide in (farm.keyturn.approve, farm.keyturn.reject):
        for body in ({}, {"approval_id": asked.approval_id}):
            with pytest.raises(AlreadyResolved):
                await decide(workflow, "theo", **body)
    # A worker that looks again finds nothing to do either.
    await farm.completed(await farm.submit("steps"))
    assert await state_of(farm, workflow) == before
    assert farm.target.calls_of(workflow) == [call for call in calls if call.workflow_id == workflow]
    await farm.check()


async def test_a_decision_under_another_interrupts_number_never_reaches_the_graph(farm: Farm) -> None:
    worker = farm.worker()
    workflow = await farm.submit("two_questions")
    asked = await farm.keyturn.asked(workflow)
    worker.terminate()
    await worker.ended()
    # As if it had been made for an interrupt that this thread does not have.
    async with await AsyncConnection.connect(farm.database_url) as conn:
        await conn.execute(
            b"UPDATE keyturn.approvals SET interrupt_id = repeat('f', 32), approval_id = 'ap-other'"
            b" WHERE approval_id = %s",
            [asked.approval_id],
        )
    await farm.keyturn.answer("ap-other", "stale")
    farm.worker()
    failed = await farm.ended(workflow)
    assert failed.reason == "hash_mismatch"
    assert farm.target.marks() == []
