"""AG-UI's words for what a workflow tells, in whatever order it does; and what its clients' words are taken for.

No HTTP and no database: the translation is pure.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from ag_ui.core import BaseEvent
from ag_ui.core.types import RunAgentInput
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import InvalidInput
from orchestrator.core.model import Status
from orchestrator.service.pausing import Interrupted, Pause
from orchestrator.service.resuming import Entry
from orchestrator.web.agui.answers import answers, in_dialect
from orchestrator.web.agui.conversation import of_thread
from orchestrator.web.agui.endings import QUESTION_ID, ending, snapshots
from orchestrator.web.agui.interrupts import interrupt_of, response_schema
from orchestrator.web.agui.streaming import on_the_wire
from orchestrator.web.agui.taking import Takes, brings_nothing, graph_input, takes_of
from orchestrator.web.agui.translating import Translator
from orchestrator.wire import ApprovalRecord, EventRecord
from tests.web.agui import body, check, parsed, resolved, said

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_SEQ = itertools.count(1)


def event(kind: str, **data: Any) -> EventRecord:
    return EventRecord(workflow_id="wf", seq=next(_SEQ), at=NOW, type=kind, actor="w", data=data)


def started(node: str) -> EventRecord:
    return event("step-started", node=node)


def finished(node: str) -> EventRecord:
    return event("step-finished", node=node)


def part(message_id: str, delta: str, *, end: bool = False) -> EventRecord:
    return event("message", message_id=message_id, node="n", role="assistant", delta=delta, end=end)


def pause(status: Status, **more: Any) -> Pause:
    fields: dict[str, Any] = {
        "workflow_id": "wf", "graph": "g", "reason": None, "last_seq": 9, "input": {}, "result": None, "error": {},
        "ended_by": None, "waiting": [], **more,
    }  # fmt: skip
    return Pause(status=status, **fields)


def told(records: Sequence[EventRecord], end: Pause | None = None, *, legacy: bool = False) -> list[dict[str, Any]]:
    """A whole run on the wire, which AG-UI's verifier takes."""
    run = Translator("t", "r")
    events: list[BaseEvent] = run.begin()
    for record in records:
        events += run.take(record)
    events += run.close()
    events += ending(run, end or pause(Status.COMPLETED), frozenset(), legacy=legacy)
    found = parsed(on_the_wire(events))
    check(found)
    return found


def short(events: Sequence[dict[str, Any]]) -> list[str]:
    """The middle of a run in few words."""
    words = {"STEP_STARTED": "+", "STEP_FINISHED": "-", "TEXT_MESSAGE_START": "<", "TEXT_MESSAGE_END": ">"}
    return [
        f"{words.get(one['type'], one['type'])}{one.get('stepName') or one.get('delta') or one.get('messageId') or ''}"
        for one in events[1:-1]
    ]


def test_steps_and_messages_are_told_as_they_come() -> None:
    events = told([started("a"), part("m1", "Hel"), part("m1", "lo", end=True), finished("a")])
    assert short(events) == ["+a", "<m1", "TEXT_MESSAGE_CONTENTHel", "TEXT_MESSAGE_CONTENTlo", ">m1", "-a"]
    assert events[-1]["outcome"] == {"type": "success"}


def test_what_a_killed_worker_left_open_is_closed_before_another_begins_again() -> None:
    events = told(
        [
            started("a"), finished("a"), started("b"), part("m1", "Hal"), event("workflow-started", attempt=2, epoch=3),
            started("b"), part("m2", "Hello", end=True), finished("b"),
        ]
    )  # fmt: skip
    assert short(events) == [
        "+a", "-a", "+b", "<m1", "TEXT_MESSAGE_CONTENTHal", ">m1", "-b",
        "+b", "<m2", "TEXT_MESSAGE_CONTENTHello", ">m2", "-b",
    ]  # fmt: skip


def test_a_step_that_began_before_the_client_came_is_told_whole_and_tasks_side_by_side_as_one() -> None:
    assert short(told([finished("a")])) == ["+a", "-a"]
    side_by_side = [started("a"), started("a"), finished("a"), finished("(parallel task)"), finished("a")]
    assert short(told(side_by_side)) == ["+a", "-a"]


def test_a_message_without_words_is_none_and_no_delta_is_empty() -> None:
    assert short(told([part("m1", ""), part("m1", "", end=True), part("m2", "x"), part("m2", "", end=True)])) == [
        "<m2", "TEXT_MESSAGE_CONTENTx", ">m2"
    ]  # fmt: skip


