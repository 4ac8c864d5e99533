"""Assistants as the LangGraph API has them: one for each graph that workers offer. Nobody makes or changes one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from orchestrator.core.errors import NotFound
from orchestrator.service.context import Caller, Context
from orchestrator.store import fleet
from orchestrator.store.db import Params

# The namespace in which LangGraph names the assistants of its graphs: the same graph has the same id everywhere.
_NAMESPACE = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


@dataclass(frozen=True, slots=True)
class Assistant:
    """A graph on offer: its input's JSON Schema and its shape."""

    assistant_id: str
    graph: str
    offered_at: datetime
    input_schema: Mapping[str, object]
    topology: Mapping[str, object]


def id_of(graph: str) -> str:
    """The id of a graph's assistant."""
    return str(uuid.uuid5(_NAMESPACE, graph))


async def offered(ctx: Context, caller: Caller) -> list[Assistant]:
    """All of them, by name."""
    caller.need("read")
    async with ctx.db.connection() as conn:
        rows = [await fleet.newest(conn, name) for name in await fleet.names(conn)]
    return [_assistant(row) for row in rows if row is not None]


async def find(ctx: Context, wanted: str) -> Assistant:
    """The assistant of this id, or the one of the graph of this name. NotFound."""
    async with ctx.db.connection() as conn:
        known = await fleet.names(conn)
        graph = next((name for name in known if wanted in (name, id_of(name))), None)
        row = None if graph is None else await fleet.newest(conn, graph)
    if row is None:
        detail = f"there is no assistant and no graph {wanted!r}; workers offer: {', '.join(known) or 'none yet'}"
        raise NotFound(detail, allowed=known)
    return _assistant(row)


def _assistant(row: Params) -> Assistant:
    return Assistant(
        id_of(row["graph"]), row["graph"], row["offered_at"], cast("Mapping[str, object]", row["input_schema"]),
        cast("Mapping[str, object]", row["topology"]),
    )  # fmt: skip
