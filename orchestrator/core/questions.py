"""Whether an answer fits its question: checked before it is stored, so no graph sees a wrong one (rule 20)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from orchestrator.core.errors import AnswerInvalid
from orchestrator.core.json_schema import problems


def check_answer(question: Mapping[str, object], answer: object) -> None:
    """Raise AnswerInvalid, saying what is accepted, unless `answer` fits the JSON Schema, or the options without one.

    Beside a schema the options are only what is offered: the schema says what else is an answer.
    """
    options = cast("Sequence[object] | None", question.get("options"))
    schema = cast("Mapping[str, object] | None", question.get("schema"))
    if options is not None and schema is None and answer not in options:
        shown = ", ".join(repr(option) for option in options)
        detail = f"the answer must be one of: {shown}"
        raise AnswerInvalid(detail, allowed=list(options))
    if schema is None or (options is not None and answer in options):
        return
    if found := problems(schema, answer, "answer", most=1):
        raise AnswerInvalid(found[0], schema=dict(schema))
