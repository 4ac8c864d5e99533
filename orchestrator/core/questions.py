"""Whether an answer fits its question: checked before it is stored, so no graph sees a wrong one (rule 20)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from orchestrator.core.errors import AnswerInvalid
from orchestrator.core.json_schema import problems

# What an open question takes besides its options, where it has no schema: a text that says something.
OTHER: Final[Mapping[str, object]] = {"type": "string", "pattern": r"\S"}


def check_answer(question: Mapping[str, object], answer: object) -> None:
    """Raise AnswerInvalid, saying what is accepted, unless `answer` fits the options and the JSON Schema.

    Where the question is `open`, the options are only what is offered: whatever fits the schema is an answer too.
    """
    options = cast("Sequence[object] | None", question.get("options"))
    schema = cast("Mapping[str, object] | None", question.get("schema"))
    if options is not None:
        offered = not problems({"enum": list(options)}, answer, "answer", most=1)
        if question.get("open"):
            if offered:
                return
            schema = OTHER if schema is None else schema
        elif not offered:
            shown = ", ".join(repr(option) for option in options)
            detail = f"the answer must be one of: {shown}"
            raise AnswerInvalid(detail, allowed=list(options))
    if schema is None:
        return
    if found := problems(schema, answer, "answer", most=1):
        raise AnswerInvalid(found[0], schema=dict(schema))
