"""SQL that reads event chains as they are stored, for whoever proves or exports them. Nothing is written here.

Chains are the namespace's own, then those of its workflows, newest first, then those whose workflow is gone. All of it
is read in pages by key, so memory and transactions stay small however much there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

from orchestrator.core.audit import Head, StoredEvent
from orchestrator.store.db import Connection, Params
from orchestrator.store.ledger import stream_of

# The head of a namespace's own chain.
_LEDGER: Final[LiteralString] = """
SELECT last_seq, last_hash FROM keyturn.namespaces WHERE namespace = %(namespace)s
"""

# The heads of a namespace's workflows, newest first, from a place on.
_WORKFLOWS: Final[LiteralString] = """
SELECT workflow_id, created_at, last_seq, last_hash FROM keyturn.workflows
 WHERE namespace = %(namespace)s
   AND (created_at, workflow_id) < (coalesce(%(before_at)s::timestamptz, 'infinity'), coalesce(%(before_id)s::text, ''))
 ORDER BY created_at DESC, workflow_id DESC LIMIT %(limit)s
"""

# One workflow's head.
_WORKFLOW: Final[LiteralString] = """
SELECT workflow_id, created_at, last_seq, last_hash FROM keyturn.workflows
 WHERE namespace = %(namespace)s AND workflow_id = %(workflow)s
"""

# The names of the next chains of all namespaces, one probe of the index each, and whether the row behind it is there.
_NAMES: Final[LiteralString] = """
WITH RECURSIVE chains AS (
    (SELECT workflow_id, namespace, 1 AS n FROM keyturn.events
      WHERE workflow_id > %(after)s ORDER BY workflow_id, seq LIMIT 1)
    UNION ALL
    SELECT next.workflow_id, next.namespace, n + 1
      FROM chains c
     CROSS JOIN LATERAL (SELECT workflow_id, namespace FROM keyturn.events e
                          WHERE e.workflow_id > c.workflow_id ORDER BY e.workflow_id, e.seq LIMIT 1) AS next
     WHERE n < %(limit)s
)
SELECT workflow_id,
       c.namespace = %(namespace)s AND left(workflow_id, 1) <> '@'
       AND NOT EXISTS (SELECT FROM keyturn.workflows w
                        WHERE w.workflow_id = c.workflow_id AND w.namespace = c.namespace) AS gone
  FROM chains c ORDER BY n
"""

# Events of some chains, one chain after the other as they are named; of the first only those after a number. A time
# that no event of ours can have, which Python could not hold either, is given as none.
_EVENTS: Final[LiteralString] = """
SELECT e.workflow_id, e.seq, e.namespace,
       CASE WHEN e.at BETWEEN '0002-01-01' AND '9998-12-31' THEN e.at END AS at,
       e.type, e.actor, e.body::text AS body, e.hash
  FROM unnest(%(chains)s::text[]) WITH ORDINALITY AS c (chain, n)
 CROSS JOIN LATERAL (
       SELECT * FROM keyturn.events e
        WHERE e.workflow_id = c.chain AND (c.n > 1 OR e.seq > %(after)s)
          AND (%(since)s::timestamptz IS NULL OR e.at >= %(since)s)
          AND (%(until)s::timestamptz IS NULL OR e.at < %(until)s)
        ORDER BY e.seq LIMIT %(limit)s) AS e
 ORDER BY c.n, e.seq LIMIT %(limit)s
"""

# The newest events of some chains, of the first only those before a number; by type and actor.
_NEWEST: Final[LiteralString] = """
SELECT e.workflow_id, e.seq, e.at, e.type, e.actor, e.body AS data, encode(e.hash, 'hex') AS hash
  FROM unnest(%(chains)s::text[]) WITH ORDINALITY AS c (chain, n)
 CROSS JOIN LATERAL (
       SELECT * FROM keyturn.events e
        WHERE e.workflow_id = c.chain AND e.namespace = %(namespace)s AND (c.n > 1 OR e.seq < %(before)s)
          AND (%(type)s::text IS NULL OR e.type = %(type)s) AND (%(actor)s::text IS NULL OR e.actor = %(actor)s)
        ORDER BY e.seq DESC LIMIT %(limit)s) AS e
 ORDER BY c.n, e.seq DESC LIMIT %(limit)s
