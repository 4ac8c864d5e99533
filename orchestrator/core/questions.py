"""Whether an answer fits its question: checked before it is stored, so that a graph never sees a wrong one (rule 20)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from jsonschema import Draft202012Validator

from orchestrator.core.errors import AnswerInvalid


def check_answer(question: Mapping[str, object], answer: object) -> None:
    """Raise AnswerInvalid, saying what is accepted, unless `answer` fits the options and the JSON Schema."""
    options = cast("Sequence[object] | None", question.get("options"))
    if options is not None and answer not in options:
        shown = ", ".join(repr(option) for option in options)
        detail = f"the answer must be one of: {shown}"
        raise AnswerInvalid(detail, allowed=list(options))
    schema = cast("Mapping[str, object] | None", question.get("schema"))
    if schema is None:
        return
    problems = sorted(Draft202012Validator(schema).iter_errors(answer), key=lambda problem: list(problem.path))  # pyright: ignore[reportUnknownMemberType] the library's types are partial
    if problems:
        first = problems[0]
        where = "/".join(str(part) for part in first.absolute_path) or "the answer"
        detail = f"{where}: {first.message}"
        raise AnswerInvalid(detail, schema=dict(schema))
