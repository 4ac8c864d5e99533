"""The catalog: the graphs that a `langgraph.json` names, loaded, governed and described.

A graph may be an object or a factory, sync or async. Nothing here knows of workflows.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast, get_type_hints

from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from orchestrator.core.canonical import canonical_json
from orchestrator.core.errors import GraphFault
from orchestrator.core.sessions import message_field
from orchestrator.engine.loading import AppFile, read_app
from orchestrator.engine.nodes import AnyGraph, Gate, govern
from orchestrator.engine.render import to_object
from orchestrator.engine.standing import START, Stops
from orchestrator.sdk.options import ATTRIBUTE, GraphOptions

Gates = Mapping[str, Mapping[str, Gate]]


@dataclass(frozen=True, slots=True)
class GraphEntry:
    """One graph of the catalog. `topology` is `{nodes: [{id}], edges: [{source, target, conditional}]}`; `types` are
    the state types that strict msgpack may load.
    """

    name: str
    graph: AnyGraph
    version: str
    input_schema: dict[str, object]
    topology: dict[str, object]
    pure: frozenset[str]
    stops: Stops
    types: frozenset[tuple[str, ...]]
    keep_all: bool
    max_running: int | None
    text_nodes: frozenset[str]
    traits: dict[str, object]

    def has(self, node: str) -> bool:
        """Whether the graph has this node. The start is in every graph, if not as a node (functional interface)."""
        return node == START or node in self.graph.nodes


class Catalog:
    """The loaded graphs; entered once per process, as a factory may hold resources until it is left."""

    def __init__(self, app: AppFile, gates: Gates) -> None:
        self._app = app
        self._gates = gates
        self._stack = AsyncExitStack()
        self.entries: dict[str, GraphEntry] = {}

    async def __aenter__(self) -> Self:
        unknown = sorted(set(self._gates) - set(self._app.graphs))
        if unknown:
            known = ", ".join(sorted(self._app.graphs))
            detail = f"gates are set for {', '.join(unknown)}, but {self._app.file} names: {known}"
            raise GraphFault(detail)
        for name in self._app.graphs:
            self.entries[name] = await self._load(name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def get(self, name: str) -> GraphEntry:
        """The graph of this name; GraphFault when this worker does not have it."""
        entry = self.entries.get(name)
        if entry is None:
            detail = f"this worker has no graph {name}; it has {', '.join(sorted(self.entries))}"
            raise GraphFault(detail)
        return entry

    async def _load(self, name: str) -> GraphEntry:
        found, source = self._app.load(name)
        try:
            graph = await self._built(found)
            chosen = getattr(found, ATTRIBUTE, None) or getattr(graph, ATTRIBUTE, None) or GraphOptions()
            governed = govern(graph, self._gates.get(name, {}), to_object)
        except GraphFault as error:
            detail = f"graph {name} of {self._app.file}: {error.detail}"
            raise GraphFault(detail, graph=name) from error
        except Exception as error:
            detail = f"graph {name} of {self._app.file} cannot be built: {type(error).__name__}: {error}"
            raise GraphFault(detail, graph=name) from error
        told = cast("GraphOptions", chosen)
        told = replace(told, text_nodes=self._shown(name, graph, told), ag_ui=self._app.ag_ui[name] or told.ag_ui)
        return _entry(name, graph, governed, told, source)

    def _shown(self, name: str, graph: AnyGraph, told: GraphOptions) -> frozenset[str]:
        """The nodes whose text clients see. GraphFault where the graph has no such node."""
        shown = self._app.text_nodes[name] or told.text_nodes
        if unknown := sorted(shown - set(graph.nodes)):
            nodes = ", ".join(sorted(set(graph.nodes) - {START}))
            detail = f"graph {name} of {self._app.file}: text_nodes names {', '.join(unknown)}; its nodes are {nodes}"
            raise GraphFault(detail, graph=name)
        return shown

    async def _built(self, found: object) -> AnyGraph:
        if isinstance(found, Pregel):
            return cast("AnyGraph", found)
        if isinstance(found, StateGraph):
            return cast("AnyGraph", cast("Any", found).compile())
        if callable(found):
            return await self._built(await self._made(found))
        detail = f"it is a {type(found).__name__}; a graph, or a function that returns one, is needed"
        raise GraphFault(detail)

    async def _made(self, factory: object) -> object:
        call = cast("Any", factory)
        made = call({"configurable": {}}) if inspect.signature(call).parameters else call()
        if inspect.isawaitable(made):
            made = await made
        if isinstance(made, AbstractAsyncContextManager):
            return await self._stack.enter_async_context(cast("AbstractAsyncContextManager[object]", made))
        if isinstance(made, AbstractContextManager) and not isinstance(made, Pregel):
            return self._stack.enter_context(cast("AbstractContextManager[object]", made))
        return made


def load_catalog(app: Path, gates: Gates) -> Catalog:
    """The catalog of the `langgraph.json` at `app`, to be entered. GraphFault when the file is wrong."""
    return Catalog(read_app(app), gates)


def _entry(name: str, graph: AnyGraph, governed: AnyGraph, chosen: GraphOptions, source: str) -> GraphEntry:
    topology = _topology(graph)
    digest = hashlib.sha256(f"{canonical_json(topology)}\n{source}".encode()).hexdigest()[:12]
    return GraphEntry(
        name=name,
        graph=governed,
        version=chosen.version or digest,
        input_schema=dict(chosen.input_schema) if chosen.input_schema is not None else _input_schema(graph),
        topology=topology,
        pure=frozenset(node for node, body in graph.nodes.items() if (body.metadata or {}).get("pure") is True),
        stops=Stops(_names(graph.interrupt_before_nodes), _names(graph.interrupt_after_nodes)),
        types=frozenset(graph._serde_allowlist or ()),  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        keep_all=chosen.history == "full",
        max_running=chosen.max_running,
        text_nodes=chosen.text_nodes,
        traits=_traits(chosen, graph),
    )


def _traits(chosen: GraphOptions, graph: AnyGraph) -> dict[str, object]:
    """What the API knows of a graph beyond its shape; what is not so is not there."""
    hinted = _fields(graph)
    told = {
        "text_nodes": sorted(chosen.text_nodes),
        "capture": chosen.capture,
        "plan": None if chosen.plan is None else dict(chosen.plan),
        "says": message_field(chosen.input_schema or hinted),
        "fields": sorted(cast("Mapping[str, object]", hinted.get("properties") or {})),
        "ag_ui": None if chosen.ag_ui == "1.0" else chosen.ag_ui,
    }
    return {name: value for name, value in told.items() if value}


def _fields(graph: AnyGraph) -> dict[str, object]:
    """The input's fields by their annotations: a schema of what takes messages, or of a state type that pydantic does
    not know, says too little. Just enough of a JSON Schema to tell texts from the rest.
    """
    state: Any = getattr(getattr(graph, "builder", None), "input_schema", None)
    try:
        hints = get_type_hints(state)
    except Exception:  # noqa: BLE001 an annotation may name what is not there; then nothing is known of the fields
        return {}
    needed = sorted(getattr(state, "__required_keys__", hints))
    return {"properties": {name: {"type": "string"} if hint is str else {} for name, hint in hints.items()},
            "required": needed}  # fmt: skip


def _names(nodes: str | Sequence[str]) -> frozenset[str]:
    return frozenset([nodes] if isinstance(nodes, str) else nodes)


def _topology(graph: AnyGraph) -> dict[str, object]:
    try:
        drawn = graph.get_graph()
        nodes = [{"id": node} for node in drawn.nodes]
        edges = [{"source": e.source, "target": e.target, "conditional": e.conditional} for e in drawn.edges]
    except Exception:  # noqa: BLE001 a drawing is for people; a graph that cannot be drawn still runs
        nodes, edges = [{"id": node} for node in graph.nodes if node != START], []
    return {"nodes": nodes, "edges": edges}


def _input_schema(graph: AnyGraph) -> dict[str, object]:
    """The graph's own input schema. Messages have many accepted spellings that no schema of theirs lists, so a graph
    that takes messages only asks for an object.
    """
    anything: dict[str, object] = {"type": "object"}
    try:
        schema = graph.get_input_jsonschema()
    except Exception:  # noqa: BLE001 a state type may have no JSON Schema; LangGraph itself then checks nothing either
        return anything
    definitions = cast("Mapping[str, object]", schema.get("$defs") or {})
    if schema.get("type") != "object" or any(key.endswith("Message") for key in definitions):
        return anything
    return cast("dict[str, object]", schema)
