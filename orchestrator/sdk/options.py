"""What a graph may tell Keyturn about itself, and the mark for nodes without effects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

G = TypeVar("G")
ATTRIBUTE = "__keyturn__"

# `builder.add_node("assess", assess, metadata=PURE)`: the node has no effect outside of the state, so it may run again.
PURE: dict[str, object] = {"pure": True}


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """A graph's own settings; see `options`."""

    input_schema: Mapping[str, object] | None = None
    version: str | None = None
    history: Literal["latest", "full"] = "latest"
    max_running: int | None = None
    text_nodes: frozenset[str] = frozenset()
    capture: bool = False
    plan: Mapping[str, object] | None = None
    ag_ui: Literal["1.0", "legacy"] | None = None


def options(
    graph: G,
    *,
    input_schema: Mapping[str, object] | None = None,
    version: str | None = None,
    history: Literal["latest", "full"] = "latest",
    max_running: int | None = None,
    text_nodes: Collection[str] = (),
    capture: bool = False,
    plan: Mapping[str, object] | None = None,
    ag_ui: Literal["1.0", "legacy"] | None = None,
) -> G:
    """Attach settings to a compiled graph and return it.

    `input_schema` is a JSON Schema that a submitted input must match (default: the graph's own). `version` names this
    version of the graph (default: a digest of its shape and code). `history="full"` keeps every checkpoint.
    `max_running` is how many workflows of the graph may run at once over all workers (default: no limit).
    `text_nodes` names the nodes whose messages clients see as they are written (default: none). Workflows of a graph
    with `capture` show in the inbox. `plan` tells the steps of a long task, their titles and weights; `steps` sets it.
    `ag_ui="legacy"`: its AG-UI clients are from before 1.0, and answer by `forwardedProps.command.resume`.
    """
    chosen = GraphOptions(input_schema, version, history, max_running, frozenset(text_nodes), capture, plan, ag_ui)
    object.__setattr__(graph, ATTRIBUTE, chosen)
    return graph
