"""Reading events over several workflows, in the order of their positions.

A position is drawn from a sequence and appears with its transaction's commit. Commits overtake each other, and a
position whose transaction was rolled back never appears. Whoever has drawn one holds a lock on the sequence until its
transaction has ended, and what it wrote is seen before that lock is gone. So everything up to the sequence's head is
there, or nobody's, once all who held that lock a moment later have let go of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, LiteralString

from orchestrator.store.db import Connection, Params

# The newest position that was drawn, and behind it in time: who holds one that may not have appeared. (The inner query
# refers to the outer one, so that it cannot run before.)
_HEAD: Final[LiteralString] = """
SELECT s.head, (SELECT coalesce(array_agg(l.virtualtransaction), '{}') FROM pg_locks l
                 WHERE l.locktype = 'relation' AND l.relation = 'keyturn.events_position_seq'::regclass
                   AND l.mode = 'RowExclusiveLock' AND s.head IS NOT NULL
                   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS writers
  FROM (SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS head FROM keyturn.events_position_seq OFFSET 0) AS s
"""

# How many events workflows have between two positions; of so many events at most.
_CHANGED: Final[LiteralString] = """
SELECT workflow_id, count(*)::int AS events
  FROM (SELECT workflow_id FROM keyturn.events
         WHERE namespace = ANY (%(namespaces)s) AND position > %(after)s AND position <= %(until)s
         LIMIT %(limit)s) AS e
 GROUP BY workflow_id
"""

# To whom workflows belong; none of it ever changes.
_BELONGS: Final[LiteralString] = """
SELECT workflow_id, namespace, case_id, thread_key FROM keyturn.workflows WHERE workflow_id = ANY (%(workflow_ids)s)
"""

# The last of so many positions of a namespace behind a cursor, where there are so many.
_REACH: Final[LiteralString] = """
SELECT position FROM keyturn.events
 WHERE namespace = %(namespace)s AND position > %(after)s AND position <= %(until)s
 ORDER BY position OFFSET %(most)s - 1 LIMIT 1
"""

# A namespace's events between two positions, without its own chain; none that begins behind so many bytes. `found` is
# how many there were without that.
_EVERYTHING: Final[LiteralString] = """
WITH found AS (
    SELECT workflow_id, seq, position, at, type, actor, body AS data FROM keyturn.events
     WHERE namespace = %(namespace)s AND position > %(after)s AND position <= %(until)s
       AND workflow_id NOT LIKE '@%%' AND (%(types)s::text[] IS NULL OR type = ANY (%(types)s))
     ORDER BY position LIMIT %(limit)s
)
SELECT m.workflow_id, m.seq, m.position, m.at, m.type, m.actor, m.data, w.graph, w.case_id, m.found
  FROM (SELECT n.*, count(*) OVER () AS found,
               sum(octet_length(data::text)) OVER (ORDER BY position) - octet_length(data::text) AS before
          FROM found AS n) AS m
  LEFT JOIN keyturn.workflows w USING (workflow_id)
 WHERE before < %(bytes)s ORDER BY position
"""

# The events of a case or of a thread between two positions, as above. Within a workflow positions rise with the
# numbers, so the first one behind the cursor is found by halving: every event up to `low` is not behind it.
_OF_WORKFLOWS: Final[LiteralString] = """
WITH these AS (
    SELECT workflow_id, last_seq FROM keyturn.workflows WHERE namespace = %(namespace)s AND case_id = %(case)s
    UNION ALL
    SELECT workflow_id, last_seq FROM keyturn.workflows WHERE thread_key = %(thread)s AND namespace = %(namespace)s
), found AS (
    SELECT e.* FROM these w
     CROSS JOIN LATERAL (
           WITH RECURSIVE halving (low, high) AS (
               SELECT 0::bigint, w.last_seq
               UNION ALL
               SELECT CASE WHEN m.behind THEN h.low ELSE m.middle END,
                      CASE WHEN m.behind THEN m.middle - 1 ELSE h.high END
                 FROM halving h
                CROSS JOIN LATERAL (
                      SELECT (h.low + h.high + 1) / 2 AS middle,
                             EXISTS (SELECT FROM keyturn.events
                                      WHERE workflow_id = w.workflow_id AND seq = (h.low + h.high + 1) / 2
                                        AND position > %(after)s) AS behind) AS m
                WHERE h.low < h.high)
           SELECT low FROM halving WHERE low = high) AS s
     CROSS JOIN LATERAL (
           SELECT workflow_id, seq, position, at, type, actor, body AS data FROM keyturn.events
            WHERE workflow_id = w.workflow_id AND seq > s.low AND position <= %(until)s
              AND (%(types)s::text[] IS NULL OR type = ANY (%(types)s))
            ORDER BY seq LIMIT %(limit)s) AS e
     WHERE EXISTS (SELECT FROM keyturn.events
                    WHERE workflow_id = w.workflow_id AND seq = w.last_seq AND position > %(after)s)
     ORDER BY position LIMIT %(limit)s
)
SELECT m.workflow_id, m.seq, m.position, m.at, m.type, m.actor, m.data, w.graph, w.case_id, m.found
  FROM (SELECT n.*, count(*) OVER () AS found,
               sum(octet_length(data::text)) OVER (ORDER BY position) - octet_length(data::text) AS before
          FROM found AS n) AS m
  LEFT JOIN keyturn.workflows w USING (workflow_id)
 WHERE before < %(bytes)s ORDER BY position
"""


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a feed is wanted: what lies behind `after` up to `until`, and how much of it at most."""

    namespace: str
    after: int
    until: int
    limit: int
    size: int
    types: Sequence[str] | None = None


async def head(conn: Connection) -> tuple[int, frozenset[str]]:
    """The newest position that was drawn, and who may hold one that has not appeared yet."""
    row = await (await conn.execute(_HEAD)).fetchone()
    return (int(row["head"]), frozenset(row["writers"])) if row else (0, frozenset())


async def changed(conn: Connection, namespaces: Collection[str], after: int, until: int, limit: int) -> dict[str, int]:
    """How many events each workflow has between two positions; of so many events at most."""
    asked = {"namespaces": list(namespaces), "after": after, "until": until, "limit": limit}
    rows = await (await conn.execute(_CHANGED, asked)).fetchall()
    return {str(row["workflow_id"]): int(row["events"]) for row in rows}


async def belongs(conn: Connection, workflow_ids: Collection[str]) -> list[Params]:
    """The namespace, case and thread of each workflow that there is."""
    return await (await conn.execute(_BELONGS, {"workflow_ids": list(workflow_ids)})).fetchall()


async def reach(conn: Connection, part: Part, most: int) -> int:
    """How far one reading may go that looks at no more than so many events of the namespace."""
    asked = {"namespace": part.namespace, "after": part.after, "until": part.until, "most": most}
    row = await (await conn.execute(_REACH, asked)).fetchone()
    return part.until if row is None else int(row["position"])


async def everything(conn: Connection, part: Part) -> list[Params]:
    """A part of what happens in a namespace."""
    return await (await conn.execute(_EVERYTHING, _asked(part))).fetchall()


async def of_workflows(
    conn: Connection, part: Part, *, case_id: str | None = None, thread_key: str | None = None
) -> list[Params]:
    """A part of what happens in a case or on a thread."""
    return await (await conn.execute(_OF_WORKFLOWS, {**_asked(part), "case": case_id, "thread": thread_key})).fetchall()


def _asked(part: Part) -> Params:
    return {
        "namespace": part.namespace, "after": part.after, "until": part.until, "limit": part.limit,
        "bytes": part.size, "types": None if part.types is None else list(part.types),
    }  # fmt: skip
