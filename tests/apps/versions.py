"""One graph in three versions: the second changes what its nodes do, the third has no gate any more."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from orchestrator.sdk import PURE, Action, options, request_approval


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def _version(version: str, *names: str) -> Any:
    def gate(state: Any) -> Any:
        request_approval(Action("deploy", environment="production"))
        return {"log": [f"gate {version}"]}

    def step(name: str) -> Any:
        def run(state: Any) -> Any:
            return {"log": [f"{name} {version}"]}

        return run

    builder = StateGraph(State)
    for name in names:
        builder.add_node(name, gate if name == "gate" else step(name), metadata=PURE)
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    return options(builder.compile(), version=version)


one = _version("1", "prepare", "gate", "apply")
two = _version("2", "prepare", "gate", "apply")
three = _version("3", "prepare", "apply")
