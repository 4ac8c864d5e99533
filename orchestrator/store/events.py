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
class Wanted:
    """A page of a workflow's events: those behind `after`, `limit` at most, about `size` bytes but one at least."""

    namespace: str
    workflow_id: str
    after: int
    limit: int
    size: int


@dataclass(slots=True)
class Page:
    """What was found: the workflow's status and newest number, and the rows of the events in order."""

    status: str
    last_seq: int
    rows: list[Params]


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

# Of some workflows, each with its place in the list: status and newest number, and of the same moment the events after
# a cursor; so many of them, and none that begins behind so many bytes. One row without a number where there are none.
PAGES = """
SELECT p.place, w.status, w.last_seq, e.*
  FROM unnest(%(namespaces)s::text[], %(workflows)s::text[], %(afters)s::bigint[], %(limits)s::bigint[],
              %(sizes)s::bigint[]) WITH ORDINALITY AS p (namespace, workflow_id, after, most, bytes, place)
  JOIN keyturn.workflows w ON w.workflow_id = p.workflow_id AND w.namespace = p.namespace
  LEFT JOIN LATERAL (
       SELECT workflow_id, seq, at, type, actor, data
         FROM (SELECT n.*, sum(octet_length(data::text)) OVER (ORDER BY seq) - octet_length(data::text) AS before
                 FROM (SELECT workflow_id, seq, at, type, actor, body AS data FROM keyturn.events
                        WHERE workflow_id = p.workflow_id AND seq > p.after ORDER BY seq LIMIT p.most) AS n) AS m
        WHERE before < p.bytes) AS e ON true
 ORDER BY p.place, e.seq
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


async def pages(conn: Connection, wanted: Sequence[Wanted], *, wait: bool = True) -> list[Page | None]:
    """A page of each workflow; None where there is no such workflow. There is nothing to `wait` for."""
    del wait
    asked = {
        "namespaces": [one.namespace for one in wanted], "workflows": [one.workflow_id for one in wanted],
        "afters": [one.after for one in wanted], "limits": [one.limit for one in wanted],
        "sizes": [one.size for one in wanted],
    }  # fmt: skip
    found: list[Page | None] = [None] * len(wanted)
    for row in await (await conn.execute(PAGES, asked)).fetchall():
        at = int(row["place"]) - 1
        page = found[at] = found[at] or Page(row["status"], row["last_seq"], [])
        if row["seq"] is not None:
            page.rows.append(row)
    return found


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


# The messages that were told by the newest runs of a thread.
TOLD_MESSAGES = """
SELECT DISTINCT e.body ->> 'message_id' AS message_id
  FROM (SELECT workflow_id FROM keyturn.workflows WHERE thread_key = %(thread_key)s
         ORDER BY created_at DESC LIMIT %(runs)s) AS w
 CROSS JOIN LATERAL (SELECT body FROM keyturn.events
                      WHERE workflow_id = w.workflow_id AND namespace = %(namespace)s AND type = 'message') AS e
"""

_RUNS_LOOKED_AT = 200


async def told_messages(conn: Connection, namespace: str, thread_key: str) -> set[str]:
    """The ids of the messages that running nodes of a thread told, lately."""
    row = {"namespace": namespace, "thread_key": thread_key, "runs": _RUNS_LOOKED_AT}
    return {one["message_id"] for one in await (await conn.execute(TOLD_MESSAGES, row)).fetchall()}
