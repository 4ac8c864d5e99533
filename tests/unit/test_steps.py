"""`steps([...])` as its author uses it: what is wrong is said by name, and it runs without Keyturn as well."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from typing_extensions import TypedDict

from orchestrator.core.errors import GraphFault, InvalidInput
from orchestrator.sdk import Step, Substep, progress, steps
from orchestrator.sdk.options import ATTRIBUTE, GraphOptions
from orchestrator.sdk.runtime import Told


class State(TypedDict, total=False):
    numbers: list[int]
    total: int


async def fill(state: State) -> State:
    progress(50, message="filling")  # no worker: nothing happens
    return {"numbers": [*state.get("numbers", []), 2, 3]}


def add(state: State) -> State:
    progress(done=1, total=2, substep="half")
    return {"total": sum(state.get("numbers", []))}


def nothing(_state: Mapping[str, Any]) -> None:
    progress()


async def test_steps_run_in_order_under_plain_langgraph() -> None:
    graph = steps([Step("fill", fill), Step("add", add, timeout=5, retries=1)], state=State)
    assert await graph.ainvoke({"numbers": [1]}) == {"numbers": [1, 2, 3], "total": 6}
    opened = steps([Step("nothing", nothing), Step("later", lambda _: asyncio.sleep(0, {"b": 2}))])
    assert await opened.ainvoke({"a": 1}) == {"a": 1, "b": 2}


def test_the_plan_and_the_limit_are_told_with_the_graph() -> None:
    parts = ["read", Substep("write", 3, "Write")]
    graph = steps([Step("copy", nothing, 9, 2, 4, parts, "Copy")], timeout=60)
    told: GraphOptions = getattr(graph, ATTRIBUTE)
    assert told.max_running == 5
    assert told.plan == {
        "steps": [
            {
                "name": "copy", "title": "Copy", "weight": 4, "attempts": 3, "timeout": 9,
                "substeps": [
                    {"name": "read", "title": "", "weight": 1.0},
                    {"name": "write", "title": "Write", "weight": 3},
                ],
            }
        ],
        "timeout": 60,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ([], {}, "at least one Step"),
        ([Step("a", nothing), Step("a", nothing)], {}, "steps: a is there twice"),
        ([Step("", nothing)], {}, "steps: one has no name"),
        ([Step("a", nothing, timeout=0)], {}, "step a: timeout is 0"),
        ([Step("a", nothing, weight=float("nan"))], {}, "step a: weight is nan"),
        ([Step("a", nothing, retries=-1)], {}, "step a: retries is -1"),
        ([Step("a", nothing, substeps=["x", "x"])], {}, "step a: substeps: x is there twice"),
        ([Step("a", nothing, substeps=[Substep("x", 0)])], {}, "step a: weight of sub-step x is 0"),
        ([Step("a", nothing)], {"timeout": -1}, "the total time-out is -1"),
        ([Step("a", nothing)], {"max_running": 0}, "max_running is 0"),
    ],
)
def test_what_is_wrong_with_steps_is_said_by_name(given: Any, options: Any, said: str) -> None:
    with pytest.raises(GraphFault) as error:
        steps(given, **options)
    assert said in error.value.detail


@pytest.mark.parametrize("figures", [{"percent": float("nan")}, {"done": float("inf")}, {"done": 1, "total": 0}])
def test_a_figure_that_is_none_is_refused_also_without_a_worker(figures: Any) -> None:
    with pytest.raises(InvalidInput):
        progress(**figures)


def test_every_telling_has_the_whole_of_what_is_known() -> None:
    told = Told()
    assert {**told.add(10.0, message="a", done=1, total=10), "seconds": 0} == {
        "percent": 10.0, "message": "a", "done": 1, "total": 10, "seconds": 0,
    }  # fmt: skip
    assert told.add(None, message="", done=2, total=None) | {"seconds": 0} == {
        "percent": 10.0, "message": "a", "done": 2, "total": 10, "seconds": 0,
    }  # fmt: skip
    assert told.add_substep("x", None, "b") | {"seconds": 0} == {"message": "b", "seconds": 0, "substeps": {"x": 0.0}}
    assert told.add_substep("y", 50.0, "")["substeps"] == {"x": 0.0, "y": 50.0}
    assert told.add_substep("x", 20.0, "")["substeps"] == {"x": 20.0, "y": 50.0}
    assert told.add(30.0)["percent"] == 30.0
