"""What a governed tool is to Python and to LangChain, and what an edit of its arguments may be."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.prebuilt import InjectedState, ToolRuntime
from langgraph.types import Interrupt

from orchestrator.core.canonical import canonical_json
from orchestrator.core.errors import GraphFault, InvalidInput
from orchestrator.core.model import Adjustment
from orchestrator.engine.payloads import Ask, read
from orchestrator.sdk import hitl_tool, tool_key
from orchestrator.sdk.signatures import Shape


class Colour(Enum):
    RED = "red"


@dataclass
class Box:
    width: int
    label: str = ""


async def pack(
    box: Box, day: date, colour: Colour = Colour.RED, *, kind: Literal["a", "b"] = "a", many: list[float] | None = None
) -> Box:
    """Pack a box."""
    return box


async def injected(
    name: str,
    state: Annotated[dict[str, Any], InjectedState],
    call: Annotated[str, InjectedToolCallId],
    runtime: ToolRuntime,
) -> str:
    """Has arguments of LangGraph's."""
    return name


PACKED = {"box": {"width": 1, "label": ""}, "day": "2026-01-02", "colour": "red", "kind": "a", "many": None}


def shown(**edits: object) -> inspect.BoundArguments:
    shape = Shape(pack)
    return shape.with_edits(shape.bind((Box(1), date(2026, 1, 2)), {}), {**PACKED, **edits})


def test_arguments_are_shown_as_json_with_their_defaults() -> None:
    shape = Shape(pack)
    assert shape.to_json(shape.bind((Box(1), date(2026, 1, 2)), {})) == PACKED


