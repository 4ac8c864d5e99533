"""What the engine lends to code that runs inside a node: identity, the visit, and the effects ledger.

The engine sets the run's `Host` and each node's `Visit`; graph authors never touch either directly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

from langgraph.config import get_config

T = TypeVar("T")


class Told:
    """What one run of a node has told of its progress so far; the nodes of a subgraph tell as sub-steps of its node."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._body: dict[str, object] = {}
        self._substeps: dict[str, float] = {}

    def add(self, share: float | None, **told: object) -> dict[str, object]:
        """The whole of it, after more was told. What is empty stays as it was."""
        with self._lock:
            if share is not None:
                self._body["percent"] = share
            self._body |= {name: value for name, value in told.items() if value not in (None, "")}
            return self._whole()

    def add_substep(self, name: str, share: float | None, message: str) -> dict[str, object]:
        """The same of a sub-step. The node's own share follows from its sub-steps from then on."""
        with self._lock:
            if share is not None or name not in self._substeps:
                self._substeps[name] = share or 0.0
            for figure in ("percent", "done", "total"):
                self._body.pop(figure, None)
            if message:
                self._body["message"] = message
            return self._whole()

    def _whole(self) -> dict[str, object]:
        # What it has told was reached in so many seconds: waits and earlier attempts do not count.
        whole = {**self._body, "seconds": round(time.monotonic() - self._began, 3)}
        return {**whole, "substeps": dict(self._substeps)} if self._substeps else whole


@dataclass(frozen=True, slots=True)
class Visit:
    """Which node runs, and which visit of it: stable when the same step runs again after a crash.

    `turns` are the gated tool calls of this one run of it, `told` is what it has told of its progress; `root` is the
    node of the workflow's own graph that it is inside of.
    """

    node: str
    number: str
    depth: int = 1
    turns: dict[str, object] = field(default_factory=dict[str, object], compare=False, repr=False)
    told: Told = field(default_factory=Told, compare=False, repr=False)
    root: str = field(default="", compare=False)

    def inside(self, node: str, number: str) -> Visit:
        """The visit of a node of a subgraph that runs inside this one."""
        return Visit(
            f"{self.node}/{node}", f"{self.number}.{number}", self.depth + 1, told=self.told, root=self.outermost
        )

    @property
    def outermost(self) -> str:
        """The node of the workflow's own graph."""
        return self.root or self.node

    @property
    def inner(self) -> str:
        """The node within `outermost`; empty for that node itself."""
        return self.node.removeprefix(self.root).removeprefix("/") if self.root else ""


@dataclass(frozen=True, slots=True)
class EffectEntry:
    """One row of the ledger as found when the effect is entered.

    `state` is `new` (begun just now), `finished` (with `result`) or `in_doubt` (begun by an earlier attempt whose end
    was never recorded). `asked` counts the questions put to a person about it, `settled` those whose answer was used.
    """

    state: str
    result: object = None
    asked: int = 0
    settled: int = 0


@dataclass(frozen=True, slots=True)
class Binding:
    """The approval an effect runs under, and the digest of what is really about to run."""

    approval_id: str
    digest: str


class Host(Protocol):
    """What the engine does for a running node. Every call is fenced: a lost lease raises `LeaseLost`."""

    @property
    def workflow_id(self) -> str:
        """The workflow this node runs for."""
        ...

    def note(self, kind: str, data: Mapping[str, object]) -> None:
        """Note an event of the running workflow; watchers see it within a tenth of a second. Any thread may call."""
        ...

    async def begin_effect(self, key: str, visit: Visit, name: str, binding: Binding | None) -> EffectEntry:
        """Record that the effect is about to run, or say what is already known of it."""
        ...

    async def again_effect(self, key: str) -> None:
        """The earlier attempt is known not to have happened: record that it runs again, and all questions settled."""
        ...

    async def fail_effect(self, key: str, error: str) -> None:
        """Record that the effect's body raised; a later attempt may run it."""
        ...

    async def ask_effect(self, key: str, asked: int) -> None:
        """Record that question number `asked` about this effect is put to a person."""
        ...

    async def finish_effect(self, key: str, result: object) -> None:
        """Record that the effect happened, with its JSON result."""
        ...

    def wait(self, work: Coroutine[object, object, T]) -> T:
        """Run `work` on the engine's loop from a sync node's thread, and wait for it."""
        ...


current_host: ContextVar[Host | None] = ContextVar("keyturn_host", default=None)
current_visit: ContextVar[Visit | None] = ContextVar("keyturn_visit", default=None)


def host() -> Host:
    """The host of the running node; RuntimeError outside of a Keyturn worker."""
    found = current_host.get()
    if found is None:
        message = "this call works only inside a node that a Keyturn worker runs"
        raise RuntimeError(message)
    return found


def visit() -> Visit:
    """The visit of the running node; RuntimeError outside of one.

    A node of a graph that a node's function calls by itself is told apart by its own step within the calling node.
    """
    found = current_visit.get()
    if found is None:
        message = "this call works only inside a node that a Keyturn worker runs"
        raise RuntimeError(message)
    metadata = get_config().get("metadata", {})
    # "outer:id|2|inner:id": a part with an id is a node; a bare number counts repeated calls within one node.
    parts = str(metadata.get("langgraph_checkpoint_ns", "")).split("|")
    nodes = [place for place, part in enumerate(parts) if ":" in part]
    beyond = nodes[found.depth :]
    if not beyond:
        return found
    if len(beyond) > 1:
        message = (
            "an effect two graphs deep below a node's function cannot be told from its repetitions; "
            "add the inner graph as a node, or run the effect one level higher"
        )
        raise RuntimeError(message)
    calls = "".join(f"{part}." for part in parts[nodes[found.depth - 1] + 1 : beyond[0]])
    node, number = visit_of(metadata)
    return found.inside(node, f"{calls}{number}")


def visit_of(metadata: Mapping[str, Any]) -> tuple[str, str]:
    """A task's node and the number of its visit: the step, and for a `Send` its place within the step."""
    number = str(metadata["langgraph_step"])
    path = cast("tuple[object, ...]", metadata.get("langgraph_path") or ())
    if path and path[0] == "__pregel_push":
        number += f".{_flat(path[1:])}"
    return str(metadata["langgraph_node"]), number


def _flat(path: object) -> str:
    if isinstance(path, tuple):
        return "-".join(_flat(part) for part in cast("tuple[object, ...]", path) if not isinstance(part, bool))
    return str(path)


def idempotency_key(name: str = "") -> str:
    """`workflow:node:visit[:name]`: the same again when a crash makes the node run again, never the same otherwise.

    Hand it to whatever the node calls, so that a repeated call has no second effect there.
    """
    here = visit()
    key = f"{host().workflow_id}:{here.node}:{here.number}"
    return f"{key}:{name}" if name else key
