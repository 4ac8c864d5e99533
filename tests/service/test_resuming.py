"""Resume values of LangGraph's own clients: read in each dialect, checked whole, and decided like anything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from orchestrator.core.errors import (
    AlreadyResolved,
    AmbiguousApproval,
    AnswerInvalid,
    JustificationRequired,
    NotEditable,
    NothingPending,
    NotOwner,
    SelfApproval,
    StaleRevision,
    UnknownInterrupt,
)
from orchestrator.service import resuming, states, threads
from orchestrator.service.resuming import Entry
from orchestrator.service.states import ThreadState
from orchestrator.wire import Decided, WorkflowRecord
from tests.apps.dialect_graphs import CALLS, CANARY
from tests.harness import APPS, Keyturn, caller, running

USER = {"messages": [{"role": "user", "content": "clean up"}]}
DEPLOY = {"operation": "deploy", "environment": "production", "target": "shop"}


@pytest.fixture
async def keyturn(database_url: str) -> AsyncIterator[Keyturn]:
    CALLS.clear()
    async with running(database_url, app=APPS / "dialects.json") as found:
        yield found


async def waits(keyturn: Keyturn, graph: str = "anything", **content: Any) -> str:
    workflow = await keyturn.submit(graph, **content)
    found = await keyturn.until(workflow, "waiting", "failed")
    assert found.status == "waiting", found.error
    return workflow


async def resume(keyturn: Keyturn, workflow: str, value: object, who: str = "tara") -> list[Decided]:
    return await resuming.resume(keyturn.ctx, caller(who), workflow, resuming.entries_of(value))


async def state(keyturn: Keyturn, workflow: str) -> ThreadState:
    thread = await threads.find(keyturn.ctx, keyturn.me, workflow)
    return await states.state(keyturn.ctx, keyturn.me, thread)


async def finished(keyturn: Keyturn, workflow: str) -> WorkflowRecord:
    done = await keyturn.until(workflow, "completed", "failed", "rejected", "cancelled")
    assert done.status == "completed", done.error
    return done


async def answers(keyturn: Keyturn, workflow: str) -> Any:
    done = await finished(keyturn, workflow)
    assert isinstance(done.result, dict)
    return done.result["answers"][0]


async def test_each_dialect_is_resumed_with_its_own_words(keyturn: Keyturn) -> None:
    async with keyturn.working():
        gate = await waits(keyturn, payload={"type": "approval", "action": DEPLOY})
        await resume(keyturn, gate, {"approved": True, "note": "reviewed"})
        assert (await answers(keyturn, gate))["note"] == "reviewed"
        gate = await waits(keyturn, payload={"type": "approval", "action": DEPLOY})
        await resume(keyturn, gate, value=True)
        assert (await answers(keyturn, gate))["approved"] is True
        for value in ("b", {"answer": "b"}):
            question = await waits(keyturn, payload={"type": "question", "prompt": "Which?", "options": ["a", "b"]})
            await resume(keyturn, question, value)
            assert (await answers(keyturn, question))["answer"] == "b"
        raw = await waits(keyturn, payload={"anything": "else"})
        await resume(keyturn, raw, {"answer": {"deep": [1]}})
        assert await answers(keyturn, raw) == {"answer": {"deep": [1]}}
        typed = await waits(keyturn, "schema_answer")
        await resume(keyturn, typed, {"answer": 7})
        assert await answers(keyturn, typed) == 7


async def test_a_batch_is_decided_whole_and_in_order_and_a_wrong_one_not_at_all(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await waits(keyturn, "batched", **USER)
        (shown,) = (await state(keyturn, workflow)).interrupts
        for wrong in (
            {"decisions": [{"type": "approve"}]},
            {"decisions": [{"type": "approve"}, {"type": "approve"}, {"type": "approve"}]},
            {"decisions": [{"type": "wave"}, {"type": "approve"}, {"type": "respond", "message": "yes"}]},
            {"decisions": [{"type": "approve"}, {"type": "edit"}, {"type": "respond", "message": "yes"}]},
            {"decisions": [{"type": "approve"}, {"type": "approve"}, {"type": "respond"}]},
            {"decisions": [{"type": "edit", "edited_action": {"name": "delete_rows", "args": {}}},
                           {"type": "approve"}, {"type": "respond", "message": "yes"}]},
            {"decisions": 3},
            {},
            "approve",
        ):  # fmt: skip
            with pytest.raises((AnswerInvalid, NotEditable)):
                await resume(keyturn, workflow, wrong)
        assert {one.state for one in (await keyturn.get(workflow)).approvals} == {"pending"}
        decisions = [
            {"type": "approve"},
            {"type": "reject", "message": "write to bob"},
            {"type": "respond", "message": "yes"},
        ]
        decided = await resume(keyturn, workflow, {shown.id: {"decisions": decisions}})
        assert sorted(one.state for one in decided) == ["answered", "approved", "rejected"]
        await finished(keyturn, workflow)
    assert CALLS == ["delete orders", "read people"] or set(CALLS) == {"delete orders", "read people"}


async def test_agent_inbox_words_are_taken_for_what_they_are(keyturn: Keyturn) -> None:
    config = {"allow_accept": True, "allow_edit": True, "allow_respond": True, "allow_ignore": True}
    payload = [{"action_request": {"action": "send", "args": {"to": "ann"}}, "config": config}]
    async with keyturn.working():
        for said, heard in (
            ({"type": "accept", "args": None}, {"type": "accept", "args": None}),
            ({"type": "ignore", "args": None}, {"type": "ignore", "args": None}),
            ({"type": "response", "args": "ask bob"}, {"type": "response", "args": "ask bob"}),
            ({"type": "edit", "args": {"action": "send", "args": {"to": "ann"}}}, {"type": "accept", "args": None}),
        ):
            workflow = await waits(keyturn, payload=payload)
            await resume(keyturn, workflow, [said])
            got = await answers(keyturn, workflow)
            assert got[0]["type"] == heard["type"]


async def test_an_edit_waits_for_somebody_else_who_names_what_they_saw(keyturn: Keyturn) -> None:
    config = {"allow_accept": True, "allow_edit": True}
    payload = [{"action_request": {"action": "send", "args": {"to": "ann"}}, "config": config}]
    edited = {"type": "edit", "args": {"action": "send", "args": {"to": "bob"}}}
    async with keyturn.working():
        workflow = await waits(keyturn, payload=payload)
        (before,) = (await state(keyturn, workflow)).interrupts
        (first,) = await resume(keyturn, workflow, [edited], who="tom")
        assert (first.state, first.code) == ("pending", "revised")
        short = await resuming.short_of(keyturn.ctx, caller("tom"), [first])
        assert short is not None
        assert "tara" in short.detail
        (after,) = (await state(keyturn, workflow)).interrupts
        assert after.id != before.id
        value: Any = after.value
        assert value[0]["action_request"]["args"] == {"to": "bob"}
        for stale in ({before.id: [{"type": "accept"}]}, [{"type": "accept"}]):
            with pytest.raises(StaleRevision):
                await resume(keyturn, workflow, stale)
        with pytest.raises(SelfApproval):
            await resume(keyturn, workflow, {after.id: [{"type": "accept"}]}, who="tom")
        (second,) = await resume(keyturn, workflow, {after.id: [{"type": "accept"}]})
        assert second.state == "approved"
        assert await answers(keyturn, workflow) == [edited]


async def test_an_unknown_id_never_answers_another(keyturn: Keyturn) -> None:
    async with keyturn.working():
        one = await waits(keyturn, payload={"type": "question", "prompt": "One?"})
        other = await waits(keyturn, payload={"type": "question", "prompt": "Other?"})
        (foreign,) = (await state(keyturn, other)).interrupts
        for unknown in ("0" * 32, foreign.id, f"{foreign.id}-1-1", foreign.approval_ids[0]):
            with pytest.raises(UnknownInterrupt):
                await resume(keyturn, one, {unknown: "yes"})
        with pytest.raises(UnknownInterrupt):
            await resuming.resume(keyturn.ctx, caller("tara"), one, [Entry("made up", "yes")])
        (own,) = (await state(keyturn, one)).interrupts
        with pytest.raises(UnknownInterrupt):
            await resume(keyturn, one, {own.id: "yes", "0" * 32: "no"})
        assert (await keyturn.get(one)).status == "waiting"
        assert (await keyturn.get(other)).status == "waiting"
        await resume(keyturn, one, {own.id: "yes"})
        assert (await answers(keyturn, one))["answer"] == "yes"


async def test_whoever_comes_second_is_told_who_was_first_be_it_themselves(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await waits(keyturn, payload={"type": "approval", "action": DEPLOY})
        (shown,) = (await state(keyturn, workflow)).interrupts
        people = ("tara", "theo", "tom", "tara")
        outcomes = await asyncio.gather(
            *(resume(keyturn, workflow, {shown.id: True}, who=who) for who in people), return_exceptions=True
        )
        (won,) = [one for one in outcomes if isinstance(one, list)]
        lost = [one for one in outcomes if isinstance(one, AlreadyResolved)]
        assert len(lost) == 3, outcomes
        assert {one.facts["resolved_by"] for one in lost} == {won[0].resolved_by}
        await finished(keyturn, workflow)
        for value in (True, {shown.id: True}):
            with pytest.raises(AlreadyResolved) as refused:
                await resume(keyturn, workflow, value, who=str(won[0].resolved_by))
            assert refused.value.facts["resolved_by"] == won[0].resolved_by


async def test_a_reject_says_why_and_a_client_that_cancels_need_not(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await waits(keyturn, payload={"type": "approval", "action": DEPLOY})
        with pytest.raises(JustificationRequired):
            await resume(keyturn, workflow, value=False)
        await resuming.resume(keyturn.ctx, caller("tara"), workflow, [Entry(None, cancelled=True)])
        assert (await keyturn.get(workflow)).status == "rejected"
        question = await waits(keyturn, payload={"type": "question", "prompt": "Well?"})
        with pytest.raises(NotOwner):
            await resuming.resume(keyturn.ctx, caller("tara"), question, [Entry(None, cancelled=True)])
        await resuming.resume(keyturn.ctx, keyturn.me, question, [Entry(None, cancelled=True)])
        assert (await keyturn.get(question)).status == "cancelled"


async def test_one_of_several_is_named_and_the_requester_decides_none(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await waits(keyturn, "per_call", **USER)
        with pytest.raises(AmbiguousApproval):
            await resume(keyturn, workflow, {"type": "approve"})
        shown: Any = (await state(keyturn, workflow)).interrupts
        delete = next(one.id for one in shown if one.value["name"] == "delete_rows")
        with pytest.raises(SelfApproval):
            await resume(keyturn, workflow, {delete: {"type": "approve"}}, who="rita")
        (one,) = await resume(keyturn, workflow, {delete: {"type": "approve"}})
        assert one.status == "waiting"
        left = (await state(keyturn, workflow)).interrupts
        assert {each.id for each in left} == {each.id for each in shown} - {delete}


async def test_a_workflow_that_never_asked_takes_no_answer(keyturn: Keyturn) -> None:
    workflow = await keyturn.submit("anything", payload={"type": "question", "prompt": "Well?"})
    with pytest.raises(NothingPending):
        await resume(keyturn, workflow, "yes")


async def test_a_thread_shows_its_state_without_the_secrets_in_it(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await waits(keyturn, "prepared", payload="per call")
        shown = await state(keyturn, workflow)
        assert shown.next == ["ask"]
        assert CANARY not in repr(shown)
        assert shown.values == {"payload": "per call"}
        await resume(keyturn, workflow, {shown.interrupts[0].id: {"type": "approve"}})
        done = await finished(keyturn, workflow)
        assert done.status == "completed"
        assert (await state(keyturn, workflow)).next == []


async def test_messages_are_shown_as_their_usual_objects(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await waits(keyturn, "batched", **USER)
        messages: Any = (await state(keyturn, workflow)).values["messages"]
        assert (messages[0]["type"], messages[0]["content"]) == ("human", "clean up")
        assert messages[1]["tool_calls"][0]["name"] == "delete_rows"


async def test_an_answer_too_long_to_keep_is_refused_and_nothing_is_done(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await waits(keyturn, payload={"type": "approval", "action": DEPLOY})
        with pytest.raises(AnswerInvalid):
            await resume(keyturn, workflow, {"approved": True, "note": "x" * 5000})
        assert (await keyturn.get(workflow)).status == "waiting"


async def test_an_answer_without_a_name_never_meets_a_question_its_sender_has_not_seen(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await waits(keyturn, "two_turns", **USER)
        first = (await state(keyturn, workflow)).interrupts[0]
        (decided,) = await resume(keyturn, workflow, {"type": "approve"}, who="tom")
        assert decided.status == "ready"
        await keyturn.until(workflow, "waiting")
        # Sent for the first turn, and late.
        for who in ("tara", "tom"):
            with pytest.raises(AlreadyResolved) as refused:
                await resume(keyturn, workflow, {"type": "approve"}, who=who)
            assert refused.value.facts["resolved_by"] == "tom"
        with pytest.raises(AlreadyResolved):
            await resume(keyturn, workflow, {first.id: {"type": "approve"}}, who="tara")
        thread = await threads.find(keyturn.ctx, keyturn.me, workflow)
        await states.state(keyturn.ctx, caller("tara"), thread)
        await resume(keyturn, workflow, {"type": "approve"}, who="tara")
        await finished(keyturn, workflow)
    assert CALLS == ["delete a", "delete b"]