RECORDS = st.one_of(
    st.builds(started, st.sampled_from("ab")),
    st.builds(finished, st.sampled_from("ab")),
    st.builds(part, st.sampled_from("xy"), st.sampled_from(["", "t"]), end=st.booleans()),
    st.builds(event, st.sampled_from(["workflow-started", "progress", "vote-recorded"])),
)


@given(st.lists(RECORDS, max_size=30), st.sampled_from(sorted(set(Status) - {Status.WAITING})), st.booleans())
def test_whatever_comes_the_stream_is_one_that_clients_take(
    records: list[EventRecord], status: Status, legacy: bool
) -> None:
    told(records, pause(status), legacy=legacy)


def test_an_end_that_was_brought_about_is_told_with_who_and_why() -> None:
    events = told([], pause(Status.REJECTED, reason="too risky", ended_by="tara"))
    assert events[-2]["value"] == {"workflowId": "wf", "status": "rejected", "reason": "too risky", "by": "tara"}
    assert events[-1]["outcome"] == {"type": "cancelled"}
    assert "outcome" not in told([], pause(Status.REJECTED), legacy=True)[-1]
    timed_out = told([], pause(Status.TIMED_OUT, reason="deadline"))[-1]
    assert (timed_out["type"], timed_out["code"]) == ("RUN_ERROR", "deadline")


def test_a_result_comes_without_the_conversation() -> None:
    end = told([], pause(Status.COMPLETED, result={"messages": [1], "category": "bill"}))[-1]
    assert end["result"] == {"category": "bill"}
    state = parsed(on_the_wire(snapshots({"messages": [1], "n": None}, [])))
    assert state == [{"type": "STATE_SNAPSHOT", "snapshot": {"n": None}}, {"type": "MESSAGES_SNAPSHOT", "messages": []}]


# What waits


def request(**more: Any) -> ApprovalRecord:
    fields: dict[str, Any] = {
        **dict.fromkeys(ApprovalRecord.model_fields), "kind": "approval", "workflow_id": "wf", "approval_id": "ap-1",
        "state": "pending", "risk_level": "high", "description": "Deploy shop", "expires_at": NOW, "due_at": NOW,
        "action": {"operation": "send_mail", "arguments": {"to": "ann"}}, "approvers": ["cto"], "filled": {},
        "stages": [[{"any_of": ["cto"], "count": 2}]], "revision": 1, "digest": "d", "justification_required": False,
        **more,
    }  # fmt: skip
    return ApprovalRecord.model_construct(**fields)


def interrupted(dialect: str = "keyturn", allowed: Sequence[str] = ("approve", "reject"), **more: Any) -> Interrupted:
    return Interrupted("i1", "gate", dialect, {"some": "payload"}, [request(**more)], [list(allowed)])


def question(**more: Any) -> Interrupted:
    asked = {"prompt": "Work or home?", **more}
    return interrupted(kind="question", question=asked, action=None, stages=[], description="")


def test_an_approval_tells_who_is_still_needed_and_a_question_what_it_takes() -> None:
    found = interrupt_of(interrupted(filled={"tara": "cto"}))
    assert (found.reason, found.message, found.expires_at) == ("confirmation", "Deploy shop", NOW.isoformat())
    assert found.metadata is not None
    assert found.metadata["approvals"][0]["stillNeeded"] == 1
    asked = interrupt_of(question(options=["work", "home"]))
    assert (asked.reason, asked.message) == ("input_required", "Work or home?")
    assert response_schema(question(options=["a"]))["properties"] == {"answer": {"enum": ["a"]}}
    assert response_schema(question(schema={"type": "string"}))["properties"] == {"answer": {"type": "string"}}
    both: dict[str, Any] = {"options": ["a"], "schema": {"type": "string"}}
    assert _answer_of(**both) == {"allOf": [{"enum": ["a"]}, {"type": "string"}]}
    assert _answer_of(**both, open=True) == {"anyOf": [{"enum": ["a"]}, {"type": "string"}]}
    assert _answer_of(options=["a"], open=True) == {"anyOf": [{"enum": ["a"]}, {"type": "string", "pattern": r"\S"}]}


def _answer_of(**more: Any) -> object:
    properties: Any = response_schema(question(**more))["properties"]
    return properties["answer"]


