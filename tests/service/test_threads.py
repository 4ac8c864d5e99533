"""Threads: several runs on one state, one at a time; and what a running node tells before its commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from orchestrator.core.errors import KeyturnError, NotFound, ThreadBusy, ThreadExists, TransitionConflict
from orchestrator.service import threads, workflows
from orchestrator.service.threads import Thread
from orchestrator.wire import WorkflowRecord
from tests.harness import APPS, Keyturn, caller, running


@pytest.fixture
async def talking(database_url: str) -> AsyncGenerator[Keyturn]:
    async with running(database_url, app=APPS / "talking.json") as found:
        yield found


def said(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}]}


async def begin(keyturn: Keyturn, thread: Thread, text: str) -> str:
    return (await threads.begin(keyturn.ctx, keyturn.me, thread, graph="remembering", input=said(text))).workflow_id


def last(record: WorkflowRecord) -> str:
    assert isinstance(record.result, dict)
    return record.result["messages"][-1]["content"]


async def test_a_run_goes_on_from_what_the_earlier_ones_left(talking: Keyturn) -> None:
    thread = await threads.create(talking.ctx, talking.me, kind="thread")
    async with talking.working():
        first = await talking.until(await begin(talking, thread, "hello"), "completed")
    # Another worker, which knows the thread from its tables only.
    async with talking.working():
        second = await talking.until(await begin(talking, thread, "again"), "completed")
    assert (last(first), last(second)) == ("1 after hello: hello", "2 after hello: again")


async def test_no_run_tells_a_secret_that_an_earlier_one_of_its_thread_was_given(talking: Keyturn) -> None:
    thread = await threads.create(talking.ctx, talking.me, kind="thread")
    given = {**said("hello"), "api_key": "sk-of-the-first-run"}
    async with talking.working():
        first = await threads.begin(talking.ctx, talking.me, thread, graph="remembering", input=given)
        await talking.until(first.workflow_id, "completed")
        later = [await begin(talking, thread, "leak")]
        await talking.until(later[0], "completed")
        later.append(await begin(talking, thread, "fail"))
        failed = await talking.until(later[1], "failed")
    assert "sk-of-the-first-run" not in str(failed.error)
    for workflow_id in later:
        page = await workflows.events_page(talking.ctx, talking.me, workflow_id, 0, 1000)
        assert "sk-of-the-first-run" not in str([event.data for event in page.events])


async def test_a_thread_has_one_run_at_a_time_however_many_begin_at_once(talking: Keyturn) -> None:
    thread = await threads.create(talking.ctx, talking.me, kind="thread")
    begun = await asyncio.gather(*(begin(talking, thread, f"{n}") for n in range(8)), return_exceptions=True)
    refused = [one for one in begun if isinstance(one, BaseException)]
    assert len(refused) == 7
    assert all(isinstance(one, ThreadBusy) for one in refused)


async def test_a_thread_that_waits_for_a_person_takes_no_input_and_keeps_its_question(talking: Keyturn) -> None:
    thread = await threads.create(talking.ctx, talking.me, kind="thread")
    async with talking.working():
        workflow = await begin(talking, thread, "ask")
        await talking.until(workflow, "waiting")
        with pytest.raises(ThreadBusy) as refused:
            await begin(talking, thread, "never mind")
        assert refused.value.facts["workflow_id"] == workflow
        asked = await talking.asked(workflow)
        await talking.answer(asked.approval_id, "this one")
        done = await talking.until(workflow, "completed")
    assert last(done) == "1 after ask: ask: this one"


async def test_a_run_that_failed_or_was_cancelled_leaves_a_thread_that_goes_on(talking: Keyturn) -> None:
    thread = await threads.create(talking.ctx, talking.me, kind="thread")
    async with talking.working():
        failed = await begin(talking, thread, "fail")
        await talking.until(failed, "failed")
        asking = await begin(talking, thread, "ask")
        await talking.until(asking, "waiting")
        await workflows.cancel(talking.ctx, talking.me, asking)
        done = await talking.until(await begin(talking, thread, "well"), "completed")
        with pytest.raises(TransitionConflict, match="gone on with"):
            await workflows.retry(talking.ctx, talking.me, failed)
    assert last(done) == "2 after fail: well"


async def test_retrying_the_last_run_while_another_begins_leaves_one_of_them(talking: Keyturn) -> None:
    thread = await threads.create(talking.ctx, talking.me, kind="thread")
    async with talking.working():
        failed = await begin(talking, thread, "fail")
        await talking.until(failed, "failed")
    for _ in range(10):
        ends = await asyncio.gather(
            workflows.retry(talking.ctx, talking.me, failed), begin(talking, thread, "next"), return_exceptions=True
        )
        refused = [one for one in ends if isinstance(one, BaseException)]
        assert len(refused) == 1
        assert isinstance(refused[0], KeyturnError)
        if isinstance(ends[1], str):
            await workflows.cancel(talking.ctx, talking.me, ends[1])
            return
        await workflows.cancel(talking.ctx, talking.me, failed)
        async with talking.ctx.db.connection() as conn:
            await conn.execute("UPDATE keyturn.workflows SET status = 'failed' WHERE workflow_id = %s", (failed,))


async def test_a_finished_workflow_is_a_thread_that_can_go_on(talking: Keyturn) -> None:
    async with talking.working():
        alone = await talking.submit("remembering", **said("hello"))
        await talking.until(alone, "completed")
        found = await threads.find(talking.ctx, talking.me, alone)
        assert (found.kind, found.busy) == ("workflow", False)
        done = await talking.until(await begin(talking, found, "again"), "completed")
    assert last(done) == "2 after hello: again"
    assert (await threads.find(talking.ctx, talking.me, alone)).workflow_id == done.workflow_id


async def test_a_thread_is_its_namespaces_and_its_id_is_taken_once(talking: Keyturn) -> None:
    await threads.create(talking.ctx, talking.me, kind="thread", thread_id="mine")
    with pytest.raises(ThreadExists):
        await threads.create(talking.ctx, talking.me, kind="thread", thread_id="mine")
    again = await threads.create(talking.ctx, talking.me, kind="thread", thread_id="mine", if_exists="do_nothing")
    stranger = caller("eve", "elsewhere")
    with pytest.raises(NotFound):
        await threads.find(talking.ctx, stranger, "mine")
    theirs = await threads.create(talking.ctx, stranger, kind="thread", thread_id="mine")
    assert theirs.thread_key != again.thread_key


async def test_the_text_of_declared_nodes_is_told_and_that_of_a_router_is_not(talking: Keyturn) -> None:
    async with talking.working():
        workflow = await talking.submit("speaking", **said("go"))
        await talking.until(workflow, "completed")
    page = await workflows.events_page(talking.ctx, talking.me, workflow, 0, 1000)
    told = [event.data for event in page.events if event.type == "message"]
    assert {one["node"] for one in told} == {"speak"}
    assert "".join(str(one["delta"]) for one in told) == "one two three"
    assert [one["end"] for one in told][-1] is True
    assert len({one["message_id"] for one in told}) == 1


async def test_a_message_that_no_model_streamed_is_told_whole(talking: Keyturn) -> None:
    async with talking.working():
        workflow = await talking.submit("remembering", **said("hello"))
        await talking.until(workflow, "completed")
    page = await workflows.events_page(talking.ctx, talking.me, workflow, 0, 1000)
    told = [event.data for event in page.events if event.type == "message"]
    assert [(one["delta"], one["end"]) for one in told] == [("1 after hello: hello", True)]
