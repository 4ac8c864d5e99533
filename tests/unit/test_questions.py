"""What counts as an answer: one of the options, or what the schema says; with both, options are only offered."""

from __future__ import annotations

import pytest

from orchestrator.core.errors import AnswerInvalid
from orchestrator.core.questions import check_answer

OPTIONS = {"prompt": "Where?", "options": ["eu", "us"]}
SCHEMA = {"prompt": "Where?", "schema": {"type": "string", "minLength": 2}}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (OPTIONS, "eu"), (SCHEMA, "asia"), ({**OPTIONS, **SCHEMA}, "eu"), ({**OPTIONS, **SCHEMA}, "asia"),
        ({**SCHEMA, "options": [1, 2]}, 1), ({"prompt": "?"}, None),
    ],
)  # fmt: skip
def test_it_is_one(question: dict[str, object], answer: object) -> None:
    check_answer(question, answer)


@pytest.mark.parametrize(
    ("question", "answer", "fact"),
    [
        (OPTIONS, "asia", "allowed"), (OPTIONS, None, "allowed"), (SCHEMA, "x", "schema"), (SCHEMA, 5, "schema"),
        ({**OPTIONS, **SCHEMA}, "x", "schema"), ({**OPTIONS, **SCHEMA}, None, "schema"),
    ],
)  # fmt: skip
def test_it_is_none_and_the_refusal_says_what_would_be(question: dict[str, object], answer: object, fact: str) -> None:
    with pytest.raises(AnswerInvalid) as refused:
        check_answer(question, answer)
    assert fact in refused.value.facts
