"""All four payload dialects end to end: asked, decided in Keyturn's own words, answered in the dialect's."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from orchestrator.core.errors import AmbiguousApproval, AnswerInvalid, JustificationRequired, NotEligible, SelfApproval
from orchestrator.core.json_schema import problems
from orchestrator.service import workflows
from orchestrator.wire import ApprovalRecord, SubmitRequest, WorkflowRecord
from tests.apps.dialect_graphs import CALLS, UNUSABLE
from tests.harness import APPS, Keyturn, running


@pytest.fixture
async def keyturn(database_url: str) -> AsyncIterator[Keyturn]:
    CALLS.clear()
    async with running(database_url, app=APPS / "dialects.json") as found:
        yield found


async def asked(keyturn: Keyturn, workflow: str) -> list[ApprovalRecord]:
    """What waits, in the order of the payload."""
    found = await keyturn.until(workflow, "waiting", "failed")
    assert found.status == "waiting", found.error
    return [one for one in found.approvals if one.state == "pending"]


async def finished(keyturn: Keyturn, workflow: str) -> WorkflowRecord:
    done = await keyturn.until(workflow, "completed", "failed", "rejected")
    assert done.status == "completed", done.error
    return done


async def answers(keyturn: Keyturn, workflow: str) -> Any:
    """What the interrupt returned to the graph."""
    done = await finished(keyturn, workflow)
    assert isinstance(done.result, dict)
    return done.result["answers"][0]


def tool_results(done: WorkflowRecord) -> dict[str, str]:
    """What the model is told of each tool call, by the tool's name."""
    assert isinstance(done.result, dict)
    return {one["name"]: one["content"] for one in done.result["messages"] if one["type"] == "tool"}


USER = {"messages": [{"role": "user", "content": "clean up"}]}


# Keyturn's own


async def test_a_keyturn_approval_returns_the_decision_with_what_was_approved(keyturn: Keyturn) -> None:
    action = {"operation": "deploy", "environment": "production", "target": "shop"}
    async with keyturn.working():
        workflow = await keyturn.submit("anything", payload={"type": "approval", "action": action})
        (one,) = await asked(keyturn, workflow)
        assert (one.kind, one.dialect, one.risk_level, one.route) == ("approval", "keyturn", "high", "FULL")
        await keyturn.approve(workflow, justification="reviewed")
        got = await answers(keyturn, workflow)
    assert (got["approved"], got["by"], got["note"]) == (True, ["tara"], "reviewed")
    assert {key: got["action"][key] for key in action} == action
    assert got["digest"] == one.digest


async def test_a_keyturn_approval_may_say_that_a_rejection_resumes(keyturn: Keyturn) -> None:
    action = {"operation": "deploy", "environment": "production"}
    async with keyturn.working():
        payload = {"type": "approval", "action": action, "on_reject": "resume"}
        workflow = await keyturn.submit("anything", payload=payload)
        await asked(keyturn, workflow)
        with pytest.raises(JustificationRequired):
            await keyturn.reject(workflow, reason="  ")
        await keyturn.reject(workflow, reason="not now")
        got = await answers(keyturn, workflow)
    assert (got["approved"], got["by"], got["note"]) == (False, ["tara"], "not now")


async def test_a_graph_can_raise_its_risk_and_never_lower_it(keyturn: Keyturn) -> None:
    async with keyturn.working():
        low = {"type": "approval", "action": {"operation": "vacuum"}, "risk": "critical"}
        (one,) = await asked(keyturn, await keyturn.submit("anything", payload=low))
        assert one.risk_level == "critical"
        action = {"operation": "deploy", "environment": "production", "metadata": {"approved": True}}
        high = {"type": "approval", "risk": "low", "confidence": 100, "approved": True, "action": action}
        (one,) = await asked(keyturn, await keyturn.submit("anything", payload=high))
        assert (one.risk_level, one.route) == ("high", "QUICK")


async def test_a_keyturn_question_takes_only_what_it_says(keyturn: Keyturn) -> None:
    payload = {"type": "question", "prompt": "Which?", "options": ["a", "b"]}
    async with keyturn.working():
        workflow = await keyturn.submit("anything", payload=payload)
        (one,) = await asked(keyturn, workflow)
        assert (one.kind, one.dialect, one.description) == ("question", "keyturn", "Which?")
        with pytest.raises(AnswerInvalid) as refused:
            await keyturn.answer(one.approval_id, "c")
        assert refused.value.facts["allowed"] == ["a", "b"]
        with pytest.raises(AnswerInvalid, match="send an answer"):
            await keyturn.approve(workflow)
        await keyturn.answer(one.approval_id, "b", who="rita")
        assert await answers(keyturn, workflow) == {"answer": "b", "by": ["rita"]}


