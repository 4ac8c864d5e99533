"""Gates that the triggers file puts before a named node of a graph, without a change to the graph.

A gate only says what the node is about to do; judging that is the risk rules' work and stopping for it the engine's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from orchestrator.core.actions import action_from
from orchestrator.core.cel import ExpressionError, StateExpression, StateMapping
from orchestrator.core.documents import DocumentModel
from orchestrator.core.errors import GateFault, InvalidInput
from orchestrator.core.model import Action


class GateEntry(DocumentModel):
    """One gate as written: `graphs.<graph>.nodes.<node>`."""

    operation: str = Field(min_length=1, max_length=200)
    environment: str = ""
    action: StateMapping | None = None
    on_reject: Literal["cancel", "resume"] = "cancel"
    on_mismatch: Literal["fail", "ask"] = "fail"


class GraphEntry(DocumentModel):
    """The gates of one graph as written: `graphs.<graph>`."""

    nodes: dict[str, GateEntry]


@dataclass(frozen=True, slots=True)
class NodeGate:
    """A gate before one node. `on_reject` and `on_mismatch` are what the engine does then (rules 22 and 9)."""

    graph: str
    node: str
    operation: str
    environment: str = ""
    expression: StateExpression | None = None
    on_reject: Literal["cancel", "resume"] = "cancel"
    on_mismatch: Literal["fail", "ask"] = "fail"

    def action_for(self, state: Mapping[str, object]) -> Action:
        """What the node is about to do in `state` (JSON-like values).

        The gate's `operation` and `environment` stand where the expression names none. Raises GateFault when the
        expression fails or does not give an action: the node must not run then.
        """
        try:
            given: Mapping[str, object] = self.expression.mapping(state) if self.expression else {}
            return action_from(given, operation=self.operation, environment=self.environment)
        except (ExpressionError, InvalidInput) as error:
            detail = (
                f"the gate before node {self.node} of graph {self.graph} cannot say what would run: {error}."
                f" Correct graphs.{self.graph}.nodes.{self.node}.action in the triggers file, or what the graph puts"
                " into its state, then retry the workflow."
            )
            raise GateFault(detail, graph=self.graph, node=self.node) from error


def gates_of(graphs: Mapping[str, GraphEntry]) -> Mapping[str, Mapping[str, NodeGate]]:
    """The gates by graph and node."""
    return {
        graph: {
            node: NodeGate(graph, node, gate.operation, gate.environment, gate.action, gate.on_reject, gate.on_mismatch)
            for node, gate in entry.nodes.items()
        }
        for graph, entry in graphs.items()
    }
