"""Nodes as Keyturn runs them: each knows its visit, and a gate stands before those that the trigger file names.

The graph's code is not touched: a governed copy of the compiled graph is made once, when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.config import get_config
from langgraph.pregel import Pregel

from orchestrator.core.errors import GraphFault
from orchestrator.core.model import Action
from orchestrator.engine.standing import START
from orchestrator.sdk.gate import OnMismatch, OnReject, request_approval
from orchestrator.sdk.runtime import Visit, current_visit, visit_of

AnyGraph = Pregel[Any, Any, Any, Any]
State = Mapping[str, object]


class Gate(Protocol):
    """A gate of the trigger file: what the node is about to do, told from the state it is about to get."""

    @property
    def on_reject(self) -> OnReject:
        """`cancel` the workflow, or `resume` it without running the node."""
        ...

    @property
    def on_mismatch(self) -> OnMismatch:
        """`fail`, or `ask` anew, when the action changed since it was approved."""
        ...

    def action_for(self, state: State) -> Action:
        """The action to approve. Raises a KeyturnError when the state does not give one."""
        ...


class GovernedNode(Runnable[Any, Any]):
    """A node's own runnable, with its visit set and its gate, if any, passed first."""

    def __init__(self, bound: Runnable[Any, Any], gate: Gate | None, plain: Callable[[object], State]) -> None:
        self.bound = bound
        self.gate = gate
        self.plain = plain

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002, ARG002 the base class's shape
        """Refused: a worker runs graphs through the async interface, where a sync node gets a thread."""
        message = "a governed graph runs through ainvoke"
        raise GraphFault(message)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002 the base class's shape
        """Run the node."""
        settings = config if config is not None else get_config()
        token = current_visit.set(_visit(settings))
        try:
            if self.gate is not None:
                action = self.gate.action_for(self.plain(input))
                gate = self.gate
                decision = request_approval(action, on_reject=gate.on_reject, on_mismatch=gate.on_mismatch)
                if not decision.approved:
                    return None
            return await self.bound.ainvoke(input, settings, **kwargs)
        finally:
            current_visit.reset(token)


def _visit(config: RunnableConfig) -> Visit:
    metadata = config.get("metadata", {})
    node, number = visit_of(metadata)
    outer = current_visit.get()
    nested = "|" in str(metadata.get("langgraph_checkpoint_ns", ""))
    return outer.inside(node, number) if nested and outer is not None else Visit(node, number)


def govern(graph: AnyGraph, gates: Mapping[str, Gate], plain: Callable[[object], State]) -> AnyGraph:
    """A copy of `graph` whose nodes know their visits, with `gates` before the nodes they name.

    Raises GraphFault when a gate names a node that the graph does not have.
    """
    unknown = sorted(set(gates) - set(graph.nodes))
    if unknown:
        known = ", ".join(sorted(set(graph.nodes) - {START}))
        detail = f"a gate is put before {', '.join(unknown)}, but the graph's nodes are {known}"
        raise GraphFault(detail, allowed=known)
    nodes: dict[str, object] = {}
    for name, node in graph.nodes.items():
        if name == START:
            nodes[name] = node
            continue
        bound = node.bound
        inner = govern(cast("AnyGraph", bound), {}, plain) if isinstance(bound, Pregel) else bound
        update: dict[str, object] = {"bound": GovernedNode(inner, gates.get(name), plain)}
        if inner is not bound:
            update["subgraphs"] = [inner]
        nodes[name] = node.copy(update)
    copied = graph.copy({"nodes": nodes, "auto_validate": False})
    # A copy loses the list of state types that strict msgpack may load.
    copied._serde_allowlist = graph._serde_allowlist  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return copied