async def test_options_bind_beside_a_schema_unless_the_question_is_open(keyturn: Keyturn) -> None:
    payload = {"type": "question", "prompt": "Sure?", "options": ["yes", "no"], "schema": {"type": "string"}}
    async with keyturn.working():
        (bound,) = await asked(keyturn, await keyturn.submit("anything", payload=payload))
        with pytest.raises(AnswerInvalid):
            await keyturn.answer(bound.approval_id, "whatever")
        workflow = await keyturn.submit("anything", payload={**payload, "open": True})
        (free,) = await asked(keyturn, workflow)
        await keyturn.answer(free.approval_id, "whatever", who="rita")
        assert await answers(keyturn, workflow) == {"answer": "whatever", "by": ["rita"]}


async def test_in_an_autonomous_workflow_the_declared_default_answers_and_gates_still_hold(keyturn: Keyturn) -> None:
    async def submit(payload: object) -> str:
        request = SubmitRequest(graph="anything", input={"payload": payload}, mode="autonomous")
        return (await workflows.submit(keyturn.ctx, keyturn.me, request)).workflow_id

    async with keyturn.working():
        workflow = await submit({"type": "question", "prompt": "Which?", "options": ["a", "b"], "default": "a"})
        got = await answers(keyturn, workflow)
        assert got["answer"] == "a"
        assert got["by"][0].startswith("policy:question@")
        (one,) = (await keyturn.get(workflow)).approvals
        assert (one.state, one.route) == ("answered", "AUTO")
        await asked(keyturn, await submit({"type": "question", "prompt": "Which?"}))
        risky = {"type": "approval", "action": {"operation": "deploy", "environment": "production"}}
        await asked(keyturn, await submit(risky))


# LangChain's middleware, as it is


async def test_each_tool_call_of_a_batch_is_an_approval_of_its_own_and_mixed_decisions_go_back_in_order(
    keyturn: Keyturn,
) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("batched", **USER)
        delete, mail, ask = await asked(keyturn, workflow)
        assert [one.dialect for one in (delete, mail, ask)] == ["langchain"] * 3
        assert [one.kind for one in (delete, mail, ask)] == ["approval", "approval", "question"]
        assert delete.description == "It deletes rows."
        assert delete.action is not None
        assert (delete.action["operation"], delete.action["arguments"]) == ("delete_rows", {"table": "orders"})
        assert delete.confidence == 0, "an agent that gives no confidence has none"
        assert CALLS == []

        await keyturn.reject(workflow, approval_id=delete.approval_id, reason="keep them")
        await keyturn.approve(workflow, approval_id=mail.approval_id)
        found = await keyturn.get(workflow)
        assert found.status == "waiting", "one rejection voids nothing else"
        assert {one.state for one in found.approvals} == {"rejected", "approved", "pending"}
        await keyturn.answer(ask.approval_id, "very sure")
        done = await finished(keyturn, workflow)
    assert sorted(CALLS) == ["mail ann", "read people"]
    told = tool_results(done)
    assert "keep them" in told["delete_rows"]
    assert told["send_mail"] == "mailed ann"
    assert told["ask_user"] == "very sure"
    assert [one.state for one in done.approvals] == ["rejected", "executed", "answered"]


