"""SQL for people and the roles bound to them.

Roles are read here again by whoever counts a vote, in the transaction that counts it. No rule is decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, LiteralString

from orchestrator.store.db import Connection
from orchestrator.wire import PersonRecord

# Two processes that start on an empty database must not both make a first person.
_LOCK: Final[LiteralString] = "LOCK TABLE keyturn.people IN SHARE ROW EXCLUSIVE MODE"

# Whether the namespace has anybody yet.
_ANY: Final[LiteralString] = "SELECT EXISTS (SELECT FROM keyturn.people WHERE namespace = %(namespace)s) AS found"

# Create a person, or replace what is known of one.
_PUT: Final[LiteralString] = """
INSERT INTO keyturn.people (namespace, person, name, email, created_at)
VALUES (%(namespace)s, %(person)s, %(name)s, %(email)s, coalesce(%(now)s::timestamptz, now()))
ON CONFLICT (namespace, person) DO UPDATE SET name = excluded.name, email = excluded.email
RETURNING xmax = 0 AS created
"""

# Drop the roles that a person no longer holds.
_UNBIND: Final[LiteralString] = """
DELETE FROM keyturn.role_bindings
 WHERE namespace = %(namespace)s AND person = %(person)s AND NOT role = ANY (%(roles)s)
"""

# Bind roles; one that is held already keeps who granted it and when.
_BIND: Final[LiteralString] = """
INSERT INTO keyturn.role_bindings (namespace, person, role, granted_by, granted_at)
SELECT %(namespace)s, %(person)s, role, %(granted_by)s, coalesce(%(now)s::timestamptz, now())
  FROM unnest(%(roles)s::text[]) AS role
ON CONFLICT (namespace, person, role) DO NOTHING
"""

# Everybody of a namespace (or one person of it) with their roles, by name.
_LIST: Final[LiteralString] = """
SELECT person, name, email,
       ARRAY(SELECT role FROM keyturn.role_bindings b
              WHERE b.namespace = p.namespace AND b.person = p.person ORDER BY role) AS roles
  FROM keyturn.people p
 WHERE namespace = %(namespace)s AND person = coalesce(%(person)s::text, person)
 ORDER BY person
"""

# The roles of one person, at this instant.
_ROLES: Final[LiteralString] = """
SELECT role FROM keyturn.role_bindings WHERE namespace = %(namespace)s AND person = %(person)s
"""

# Everybody who holds any of some roles, with those roles.
_HOLDERS: Final[LiteralString] = """
SELECT person, array_agg(role ORDER BY role) AS roles FROM keyturn.role_bindings
 WHERE namespace = %(namespace)s AND role = ANY (%(roles)s)
 GROUP BY person ORDER BY person
"""

# Everybody's roles in a namespace, by role.
_BY_ROLE: Final[LiteralString] = """
SELECT role, array_agg(person) AS people FROM keyturn.role_bindings WHERE namespace = %(namespace)s GROUP BY role
"""

# The same for several namespaces.
_ALL_VERSIONS: Final[LiteralString] = """
SELECT namespace, policy_version, people_version FROM keyturn.namespaces WHERE namespace = ANY (%(namespaces)s)
"""

# What tells whether somebody else's memory of a namespace's policies and people still holds.
_VERSIONS: Final[LiteralString] = """
SELECT policy_version, people_version FROM keyturn.namespaces WHERE namespace = %(namespace)s
"""


async def lock_people(conn: Connection) -> None:
    """Keep others from adding people until the transaction ends; readers go on."""
    await conn.execute(_LOCK)


async def any_people(conn: Connection, namespace: str) -> bool:
    """Whether the namespace has at least one person."""
    row = await (await conn.execute(_ANY, {"namespace": namespace})).fetchone()
    return row is not None and bool(row["found"])


async def put_person(
    conn: Connection, namespace: str, record: PersonRecord, *, granted_by: str, now: datetime | None
) -> frozenset[str] | None:
    """Create or replace a person; afterwards they hold exactly `record.roles`. Returns the roles that they held before,
    None when there was no such person.
    """
    parts = {
        "namespace": namespace,
        "person": record.person,
        "name": record.name,
        "email": record.email,
        "roles": list(record.roles),
        "granted_by": granted_by,
        "now": now,
    }
    put = await (await conn.execute(_PUT, parts)).fetchone()
    # Behind the row's lock, so that of two changes at once each tells what it changed.
    before = await roles_of(conn, namespace, record.person)
    for statement in (_UNBIND, _BIND):
        await conn.execute(statement, parts)
    return None if put is None or put["created"] else before


async def list_people(conn: Connection, namespace: str) -> Sequence[PersonRecord]:
    """Everybody of the namespace, by id."""
    rows = await (await conn.execute(_LIST, {"namespace": namespace, "person": None})).fetchall()
    return [PersonRecord.model_validate(row) for row in rows]


async def find_person(conn: Connection, namespace: str, person: str) -> PersonRecord | None:
    """One person of the namespace; None when there is no such person there."""
    row = await (await conn.execute(_LIST, {"namespace": namespace, "person": person})).fetchone()
    return None if row is None else PersonRecord.model_validate(row)


async def roles_of(conn: Connection, namespace: str, person: str) -> frozenset[str]:
    """The roles that the person holds at this instant; empty for somebody unknown."""
    rows = await (await conn.execute(_ROLES, {"namespace": namespace, "person": person})).fetchall()
    return frozenset(str(row["role"]) for row in rows)


async def holders(conn: Connection, namespace: str, roles: Collection[str]) -> dict[str, frozenset[str]]:
    """Everybody who holds any of `roles`, with which of them."""
    rows = await (await conn.execute(_HOLDERS, {"namespace": namespace, "roles": sorted(roles)})).fetchall()
    return {str(row["person"]): frozenset(row["roles"]) for row in rows}


async def by_role(conn: Connection, namespace: str) -> dict[str, frozenset[str]]:
    """Who holds each role of the namespace."""
    rows = await (await conn.execute(_BY_ROLE, {"namespace": namespace})).fetchall()
    return {str(row["role"]): frozenset(row["people"]) for row in rows}


async def versions(conn: Connection, namespace: str) -> tuple[int, int]:
    """The version of the namespace's published policies, and that of its people."""
    row = await (await conn.execute(_VERSIONS, {"namespace": namespace})).fetchone()
    return (0, 0) if row is None else (row["policy_version"], row["people_version"])


async def all_versions(conn: Connection, namespaces: Collection[str]) -> dict[str, tuple[int, int]]:
    """The version of the published policies and that of the people of each namespace."""
    rows = await (await conn.execute(_ALL_VERSIONS, {"namespaces": list(namespaces)})).fetchall()
    return {str(row["namespace"]): (row["policy_version"], row["people_version"]) for row in rows}
