"""Delegations: who decides in whose place, and when. Whether one counts for a vote is read where the vote is judged."""

from __future__ import annotations

from datetime import datetime

from orchestrator.store.db import Connection, Params

INSERT = """
INSERT INTO keyturn.delegations (delegation_id, namespace, from_person, to_person, starts_at, ends_at, reason,
                                 created_by, created_at)
VALUES (%(delegation_id)s, %(namespace)s, %(from_person)s, %(to_person)s,
        coalesce(%(starts_at)s::timestamptz, %(now)s::timestamptz, now()), %(ends_at)s, %(reason)s, %(created_by)s,
        coalesce(%(now)s::timestamptz, now()))
RETURNING *
"""

# A namespace's delegations that have not ended, soonest end first; of one person where that is given, either way.
LIST = """
SELECT * FROM keyturn.delegations
 WHERE namespace = %(namespace)s AND ends_at > coalesce(%(now)s::timestamptz, now()) AND revoked_at IS NULL
   AND (%(person)s::text IS NULL OR from_person = %(person)s OR to_person = %(person)s)
 ORDER BY from_person, ends_at LIMIT 1000
"""

GET = "SELECT * FROM keyturn.delegations WHERE namespace = %(namespace)s AND delegation_id = %(delegation_id)s"

# The first revocation's time stays.
REVOKE = """
UPDATE keyturn.delegations SET revoked_at = coalesce(revoked_at, %(now)s::timestamptz, now())
 WHERE namespace = %(namespace)s AND delegation_id = %(delegation_id)s
RETURNING *
"""

# For whom somebody may decide now.
PRINCIPALS = """
SELECT DISTINCT from_person FROM keyturn.delegations
 WHERE namespace = %(namespace)s AND to_person = %(person)s AND ends_at > coalesce(%(now)s::timestamptz, now())
   AND starts_at <= coalesce(%(now)s::timestamptz, now()) AND revoked_at IS NULL
"""


async def insert(conn: Connection, row: Params) -> Params:
    """Keep a new delegation."""
    found = await (await conn.execute(INSERT, row)).fetchone()
    assert found is not None  # noqa: S101 an INSERT that returns
    return found


async def list_open(conn: Connection, namespace: str, person: str | None, now: datetime | None) -> list[Params]:
    """Delegations that have not ended; of everybody, or of one person."""
    return await (await conn.execute(LIST, {"namespace": namespace, "person": person, "now": now})).fetchall()


async def get(conn: Connection, namespace: str, delegation_id: str) -> Params | None:
    """One delegation."""
    row = {"namespace": namespace, "delegation_id": delegation_id}
    return await (await conn.execute(GET, row)).fetchone()


async def revoke(conn: Connection, namespace: str, delegation_id: str, now: datetime | None) -> Params | None:
    """End a delegation now."""
    row = {"namespace": namespace, "delegation_id": delegation_id, "now": now}
    return await (await conn.execute(REVOKE, row)).fetchone()


async def principals(conn: Connection, namespace: str, person: str, now: datetime | None) -> frozenset[str]:
    """For whom `person` may decide at this time."""
    found = await conn.execute(PRINCIPALS, {"namespace": namespace, "person": person, "now": now})
    return frozenset(str(row["from_person"]) for row in await found.fetchall())
