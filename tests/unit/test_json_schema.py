"""Schemas come from graphs and people: none makes a check fetch anything or go on without end."""

from __future__ import annotations

import pytest

from orchestrator.core.json_schema import problems


def test_what_does_not_fit_is_named_by_its_place() -> None:
    schema = {"type": "object", "properties": {"days": {"type": "integer"}}, "required": ["table"]}
    told = problems(schema, {"days": "ten"}, "input")
    assert told == ["input: 'table' is a required property", "input/days: 'ten' is not of type 'integer'"]
    assert problems(schema, {"days": 10, "table": "events"}, "input") == []


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    ],
)
def test_a_schema_that_refers_to_itself_without_end_fits_nothing(schema: dict[str, object]) -> None:
    assert problems(schema, "anything", "answer") == ["answer: its schema refers to itself without end"]


def test_a_schema_that_refers_to_another_document_fits_nothing_and_fetches_nothing() -> None:
    (told,) = problems({"$ref": "http://127.0.0.1:1/schema.json"}, "anything", "answer")
    assert told.startswith("answer: its schema refers to what is not in it:")