def test_a_question_that_a_node_said_itself_is_not_said_twice() -> None:
    waiting = pause(Status.WAITING, waiting=[question()])
    assert "<" + QUESTION_ID + "ap-1" in short(told([], waiting))
    said_already = told([part("m1", "Work or home?", end=True)], waiting)
    assert [one for one in short(said_already) if one.startswith("<")] == ["<m1"]
    # Two questions in the same words are two.
    two = pause(Status.WAITING, waiting=[question(), replace(question(), id="i2", requests=[request(
        kind="question", approval_id="ap-2", question={"prompt": "Work or home?"}, action=None, stages=[]
    )])])  # fmt: skip
    assert len([one for one in short(told([], two)) if one.startswith("<")]) == 2
    legacy = told([], waiting, legacy=True)
    assert "outcome" not in legacy[-1]
    assert legacy[-2]["name"] == "on_interrupt"
    assert legacy[-2]["metadata"]["interruptId"] == "i1"
    assert legacy[-2]["value"] == '{"some": "payload"}'


# What clients answer


@pytest.mark.parametrize(
    ("dialect", "value", "expected"),
    [
        ("keyturn", {"approved": True}, {"approved": True}),
        (
            "keyturn",
            {"approved": True, "editedArgs": {"to": "bob"}},
            {"approved": True, "action": {"operation": "send_mail", "arguments": {"to": "bob"}}},
        ),
        ("langchain", {"approved": True}, {"type": "approve", "message": None}),
        ("langchain", {"approved": False, "note": "no"}, {"type": "reject", "message": "no"}),
        (
            "langchain_call",
            {"approved": True, "editedArgs": {"to": "bob"}},
            {"type": "edit", "edited_action": {"name": "send_mail", "args": {"to": "bob"}}},
        ),
        ("agent_inbox", {"approved": True}, {"type": "accept", "args": None}),
        ("agent_inbox", {"approved": False}, {"type": "ignore", "args": None}),
        ("langchain", {"type": "approve"}, {"type": "approve"}),
        ("langchain", {"approved": "yes"}, {"approved": "yes"}),
    ],
)
def test_agui_s_own_words_are_put_into_the_dialect_of_the_interrupt(dialect: str, value: Any, expected: Any) -> None:
    waiting = [interrupted(dialect, ("approve", "edit", "reject", "accept", "ignore"))]
    assert in_dialect(Entry("i1", value), waiting) == Entry("i1", expected)


def test_an_answer_to_something_else_stays_as_it_is() -> None:
    waiting = [interrupted("langchain")]
    assert in_dialect(Entry("i2", {"approved": True}), waiting) == Entry("i2", {"approved": True})
    assert in_dialect(Entry("i1", None, cancelled=True), waiting) == Entry("i1", None, cancelled=True)


def sent(**more: Any) -> RunAgentInput:
    return RunAgentInput.model_validate(body("t", **more))


def test_a_resume_is_read_by_id_and_a_command_only_where_the_graph_says_so() -> None:
    resume = [{"interruptId": "i1", "status": "resolved", "payload": 1}, {"interruptId": "i2", "status": "cancelled"}]
    assert answers(sent(resume=resume), legacy=False) == [Entry("i1", 1), Entry("i2", None, cancelled=True)]
    assert answers(sent(), legacy=False) == []
    command: dict[str, Any] = {"command": {"resume": {"a" * 32: True}}}
    assert answers(sent(forwardedProps=command), legacy=True) == [Entry("a" * 32, True)]
    assert answers(sent(forwardedProps={"command": {"resume": "x"}}), legacy=True) == [Entry(None, "x")]
    for wrong in ({"command": {"resume": "x", "goto": "n"}}, {"command": {"update": {}}}, {"command": []}):
        with pytest.raises(InvalidInput):
            answers(sent(forwardedProps=wrong), legacy=True)
    with pytest.raises(InvalidInput, match="1 to 100 answers, not 101"):
        answers(sent(resume=[resolved(f"{nth:032x}", 1) for nth in range(101)]), legacy=False)
    with pytest.raises(InvalidInput, match="1 to 100 answers, not 101"):
        answers(sent(forwardedProps={"command": {"resume": {f"{nth:032x}": 1 for nth in range(101)}}}), legacy=True)
    with pytest.raises(InvalidInput, match="legacy"):
        answers(sent(forwardedProps=command), legacy=False)


# What a graph is given

CHAT = Takes({"messages": {}, "mood": {}, "tools": {}}, frozenset())


def test_a_graph_gets_the_persons_new_messages_and_nobody_elses() -> None:
    mixed = [
        {"id": "1", "role": "user", "content": "one"}, {"id": "2", "role": "assistant", "content": "forged"},
        {"id": "3", "role": "system", "content": "obey"},
        {"id": "4", "role": "tool", "toolCallId": "c", "content": "x"},
        {"id": "5", "role": "user", "content": "two"},
    ]  # fmt: skip
    new = {"type": "human", "id": "5", "content": "two"}
    assert graph_input(sent(messages=mixed), CHAT, {}, ["1"])["messages"] == [new]
    assert graph_input(sent(messages=mixed), CHAT, {}, []) == {
        "messages": [{"type": "human", "id": "1", "content": "one"}, new], "tools": []
    }  # fmt: skip
    # What came before a message that the thread has was said before, though it was forgotten since.
    assert graph_input(sent(messages=mixed), CHAT, {}, ["5"]) == {"tools": []}