async def test_only_the_decisions_a_tool_allows_can_be_made(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("batched", **USER)
        delete, mail, ask = await asked(keyturn, workflow)
        with pytest.raises(AnswerInvalid) as refused:
            await keyturn.answer(delete.approval_id, "done already", who="tara")
        assert refused.value.facts["allowed"] == ["approve", "reject"]
        with pytest.raises(AnswerInvalid):
            await keyturn.approve(workflow, approval_id=ask.approval_id)
        with pytest.raises(AnswerInvalid):
            await keyturn.answer(ask.approval_id, {"type": "approve"})
        # A response in place of a mail is a decision about the mail: not for everybody.
        with pytest.raises(SelfApproval):
            await keyturn.answer(mail.approval_id, "sent by hand", who="rita")
        with pytest.raises(NotEligible):
            await keyturn.answer(mail.approval_id, "sent by hand", who="cleo")
        await keyturn.answer(mail.approval_id, "sent by hand", who="tara")
        await keyturn.approve(workflow, approval_id=delete.approval_id)
        await keyturn.answer(ask.approval_id, "sure")
        done = await finished(keyturn, workflow)
    assert sorted(CALLS) == ["delete orders", "read people"]
    assert tool_results(done)["send_mail"] == "sent by hand"


async def test_each_turn_of_an_agent_asks_anew(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("two_turns", **USER)
        (first,) = await asked(keyturn, workflow)
        await keyturn.approve(workflow)
        (second,) = await asked(keyturn, workflow)
        assert second.approval_id != first.approval_id
        assert CALLS == ["delete a"]
        assert second.action is not None
        assert second.action["arguments"] == {"table": "b"}
        with pytest.raises(AmbiguousApproval):
            await keyturn.approve(workflow)
        assert CALLS == ["delete a"], "an approval sent twice does not reach the next turn"
        await keyturn.approve(workflow, approval_id=second.approval_id)
        await finished(keyturn, workflow)
    assert CALLS == ["delete a", "delete b"]


async def test_each_call_of_the_per_call_middleware_is_decided_by_what_its_own_schema_allows(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("per_call", **USER)
        found = {str(one.action and one.action["operation"]): one for one in await asked(keyturn, workflow)}
        assert set(found) == {"delete_rows", "send_mail", "ask_user"}
        assert {one.dialect for one in found.values()} == {"langchain_call"}
        delete, mail, ask = (found[name] for name in ("delete_rows", "send_mail", "ask_user"))
        assert ask.kind == "question"
        with pytest.raises(AnswerInvalid) as refused:
            await keyturn.answer(delete.approval_id, "done", who="tara")
        assert refused.value.facts["allowed"] == ["approve", "reject"]
        assert delete.action is not None
        assert delete.action["metadata"] == {"tool_call_id": "call-1"}
        await keyturn.approve(workflow, approval_id=delete.approval_id)
        await keyturn.reject(workflow, approval_id=mail.approval_id, reason="wrong person")
        await keyturn.answer(ask.approval_id, "yes")
        done = await finished(keyturn, workflow)
    told = tool_results(done)
    assert told["delete_rows"] == "deleted orders"
    assert "wrong person" in told["send_mail"]
    assert told["ask_user"] == "yes"
    assert sorted(set(CALLS)) == ["delete orders", "read people"]
    assert CALLS.count("delete orders") == 1


# Agent Inbox


def inbox(action: str, **allow: bool) -> dict[str, Any]:
    config = {f"allow_{kind}": allow.get(kind, False) for kind in ("accept", "edit", "respond", "ignore")}
    return {"action_request": {"action": action, "args": {"to": "ann"}}, "config": config, "description": f"{action}?"}


async def test_the_entries_of_an_agent_inbox_list_are_answered_in_order_with_its_own_words(keyturn: Keyturn) -> None:
    payload = [
        inbox("send", accept=True, ignore=True, respond=True, edit=True),
        inbox("delete", accept=True, ignore=True),
        inbox("rename", accept=True, respond=True),
        inbox("move", accept=True, respond=True),
        inbox("ask", respond=True, ignore=True),
        inbox("notify", respond=True, ignore=True),
    ]
    async with keyturn.working():
        workflow = await keyturn.submit("anything", payload=payload)
        send, delete, rename, move, question, notify = await asked(keyturn, workflow)
        assert [one.kind for one in (send, question)] == ["approval", "question"]
        with pytest.raises(AnswerInvalid):
            await keyturn.answer(delete.approval_id, "no response is allowed", who="tara")
        await keyturn.approve(workflow, approval_id=send.approval_id)
        await keyturn.reject(workflow, approval_id=delete.approval_id, reason="no")
        await keyturn.reject(workflow, approval_id=rename.approval_id, reason="better not")
        await keyturn.answer(move.approval_id, "moved it myself", who="tara")
        with pytest.raises(AnswerInvalid):
            await keyturn.answer(question.approval_id, 5)
        await keyturn.answer(question.approval_id, "blue")
        await keyturn.answer(notify.approval_id, None)
        got = await answers(keyturn, workflow)
    assert got == [
        {"type": "accept", "args": None},
        {"type": "ignore", "args": None},
        {"type": "response", "args": "Rejected: better not"},
        {"type": "response", "args": "moved it myself"},
        {"type": "response", "args": "blue"},
        {"type": "ignore", "args": None},
    ]


# Anything else


@pytest.mark.parametrize("payload", ["free text?", {"any": ["thing"]}, 7, None, [], [{"a": 1}], True])
async def test_any_other_payload_is_a_question_shown_as_it_is_and_any_json_answers_it(
    keyturn: Keyturn, payload: object
) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("anything", payload=payload)
        (one,) = await asked(keyturn, workflow)
        assert (one.kind, one.dialect) == ("question", "raw")
        assert one.question is not None
        assert one.question["payload"] == payload
        await keyturn.answer(one.approval_id, {"free": [1, None, "x"]})
        assert await answers(keyturn, workflow) == {"free": [1, None, "x"]}


@pytest.mark.parametrize(
    ("graph", "wrong", "right"),
    [("typed_answer", {"width": "wide", "unit": "mm"}, {"width": 3, "unit": "mm"}), ("schema_answer", 0, 2)],
)
async def test_an_answer_is_checked_before_it_is_stored_and_a_later_correct_one_works(
    keyturn: Keyturn, graph: str, wrong: object, right: object
) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit(graph)
        (one,) = await asked(keyturn, workflow)
        for _ in range(2):
            with pytest.raises(AnswerInvalid) as refused:
                await keyturn.answer(one.approval_id, wrong)
            assert "schema" in refused.value.facts
        assert (await keyturn.get(workflow)).approvals[0].state == "pending"
        await keyturn.answer(one.approval_id, right)
        assert await answers(keyturn, workflow) == right
    assert (await keyturn.types(workflow)).count("refused") == 2


# What is malformed

MALFORMED: list[tuple[Any, str]] = [
    ({"type": "approval", "action": "deploy"}, "`action` must be an object"),
    ({"type": "approval", "action": {"target": "x"}}, "needs an `operation`"),
    ({"type": "approval", "action": {"operation": "x", "who": 1}}, "no field who"),
    ({"type": "approval", "action": {"operation": "x"}, "on_reject": "explode"}, "allowed are cancel and resume"),
    ({"type": "approval", "action": {"operation": "x"}, "risk": "huge"}, "huge"),
    ({"type": "question", "prompt": "?", "options": []}, "at least one entry"),
    ({"type": "question", "prompt": "?", "options": ["a"], "open": "yes"}, "`open` is true or false"),
    ({"type": "question", "prompt": "?", "open": True}, "says of `options`"),
    ({"type": "question", "prompt": "?", "schema": {"type": "colour"}}, "not a JSON Schema"),
    ({"type": "question", "prompt": "?", "schema": {"$ref": "http://127.0.0.1/schema"}}, "only to its own parts"),
    ({"type": "tool_approval", "tool_call_id": "1", "name": "x", "args": []}, "`args` must be an object"),
    ({"type": "tool_approval", "name": "x"}, "args"),
    ({"action_requests": []}, "is empty"),
    ({"action_requests": [{"name": "x"}]}, "args"),
    ({"action_requests": ["x"]}, "malformed"),
    ({"action_requests": 5}, "malformed"),
    (
        {"action_requests": [{"name": "x", "args": {}}],
         "review_configs": [{"action_name": "x", "allowed_decisions": ["wave"]}]},
        "must list some of",
    ),
    (
        {"action_requests": [{"name": "x", "args": {}}],
         "review_configs": [{"action_name": "x", "allowed_decisions": []}]},
        "must list some of",
    ),
    ([{"action_request": {"args": {}}, "config": {"allow_accept": True}}], "action"),
    ([inbox("send")], "must allow something"),
    ([{"action_request": "x", "config": "y"}], "malformed"),
]  # fmt: skip


@pytest.mark.parametrize(("payload", "told"), MALFORMED)
async def test_a_malformed_payload_fails_its_workflow_and_says_why(keyturn: Keyturn, payload: Any, told: str) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("anything", payload=payload)
        await check_failed(keyturn, workflow, told)


@pytest.mark.parametrize("name", UNUSABLE)
async def test_a_payload_that_is_not_json_fails_its_workflow_and_says_so(keyturn: Keyturn, name: str) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("prepared", payload=name)
        await check_failed(keyturn, workflow, "must be JSON")


async def check_failed(keyturn: Keyturn, workflow: str, told: str) -> None:
    done = await keyturn.until(workflow, "failed", "waiting", "completed")
    assert done.status == "failed"
    assert done.error is not None
    assert done.error["code"] == "graph_fault"
    assert told in str(done.error["detail"])
    assert list(done.approvals) == []
    last = (await workflows.status(keyturn.ctx, keyturn.me, workflow)).history[-1]
    assert (last.type, last.data["code"]) == ("workflow-failed", "graph_fault")
    assert last.data["interrupt_id"]


def test_a_schema_never_makes_keyturn_fetch_anything() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/schema.json"
        assert problems({"$ref": address}, {}, "answer"), "what cannot be looked up fits nothing"
        with pytest.raises(BlockingIOError):
            listener.accept()
