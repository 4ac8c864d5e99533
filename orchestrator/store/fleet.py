"""What workers offer and that they live: the graphs they can run, and a sign of life the readiness check reads."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.types.json import Json

from orchestrator.store.db import Connection, Params

# Offer a graph at a version; the newest offer is what new workflows are pinned to.
OFFER = """
INSERT INTO keyturn.graphs (graph, version, input_schema, topology, max_running, traits, offered_at)
VALUES (%(graph)s, %(version)s, %(input_schema)s, %(topology)s, %(max_running)s, %(traits)s, clock_timestamp())
ON CONFLICT (graph, version) DO UPDATE
   SET input_schema = EXCLUDED.input_schema, topology = EXCLUDED.topology, max_running = EXCLUDED.max_running,
       traits = EXCLUDED.traits, offered_at = EXCLUDED.offered_at
"""

# The newest offer of a graph.
NEWEST = "SELECT * FROM keyturn.graphs WHERE graph = %(graph)s ORDER BY offered_at DESC LIMIT 1"

# The version a workflow was pinned to.
VERSION = "SELECT * FROM keyturn.graphs WHERE graph = %(graph)s AND version = %(version)s"

NAMES = "SELECT DISTINCT graph FROM keyturn.graphs ORDER BY graph"

# A worker's sign of life.
SEEN = """
INSERT INTO keyturn.workers (worker_id, host, pid, capacity, graphs)
VALUES (%(worker_id)s, %(host)s, %(pid)s, %(capacity)s, %(graphs)s)
ON CONFLICT (worker_id) DO UPDATE SET seen_at = now()
"""

GONE = "DELETE FROM keyturn.workers WHERE worker_id = %(worker_id)s"

# Workers seen lately. Always the real clock: this is about processes, not deadlines.
LIVE = "SELECT worker_id, host, pid, capacity, graphs, seen_at FROM keyturn.workers WHERE seen_at > now() - make_interval(secs => %(within)s)"  # noqa: E501 one statement


async def offer(conn: Connection, row: Params) -> None:
    """Offer a graph; `input_schema`, `topology` and `traits` are JSON values."""
    await conn.execute(OFFER, {**row, **{name: Json(row[name]) for name in ("input_schema", "topology", "traits")}})


async def newest(conn: Connection, graph: str) -> Params | None:
    """The newest offer of `graph`; None when no worker ever offered it."""
    return await (await conn.execute(NEWEST, {"graph": graph})).fetchone()


async def version(conn: Connection, graph: str, wanted: str) -> Params | None:
    """The offer of `graph` at a version."""
    return await (await conn.execute(VERSION, {"graph": graph, "version": wanted})).fetchone()


async def names(conn: Connection) -> list[str]:
    """Every graph ever offered."""
    return [row["graph"] for row in await (await conn.execute(NAMES)).fetchall()]


async def seen(conn: Connection, worker_id: str, host: str, pid: int, capacity: int, graphs: Sequence[str]) -> None:
    """Note that a worker lives."""
    row = {"worker_id": worker_id, "host": host, "pid": pid, "capacity": capacity, "graphs": list(graphs)}
    await conn.execute(SEEN, row)


async def gone(conn: Connection, worker_id: str) -> None:
    """A worker left in good order."""
    await conn.execute(GONE, {"worker_id": worker_id})


async def live(conn: Connection, within: float) -> list[Params]:
    """Workers seen within so many seconds."""
    return await (await conn.execute(LIVE, {"within": within})).fetchall()


# Workers that have not been seen for long.
BURY = "DELETE FROM keyturn.workers WHERE seen_at < now() - make_interval(hours => %(hours)s)"


async def bury(conn: Connection, hours: int) -> int:
    """Forget workers not seen for so many hours; returns how many."""
    return (await conn.execute(BURY, {"hours": hours})).rowcount
