"""What a session is at an instant, and what a message becomes of an input."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.errors import InvalidInput
from orchestrator.core.model import Status
from orchestrator.core.sessions import Standing, State, message_field, said, text_of, told

AT = datetime(2030, 1, 1, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("run", "early", "late"),
    [
        (None, State.IDLE, State.ENDED),
        (Status.READY, State.RUNNING, State.RUNNING),
        (Status.RUNNING, State.RUNNING, State.RUNNING),
        (Status.WAITING, State.WAITING, State.ENDED),
        (Status.COMPLETED, State.IDLE, State.ENDED),
        (Status.FAILED, State.IDLE, State.ENDED),
        (Status.CANCELLED, State.IDLE, State.ENDED),
    ],
)
def test_a_session_ends_at_its_instant_unless_something_runs(run: Status | None, early: State, late: State) -> None:
    standing = Standing(AT, 60.0, run)
    instant = AT + timedelta(seconds=60)
    assert (standing.state(instant - MOMENT), standing.state(instant)) == (early, late)
    assert standing.ends_at == (None if standing.busy else instant)
    assert standing.look_again(AT) == instant
    assert Standing(AT, 60.0, run, ended_at=AT).state(AT) is State.ENDED


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({"properties": {"messages": {}, "other": TEXT}, "required": ["other"]}, "messages"),
        ({"properties": {"question": TEXT, "depth": {"type": "integer"}}, "required": ["question"]}, "question"),
        ({"properties": {"question": TEXT}}, "question"),
        ({"properties": {"question": TEXT, "other": TEXT}}, None),
        ({"properties": {"question": TEXT, "other": TEXT}, "required": ["question", "other"]}, None),
        ({"properties": {"number": {"type": "integer"}}, "required": ["number"]}, None),
        ({"type": "object"}, None),
        ({"properties": {"a": True}, "required": ["b"]}, None),
    ],
)
def test_a_message_goes_to_the_messages_or_to_the_one_text(schema: dict[str, Any], field: str | None) -> None:
    assert message_field(schema) == field


def test_a_message_that_nothing_takes_is_refused_and_says_what_to_send() -> None:
    assert said("question", "how?", "m1") == {"question": "how?"}
    assert said("messages", "how?", "m1") == {"messages": [{"role": "user", "content": "how?", "id": "m1"}]}
    for field, text in ((None, "how?"), ("question", " \n")):
        with pytest.raises(InvalidInput, match="send `input`"):
            said(field, text, "m1")


@pytest.mark.parametrize(
    ("given", "content"),
    [
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, "b"),
        ({"messages": ["a", "b"]}, "b"),
        ({"messages": [{"content": [{"type": "text", "text": "a"}, {"type": "image"}, "b"]}]}, "ab"),
        ({"messages": []}, {"messages": []}),
        ({"question": "how?"}, "how?"),
        ({"number": 1}, {"number": 1}),
        ({"a": "b", "c": "d"}, {"a": "b", "c": "d"}),
        ({}, {}),
    ],
)
def test_an_input_says_what_its_user_said(given: dict[str, Any], content: object) -> None:
    assert told(given) == content


def test_a_message_without_text_says_nothing() -> None:
    assert [text_of(one) for one in ({}, {"content": None}, {"content": 3}, {"content": [None, 3]})] == [""] * 4
