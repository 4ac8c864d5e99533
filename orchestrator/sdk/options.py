"""What a graph may tell Keyturn about itself, and the mark for nodes without effects."""

from __future__ import annotations

from collections.abc import Mapping
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
    plan: Mapping[str, object] | None = None


def options(
    graph: G,
    *,
    input_schema: Mapping[str, object] | None = None,
    version: str | None = None,
    history: Literal["latest", "full"] = "latest",
    max_running: int | None = None,
    plan: Mapping[str, object] | None = None,
) -> G:
    """Attach settings to a compiled graph and return it.

    `input_schema` is a JSON Schema that a submitted input must match (default: the graph's own). `version` names this
    version of the graph (default: a digest of its shape and code). `history="full"` keeps every checkpoint.
    `max_running` is how many workflows of the graph may run at once over all workers (default: no limit).
    `plan` tells the progress view of its steps: `{"steps": [{"name", "title"?, "weight"?, "substeps"?}]}`.
    """
    object.__setattr__(graph, ATTRIBUTE, GraphOptions(input_schema, version, history, max_running, plan=plan))
    return graph