"""

# What there is of some anchored heads: the hash of that event, and where its chain ends.
_ANCHORED: Final[LiteralString] = """
SELECT (SELECT e.hash FROM keyturn.events e
         WHERE e.workflow_id = a.chain AND e.seq = a.seq AND e.namespace = %(namespace)s) AS hash,
       coalesce((SELECT e.seq FROM keyturn.events e
                  WHERE e.workflow_id = a.chain AND e.namespace = %(namespace)s ORDER BY e.seq DESC LIMIT 1), 0) AS last
  FROM unnest(%(chains)s::text[], %(seqs)s::bigint[]) WITH ORDINALITY AS a (chain, seq, n) ORDER BY n
"""

FROM_THE_NEWEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain: its name among the events, and the head on its row (None: there is no such row)."""

    name: str
    head: Head | None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Filters:
    """Which events are wanted: from `since` on, and before `until`."""

    since: datetime | None = None
    until: datetime | None = None


async def ledger(conn: Connection, namespace: str) -> Chain:
    """The namespace's own chain."""
    row = await (await conn.execute(_LEDGER, {"namespace": namespace})).fetchone()
    return Chain(stream_of(namespace), None if row is None else Head(row["last_seq"], bytes(row["last_hash"])))


async def workflows(
    conn: Connection, namespace: str, before: tuple[datetime, str] | None, limit: int
) -> Sequence[Chain]:
    """The chains of up to `limit` workflows, newest first, that come after the one at `before`."""
    at, name = before or (None, None)
    parts = {"namespace": namespace, "before_at": at, "before_id": name, "limit": limit}
    return [_chain(row) for row in await (await conn.execute(_WORKFLOWS, parts)).fetchall()]


async def workflow(conn: Connection, namespace: str, workflow_id: str) -> Chain | None:
    """The chain of one workflow; None when the namespace has no such workflow."""
    row = await (await conn.execute(_WORKFLOW, {"namespace": namespace, "workflow": workflow_id})).fetchone()
    return None if row is None else _chain(row)


async def gone(conn: Connection, namespace: str, after: str, limit: int) -> tuple[Sequence[Chain], str | None]:
    """Chains of the namespace whose workflow is not there, among the next `limit` names after `after`; and the last of
    those names, None when there are no more.
    """
    rows = await (await conn.execute(_NAMES, {"namespace": namespace, "after": after, "limit": limit})).fetchall()
    last = rows[-1]["workflow_id"] if len(rows) == limit else None
    return [Chain(row["workflow_id"], None) for row in rows if row["gone"]], last


async def events(
    conn: Connection, chains: Sequence[str], after: int, limit: int, filters: Filters | None = None
) -> Sequence[StoredEvent]:
    """Up to `limit` events of `chains`, chain by chain in order; of the first only those after number `after`.

    Whatever namespace the rows say: what was moved to another one must show.
    """
    wanted = filters or Filters()
    parts = {"chains": chains, "after": after, "since": wanted.since, "until": wanted.until, "limit": limit}
    rows = await (await conn.execute(_EVENTS, parts)).fetchall()
    return [
        StoredEvent(
            row["workflow_id"], row["seq"], row["namespace"], row["at"], row["type"], row["actor"], row["body"],
            bytes(row["hash"]),
        )
        for row in rows
    ]  # fmt: skip


async def newest(conn: Connection, namespace: str, chains: Sequence[str], before: int, filters: Params) -> list[Params]:
    """Events of `chains`, newest first, of the first only those before a number. `filters`: type, actor, limit."""
    parts = {**filters, "namespace": namespace, "chains": chains, "before": before}
    return await (await conn.execute(_NEWEST, parts)).fetchall()


async def anchored(
    conn: Connection, namespace: str, heads: Sequence[tuple[str, int]]
) -> Sequence[tuple[bytes | None, int]]:
    """For each (chain, number): the hash of that event (None: not there) and the number its chain ends with."""
    parts = {"namespace": namespace, "chains": [name for name, _ in heads], "seqs": [seq for _, seq in heads]}
    rows = await (await conn.execute(_ANCHORED, parts)).fetchall()
    return [(None if row["hash"] is None else bytes(row["hash"]), int(row["last"])) for row in rows]


def _chain(row: Params) -> Chain:
    return Chain(row["workflow_id"], Head(row["last_seq"], bytes(row["last_hash"])), row["created_at"])
