"""Configuration files: what is refused, and that every mistake names its file, line, path and what is allowed."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from orchestrator.core.documents import DocumentModel, Duration, OneOrMany, duration, load, parse
from orchestrator.core.errors import InvalidDocument


class Sql(DocumentModel):
    kind: Literal["sql"]
    statement: str


class Http(DocumentModel):
    kind: Literal["http"]
    url: str
    timeout: Duration = timedelta(seconds=30)


class Job(DocumentModel):
    name: str
    retries: int = 0
    ratio: float = 1.0
    enabled: bool = True
    level: Literal["low", "high"] = "low"
    names: OneOrMany = ()
    after: Duration | None = None
    steps: tuple[Annotated[Sql | Http, Field(discriminator="kind")], ...] = ()
    children: dict[str, Sql] = Field(default_factory=dict[str, Sql])


def problems(text: str, model: type[DocumentModel] = Job) -> tuple[str, ...]:
    with pytest.raises(InvalidDocument) as caught:
        load(text, "jobs.yaml", model)
    return caught.value.problems


def test_a_good_file_becomes_a_frozen_value() -> None:
    text = """
name: nightly
retries: 3
ratio: 1            # a whole number is a number
names: only
after: 1h30m
steps:
  - {kind: sql, statement: "select 1"}
  - kind: http
    url: http://127.0.0.1
    timeout: 5s
