"""What counts as an answer: what is among the options and fits the schema; of an open question, either of both."""

from __future__ import annotations

import pytest

from orchestrator.core.errors import AnswerInvalid
from orchestrator.core.questions import check_answer

OPTIONS = {"prompt": "Where?", "options": ["eu", "us"]}
SCHEMA = {"prompt": "Where?", "schema": {"type": "string", "minLength": 2}}
BOTH = {**OPTIONS, **SCHEMA}
OPEN = {**OPTIONS, "open": True}
OPEN_BOTH = {**BOTH, "open": True}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (OPTIONS, "eu"), (SCHEMA, "asia"), (BOTH, "eu"), ({**BOTH, "open": False}, "us"), ({"prompt": "?"}, None),
        ({"options": [1, 2]}, 1), (OPEN, "eu"), (OPEN, "asia"), (OPEN_BOTH, "eu"), (OPEN_BOTH, "asia"),
        ({**OPEN_BOTH, "options": [1, 2]}, 1),
    ],
)  # fmt: skip
def test_it_is_one(question: dict[str, object], answer: object) -> None:
    check_answer(question, answer)


@pytest.mark.parametrize(
    ("question", "answer", "fact"),
    [
        (OPTIONS, "asia", "allowed"), (OPTIONS, None, "allowed"), (SCHEMA, "x", "schema"), (SCHEMA, 5, "schema"),
        (BOTH, "asia", "allowed"), (BOTH, "x", "allowed"), (BOTH, None, "allowed"),
        ({**BOTH, "options": ["e", "us"]}, "e", "schema"), ({"options": [1, 0]}, True, "allowed"),
        (OPEN, " ", "schema"), (OPEN, None, "schema"), (OPEN, 5, "schema"), (OPEN_BOTH, "x", "schema"),
        (OPEN_BOTH, None, "schema"),
    ],
)  # fmt: skip
def test_it_is_none_and_the_refusal_says_what_would_be(question: dict[str, object], answer: object, fact: str) -> None:
    with pytest.raises(AnswerInvalid) as refused:
        check_answer(question, answer)
    assert fact in refused.value.facts