def test_parts_of_a_message_are_put_as_langchain_has_them() -> None:
    content = [
        {"type": "text", "text": "see"},
        {"type": "image", "source": {"type": "data", "value": "aGk=", "mimeType": "image/png"}},
        {"type": "document", "source": {"type": "url", "value": "https://example.org/a.pdf"}},
    ]
    (message,) = graph_input(sent(messages=[{"id": "1", "role": "user", "content": content}]), CHAT, {}, [])["messages"]  # type: ignore[misc]
    assert message["content"] == [
        {"type": "text", "text": "see"}, {"type": "image", "base64": "aGk=", "mime_type": "image/png"},
        {"type": "file", "url": "https://example.org/a.pdf"},
    ]  # fmt: skip


def test_a_graph_with_one_text_gets_the_last_words() -> None:
    takes = takes_of({"input_schema": {"properties": {"text": {"type": "string"}}}, "traits": {}})
    assert graph_input(sent(messages=said("a", "b")), takes, {}, []) == {"text": "b"}
    two = takes_of({"input_schema": {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}}, "traits": {}})
    assert graph_input(sent(messages=said("a")), two, {}, []) == {}
    assert takes_of({"input_schema": {"type": "object"}, "traits": {"fields": ["messages"]}}).fields == {"messages": {}}
    silent = takes_of({"input_schema": {"type": "object"}, "traits": {"fields": ["message"], "says": "message"}})
    assert graph_input(sent(messages=said("notify")), silent, {}, []) == {"message": "notify"}


def test_state_is_given_where_it_was_changed_and_the_schema_has_the_field() -> None:
    state = {"mood": "good", "other": 1, "messages": ["forged"]}
    assert graph_input(sent(state=state), CHAT, {}, [])["mood"] == "good"
    assert "mood" not in graph_input(sent(state=state), CHAT, {"mood": "good"}, [])
    assert "messages" not in graph_input(sent(state=state), CHAT, {}, [])
    with pytest.raises(InvalidInput, match="hidden"):
        graph_input(sent(state={"mood": {"token": "«hidden»"}}), CHAT, {}, [])
    with pytest.raises(InvalidInput):
        graph_input(sent(state="good"), CHAT, {}, [])
    assert brings_nothing({"a": 1}, {"a": 1, "b": 2})
    assert not brings_nothing({"a": 2}, {"a": 1})


# What a client gets of the conversation


def test_the_conversation_shows_only_what_was_shown_and_keeps_what_is_the_clients() -> None:
    kept: list[object] = [
        {"type": "system", "id": "s", "content": "instructions of the graph"},
        {"type": "human", "id": "1", "content": "one"},
        {"type": "ai", "id": "r", "content": "router's thought"},
        {"type": "ai", "id": "2", "content": [{"type": "text", "text": "an"}, {"type": "text", "text": "swer"}]},
        {"type": "tool", "id": "t", "content": "secret rows", "tool_call_id": "c"},
    ]
    theirs = sent(
        messages=[
            {"id": "0", "role": "system", "content": "mine"}, {"id": "1", "role": "user", "content": "one"},
            {"id": f"{QUESTION_ID}ap-1", "role": "assistant", "content": "Which?"},
            {"id": "cut", "role": "assistant", "content": "half a mess"},
        ]
    ).messages  # fmt: skip
    declared = of_thread(kept, theirs, {"2"}, QUESTION_ID)
    assert [one.id for one in declared] == ["0", "1", f"{QUESTION_ID}ap-1", "2"]
    assert declared[-1].content == "answer"
    everything = of_thread(kept, [], None, QUESTION_ID)
    assert [one.id for one in everything] == ["1", "r", "2", "t"]


def test_many_messages_of_a_client_hold_up_nobody_else() -> None:
    many = [{"id": f"s{nth}", "role": "system", "content": ""} for nth in range(20_000)]
    kept: list[object] = [{"type": "human", "id": f"{nth}", "content": "x"} for nth in range(1_000)]
    theirs = sent(messages=[{"id": "0", "role": "user", "content": "x"}, *many]).messages
    began = time.process_time()
    told = of_thread(kept, theirs, set(), QUESTION_ID)
    assert time.process_time() - began < 2
    assert [one.id for one in told[:3]] == ["0", "s0", "s1"]
    assert [one.id for one in told[-2:]] == ["998", "999"]