"""
    job = load(text, "jobs.yaml", Job)
    assert (job.name, job.retries, job.ratio, job.names) == ("nightly", 3, 1.0, ("only",))
    assert job.after == timedelta(minutes=90)
    assert isinstance(job.steps[1], Http)
    assert job.steps[1].timeout == timedelta(seconds=5)
    with pytest.raises(ValueError, match="frozen"):
        job.name = "other"  # pyright: ignore[reportAttributeAccessIssue] the point of the test


def test_all_mistakes_are_listed_in_the_order_of_the_file() -> None:
    assert problems("nmae: x\nretries: many\nlevel: hgh\nafter: soon\nenabled: yes\n") == (
        "jobs.yaml:1: name: is missing and must be given",
        "jobs.yaml:1: nmae: unknown key, did you mean name?; allowed: " + ", ".join(sorted(Job.model_fields)),
        "jobs.yaml:2: retries: is text; allowed: a whole number",
        "jobs.yaml:3: level: 'hgh' is not known; allowed: low or high",
        "jobs.yaml:4: after: 'soon' is not a duration; allowed: a whole number and s, m, h, d or w, such as 30m or 4h",
        "jobs.yaml:5: enabled: is text; allowed: true or false ('yes' is only text)",
    )


def test_a_mistake_deep_inside_names_its_own_line_and_the_keys_of_that_place() -> None:
    text = "name: x\nsteps:\n  - kind: sql\n    statment: y\n  - kind: ftp\nchildren:\n  a: {kind: sql, sql: y}\n"
    assert problems(text) == (
        "jobs.yaml:3: steps[0].statement: is missing and must be given",
        "jobs.yaml:4: steps[0].statment: unknown key, did you mean statement?; allowed: kind, statement",
        "jobs.yaml:5: steps[1].kind: 'ftp' is not known; allowed: sql, http",
        "jobs.yaml:7: children.a.sql: unknown key; allowed: kind, statement",
        "jobs.yaml:7: children.a.statement: is missing and must be given",
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &x 1\nb: *x\n", "jobs.yaml:2: b: an alias (*name) is not allowed; write the value out"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "jobs.yaml:4: b.c: is written twice (first in line 3)"),
        ("a:\n  1: x\n", "jobs.yaml:2: a: the key '1' is not text; put it in quotes"),
        ("a: {? [1] : x}\n", "jobs.yaml:1: a: a key must be text, not an alias, a list or a mapping"),
        ("a: !!binary x\n", "jobs.yaml:1: a: a tag (tag:yaml.org,2002:binary) is not allowed"),
        ("a: 1\n---\nb: 2\n", "jobs.yaml:2: (the file): holds several documents; allowed: one, without a second ---"),
        ("", "jobs.yaml:1: (the file): is empty"),
        ("# only a comment\n", "jobs.yaml:1: (the file): is empty"),
        ("a: 9223372036854775808\n",
         "jobs.yaml:1: a: the number 9223372036854775808 is too large; put it in quotes if it is text"),
        ("a: 1e999\n", "jobs.yaml:1: a: the number 1e999 is too large; put it in quotes if it is text"),
        ('a: "\\0"\n', "jobs.yaml:1: a: holds a character that text may not hold (NUL or half a surrogate pair)"),
        ('a: "\\ud800"\n', "jobs.yaml:1: a: holds a character that text may not hold (NUL or half a surrogate pair)"),
    ],
)  # fmt: skip
def test_what_the_yaml_subset_refuses(text: str, problem: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse(text, "jobs.yaml")
    assert problem in caught.value.problems


@pytest.mark.parametrize("text", ["a: [1, 2", "a: b: c", "\ta: 1", "a: \x07", "'", "%YAML 9.9\n---\na: 1"])
def test_what_is_not_yaml_is_refused_with_a_line(text: str) -> None:
    assert problems(text)[0].startswith("jobs.yaml:1: (the file): is not YAML: ")


def test_ten_thousand_nodes_are_the_limit_and_an_alias_bomb_is_never_expanded() -> None:
    fits = "a:\n" + "- 1\n" * 9_996
    assert parse(fits, "f").value == {"a": [1] * 9_996}
    assert "allowed: 10000 keys, values and lists" in problems("a:\n" + "- 1\n" * 9_998)[0]
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    assert len(problems(bomb)) > 100
    assert "is too long" in problems("a: " + "x" * 1_000_001)[0]


def test_sixty_four_levels_are_the_limit() -> None:
    assert parse("[" * 64 + "]" * 64, "f").value
    assert "nested too deep; allowed: 64 levels" in problems("[" * 65 + "]" * 65)[0]
    assert "nested too deep" in problems("[" * 100_000)[0]


def test_only_true_and_false_are_booleans_and_dates_stay_text() -> None:
    text = "a: yes\nb: on\nc: no\nd: 2024-01-01\ne: 0x10\nf: 1_000\ng: 012\nh: true\ni: ~\nj: 1.5e3\nk: '1'\n"
    assert parse(text, "f").value == {
        "a": "yes", "b": "on", "c": "no", "d": "2024-01-01", "e": "0x10", "f": "1_000", "g": "012",
        "h": True, "i": None, "j": 1500.0, "k": "1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("4h", 14400), ("1d", 86400), ("2w", 1209600), ("1h30m", 5400)],
)
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "0m", "30", "30 m", "-5m", "m", "1.5h", "1y", 30, None, "9" * 30 + "d", "11000d"])
def test_what_is_no_duration_is_refused_with_what_is_allowed(text: object) -> None:
    with pytest.raises(ValueError, match="allowed:"):
        duration(text)


@given(st.text())
def test_any_text_is_either_read_or_refused(text: str) -> None:
    found: tuple[str, ...] = ()
    try:
        parse(text, "f")
    except InvalidDocument as error:
        found = error.problems
    assert all(problem.startswith("f:") for problem in found)


def test_a_problem_found_later_points_at_the_nearest_line() -> None:
    document = parse("a:\n  b:\n    - x\n    - y\n", "f.yaml")
    assert document.problem(("a", "b", 1), "is odd") == "f.yaml:4: a.b[1]: is odd"
    assert document.problem(("a", "b", 7, "c"), "is odd") == "f.yaml:2: a.b[7].c: is odd"
    assert document.problem((), "is odd") == "f.yaml:1: (the file): is odd"
