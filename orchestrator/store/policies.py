"""SQL for published policies. A namespace's row is locked by whoever publishes; what is published never changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

from orchestrator.store.db import Connection, Params

# Only one at a time publishes in a namespace.
_LOCK: Final[LiteralString] = """
WITH made AS (INSERT INTO keyturn.namespaces (namespace) VALUES (%(namespace)s) ON CONFLICT DO NOTHING)
SELECT policy_version FROM keyturn.namespaces WHERE namespace = %(namespace)s FOR UPDATE
"""

# The number of the newest book of a namespace.
_NEWEST: Final[LiteralString] = "SELECT policy_version FROM keyturn.namespaces WHERE namespace = %(namespace)s"

# One book, whole.
_GET: Final[LiteralString] = """
SELECT version, text, file, versions, digest, published_by, published_at
  FROM keyturn.policy_books WHERE namespace = %(namespace)s AND version = %(version)s
"""

# A namespace's books without their texts, newest first.
_LIST: Final[LiteralString] = """
SELECT version, file, versions, digest, published_by, published_at
  FROM keyturn.policy_books WHERE namespace = %(namespace)s ORDER BY version DESC LIMIT %(limit)s
"""

# The highest number that each policy of a namespace ever had.
_HIGHEST: Final[LiteralString] = """
SELECT v.key AS policy, max(v.value::integer) AS version
  FROM keyturn.policy_books b, json_each_text(b.versions) v WHERE b.namespace = %(namespace)s GROUP BY v.key
"""

# What somebody published last.
_LAST_BY: Final[LiteralString] = """
SELECT text FROM keyturn.policy_books
 WHERE namespace = %(namespace)s AND published_by = %(by)s ORDER BY version DESC LIMIT 1
"""

# Keep a book, and let it be the newest.
_PUBLISH: Final[LiteralString] = """
WITH kept AS (
    INSERT INTO keyturn.policy_books (namespace, version, text, file, versions, digest, published_by, published_at)
    VALUES (%(namespace)s, %(version)s, %(text)s, %(file)s, %(versions)s::json, %(digest)s, %(by)s,
            coalesce(%(now)s::timestamptz, now()))
    RETURNING version, text, file, versions, digest, published_by, published_at
), newest AS (
    UPDATE keyturn.namespaces SET policy_version = %(version)s WHERE namespace = %(namespace)s
)
SELECT * FROM kept
"""

# A freeze may have been taken back: what waits for its end is looked at again.
_THAW: Final[LiteralString] = """
UPDATE keyturn.workflows SET run_at = coalesce(%(now)s::timestamptz, now())
 WHERE namespace = %(namespace)s AND status = 'ready' AND reason = 'frozen'
"""

# Requests for approval, newest first, with what rules see of their workflows. Only the newest workflows are looked at.
_PAST: Final[LiteralString] = """
SELECT a.approval_id, a.namespace, a.workflow_id, a.node, a.action, a.description, a.requester, a.on_behalf_of,
       a.launched_by, a.risk_level, a.route, a.confidence, a.asked, a.policy, a.requirement, a.requested_at,
       w.graph, w.title, w.case_id, w.mode, w.input
  FROM (SELECT * FROM keyturn.workflows WHERE namespace = %(namespace)s
         ORDER BY created_at DESC, workflow_id DESC LIMIT %(look_back)s) AS w
 CROSS JOIN LATERAL (SELECT * FROM keyturn.approvals
                      WHERE workflow_id = w.workflow_id AND kind = 'approval' AND route <> 'DENIED') AS a
 ORDER BY a.requested_at DESC, a.approval_id LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class NewBook:
    """A book about to be kept."""

    namespace: str
    version: int
    text: str
    file: str
    versions: Mapping[str, int]
    digest: str
    by: str


async def lock(conn: Connection, namespace: str) -> int:
    """Lock the namespace's row and return its newest book's number; 0 where none is published."""
    for _ in range(2):  # a row that the statement itself has just made is not seen by it
        row = await (await conn.execute(_LOCK, {"namespace": namespace})).fetchone()
        if row is not None:
            return int(row["policy_version"])
    return 0


async def newest_version(conn: Connection, namespace: str) -> int:
    """The newest book's number; 0 where none is published."""
    row = await (await conn.execute(_NEWEST, {"namespace": namespace})).fetchone()
    return int(row["policy_version"]) if row else 0


async def get(conn: Connection, namespace: str, version: int) -> Params | None:
    """One book, whole; None when there is no such one."""
    return await (await conn.execute(_GET, {"namespace": namespace, "version": version})).fetchone()


async def books(conn: Connection, namespace: str, limit: int) -> list[Params]:
    """The books without their texts, newest first."""
    return await (await conn.execute(_LIST, {"namespace": namespace, "limit": limit})).fetchall()


async def highest(conn: Connection, namespace: str) -> dict[str, int]:
    """The highest number each policy ever had."""
    rows = await (await conn.execute(_HIGHEST, {"namespace": namespace})).fetchall()
    return {str(row["policy"]): int(row["version"]) for row in rows}


async def last_by(conn: Connection, namespace: str, by: str) -> str | None:
    """The text that `by` published last; None when they never did."""
    row = await (await conn.execute(_LAST_BY, {"namespace": namespace, "by": by})).fetchone()
    return None if row is None else str(row["text"])


async def publish(conn: Connection, book: NewBook, now: datetime | None) -> Params:
    """Keep a book as the newest. The namespace's row is locked."""
    parts = {
        "namespace": book.namespace, "version": book.version, "text": book.text, "file": book.file,
        "versions": json.dumps(dict(book.versions)), "digest": book.digest, "by": book.by, "now": now,
    }  # fmt: skip
    row = await (await conn.execute(_PUBLISH, parts)).fetchone()
    assert row is not None  # noqa: S101 an insert that returns
    return row


async def thaw(conn: Connection, namespace: str, now: datetime | None) -> None:
    """Let every workflow that a freeze holds be claimed again: whoever claims it asks the newest policies."""
    await conn.execute(_THAW, {"namespace": namespace, "now": now})


async def past(conn: Connection, namespace: str, limit: int, look_back: int) -> list[Params]:
    """Up to `limit` past requests of the newest `look_back` workflows, newest first."""
    parts = {"namespace": namespace, "limit": limit, "look_back": look_back}
    return await (await conn.execute(_PAST, parts)).fetchall()
