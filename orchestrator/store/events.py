"""The event chain: appending to it and reading it back. Secrets are masked here, the one door to the trail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.core.canonical import redact
from orchestrator.store.db import Connection, Params

EVENTS_CHANNEL = "keyturn_events"
READY_CHANNEL = "keyturn_ready"
CANCEL_CHANNEL = "keyturn_cancel"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: its SSE name, who did it, and what helps to understand it."""

    type: str
    actor: str
    data: dict[str, object] = field(default_factory=dict[str, object])


# Append to the chain of one workflow, whose row the transaction holds or has just written.
APPEND = """
SELECT keyturn.append_events(%(workflow)s, coalesce(%(now)s::timestamptz, now()), %(types)b::text[],
                             %(actors)b::text[], %(bodies)b::text[])
"""

# A workflow's status and newest number, and of the same moment its events after a cursor: so many of them, and none
# that begins behind so many bytes. One row without a number where there are none.
PAGE = """
SELECT w.status, w.last_seq, e.*
  FROM keyturn.workflows w
  LEFT JOIN LATERAL (
       SELECT workflow_id, seq, at, type, actor, data
         FROM (SELECT n.*, sum(octet_length(data::text)) OVER (ORDER BY seq) - octet_length(data::text) AS before
                 FROM (SELECT workflow_id, seq, at, type, actor, body AS data FROM keyturn.events
                        WHERE workflow_id = %(workflow)s AND seq > %(after)s ORDER BY seq LIMIT %(limit)s) AS n) AS m
        WHERE before < %(bytes)s
        ORDER BY seq) AS e ON true
 WHERE w.namespace = %(namespace)s AND w.workflow_id = %(workflow)s
"""

# The newest events of one workflow, newest first.
NEWEST = """
SELECT workflow_id, seq, at, type, actor, body AS data FROM keyturn.events
 WHERE namespace = %(namespace)s AND workflow_id = %(workflow)s ORDER BY seq DESC LIMIT %(limit)s
"""

# A whole chain as it was hashed.
CHAIN = """
SELECT seq, at, type, actor, body::text AS body, hash FROM keyturn.events WHERE workflow_id = %(workflow)s ORDER BY seq
"""


async def append(conn: Connection, workflow_id: str, events: Iterable[Event], now: datetime | None) -> None:
    """Append `events` in order; nothing is read back."""
    rows = list(events)
    if not rows:
        return
    await conn.execute(APPEND, {"workflow": workflow_id, "now": now, **columns(rows)})


def columns(events: Sequence[Event]) -> Params:
    """`types`, `actors` and `bodies` of `events` as they are stored, without secrets and what Postgres cannot hold; all
    None when there are no events.
    """
    return {
        "types": [event.type for event in events] or None,
        "actors": [event.actor for event in events] or None,
        "bodies": [_storable(redact.text(event.data)) for event in events] or None,
    }


# An escaped NUL: its backslash is not itself escaped by the one before it.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def _storable(body: str) -> str:
    """JSON text without what Postgres cannot hold: NUL characters and halves of surrogate pairs."""
    without = _NUL.sub(r"\1", body) if "\\u0000" in body else body
    return without.encode(errors="replace").decode()


async def page(
    conn: Connection, namespace: str, workflow_id: str, after: int, limit: int, size: int
) -> tuple[Params, list[Params]] | None:
    """The workflow's `status` and `last_seq`, and up to `limit` events with a number above `after`, in order; about
    `size` bytes of them, but one at least. None where there is no such workflow.
    """
    asked = {"namespace": namespace, "workflow": workflow_id, "after": after, "limit": limit, "bytes": size}
    rows = await (await conn.execute(PAGE, asked)).fetchall()
    return (rows[0], [row for row in rows if row["seq"] is not None]) if rows else None


async def newest(conn: Connection, namespace: str, workflow_id: str, limit: int) -> list[Params]:
    """The last `limit` events, oldest of them first."""
    found = await conn.execute(NEWEST, {"namespace": namespace, "workflow": workflow_id, "limit": limit})
    return (await found.fetchall())[::-1]


async def chain(conn: Connection, workflow_id: str) -> list[Params]:
    """Every event of a workflow with its stored text and hash."""
    return await (await conn.execute(CHAIN, {"workflow": workflow_id})).fetchall()


# The nodes that have finished at least once.
FINISHED_NODES = """
SELECT DISTINCT body ->> 'node' AS node FROM keyturn.events
 WHERE namespace = %(namespace)s AND workflow_id = %(workflow)s AND type = 'step-finished'
"""


async def finished_nodes(conn: Connection, namespace: str, workflow_id: str) -> set[str]:
    """The names of nodes that have finished at least once."""
    found = await conn.execute(FINISHED_NODES, {"namespace": namespace, "workflow": workflow_id})
    return {row["node"] for row in await found.fetchall()}