def test_what_is_edited_reaches_the_function_in_its_own_types() -> None:
    found = shown(box={"width": 3, "label": "x"}, day="2026-02-03", many=[1, 2.5]).arguments
    assert (found["box"], found["day"], found["colour"], found["many"]) == (
        Box(3, "x"), date(2026, 2, 3), Colour.RED, [1.0, 2.5],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ({"box": {"width": "3", "label": ""}}, "box.width: Input should be a valid integer"),
        ({"box": {"width": True, "label": ""}}, "box.width: Input should be a valid integer"),
        ({"day": "tomorrow"}, "day: Input should be a valid date"),
        ({"kind": "c"}, "kind: Input should be 'a' or 'b'"),
        ({"extra": 1}, "extra: there is no such argument"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused_without_repeating_it(edits: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        shown(**edits)
    assert told in refused.value.detail


def test_an_edit_must_name_every_argument() -> None:
    shape = Shape(pack)
    bound = shape.bind((Box(1), date(2026, 1, 2)), {})
    with pytest.raises(InvalidInput, match="day: is missing"):
        shape.with_edits(bound, {key: value for key, value in PACKED.items() if key != "day"})


@given(st.integers(-(2**53), 2**53), st.dates(), st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_what_is_shown_and_not_edited_gives_the_same_arguments_again(width: int, day: date, many: list[float]) -> None:
    shape = Shape(pack)
    bound = shape.bind((Box(width), day), {"many": many, "kind": "b"})
    again = shape.with_edits(bound, shape.to_json(bound))
    assert again.arguments == bound.arguments
    assert canonical_json(shape.to_json(again)) == canonical_json(shape.to_json(bound))


@pytest.mark.parametrize("value", ["text", float("nan"), [float("inf")], object()])
def test_a_call_whose_arguments_do_not_fit_is_refused_before_anybody_is_asked(value: object) -> None:
    shape = Shape(pack)
    with pytest.raises(InvalidInput, match="pack was called with a `many` that does not fit"):
        shape.to_json(shape.bind((Box(1), date(2026, 1, 2)), {"many": value}))


def test_what_langgraph_injects_is_nobodys_to_approve() -> None:
    shape = Shape(injected)
    assert list(shape.adapters) == ["name"]
    assert shape.schema()["required"] == ["name"]


# As LangChain sees it


def schema(one: Any) -> Any:
    return one.tool_call_schema.model_json_schema()


@pytest.mark.parametrize("made", ["as_tool", "tool"])
@pytest.mark.parametrize("function", [pack, injected])
def test_langchain_infers_the_same_schema_as_from_the_plain_function(made: str, function: Any) -> None:
    governed = hitl_tool("pack")(function)
    found = governed.as_tool() if made == "as_tool" else tool(governed)
    plain = tool(function)
    assert found.name == plain.name
    assert found.description == plain.description
    assert schema(found) == schema(plain)


def test_a_governed_tool_looks_like_its_function() -> None:
    governed: Any = hitl_tool("pack")(pack)
    assert (governed.__name__, governed.__doc__) == ("pack", "Pack a box.")
    assert list(inspect.signature(governed).parameters) == list(inspect.signature(pack).parameters)
    assert inspect.iscoroutinefunction(governed)


# Wrong use


async def spread(*names: str) -> None: ...


async def loose(**names: str) -> None: ...


async def opaque(thing: Shape | st.SearchStrategy[int]) -> None: ...


def blocking(name: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (spread, "spread takes \\*names: name every parameter"),
        (loose, "loose takes \\*\\*names: name every parameter"),
        (blocking, "blocking must be an async function"),
    ],
)
def test_a_function_that_cannot_be_approved_is_refused_where_it_is_written(function: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        hitl_tool("x")(function)


@pytest.mark.parametrize(
    "options",
    [{"auto_threshold": 101}, {"quick_threshold": -1}, {"auto_threshold": 50, "quick_threshold": 60},
     {"auto_threshold": float("nan")}, {"risk_level": "extreme"}],
)  # fmt: skip
def test_wrong_thresholds_and_levels_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"threshold|extreme"):
        hitl_tool("x", **options)


@pytest.mark.parametrize("option", ["target", "cost"])
def test_a_target_that_is_no_argument_is_refused(option: str) -> None:
    options: dict[str, Any] = {option: "nothing"}
    with pytest.raises(TypeError, match="pack has no argument nothing"):
        hitl_tool("x", **options)(pack)


async def test_outside_of_a_worker_nothing_runs() -> None:
    with pytest.raises(RuntimeError, match="only inside a node that a Keyturn worker runs"):
        await hitl_tool("x")(pack)(Box(1), date(2026, 1, 2))
    with pytest.raises(RuntimeError, match="only inside a function made by @hitl_tool"):
        tool_key()


def test_a_type_that_json_cannot_hold_is_named() -> None:
    with pytest.raises(TypeError, match="opaque: the type of thing cannot be written as JSON"):
        _ = Shape(opaque).adapters


# The payload


def asked(**more: object) -> Ask:
    (one,) = read(Interrupt(value={"type": "approval", "action": {"operation": "x"}, **more}, id="i"))
    return one


def test_an_interrupt_brings_its_own_adjustments_and_thresholds() -> None:
    one = asked(confidence=80, adjustments=[{"name": "a", "points": -5}], thresholds={"auto": 70}, editable=True,
                justification="the customer waits")  # fmt: skip
    assert (one.confidence, one.from_agent) == (80, True)
    assert one.adjustments == (Adjustment("a", -5),)
    assert (one.auto_threshold, one.quick_threshold) == (70, None)
    assert one.editable
    assert one.justification == "the customer waits"
    plain = asked()
    assert (plain.adjustments, plain.editable, plain.from_agent, plain.justification) == (None, False, False, "")
    assert asked(confidence=None).from_agent
    assert not asked(editable="yes").editable


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"adjustments": {"a": 1}}, "`adjustments` must be a list"),
        ({"adjustments": [{"name": "a", "points": "many"}]}, "the points of adjustment 'a' are no number"),
        ({"adjustments": [{"name": "a"}]}, "KeyError: 'points'"),
        ({"thresholds": 85}, "`thresholds` must be an object"),
        ({"thresholds": {"auto": 101}}, "the threshold `auto` is 101; allowed: a number from 0 to 100"),
        ({"thresholds": {"quick": True}}, "the threshold `quick` is True"),
    ],
)
def test_a_payload_that_is_wrong_says_where(more: dict[str, object], told: str) -> None:
    with pytest.raises(GraphFault) as refused:
        asked(**more)
    assert told in refused.value.detail
