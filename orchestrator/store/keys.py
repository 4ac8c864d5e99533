"""SQL for API keys: of a key's secret only the SHA-256 is kept.

Whether a presented secret is right is decided in the service, not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final, LiteralString

from orchestrator.store.db import Connection
from orchestrator.wire import KeyRecord

# Keep a new key; its expiry counts from now on the same clock.
_INSERT: Final[LiteralString] = """
INSERT INTO keyturn.api_keys (key_id, namespace, person, secret_sha256, permissions, label, created_by, created_at,
                              expires_at)
VALUES (%(key_id)s, %(namespace)s, %(person)s, %(secret_sha256)s, %(permissions)s, %(label)s, %(created_by)s,
        coalesce(%(now)s::timestamptz, now()), coalesce(%(now)s::timestamptz, now()) + %(expires_in)s::interval)
RETURNING key_id, person, permissions, label, created_at, expires_at, revoked_at
"""

# What presented keys are checked against, each with its place; `live` is judged on the database's clock.
_FIND: Final[LiteralString] = """
SELECT p.place, k.key_id, k.namespace, k.person, k.secret_sha256, k.permissions,
       k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > coalesce(p.now, now())) AS live
  FROM unnest(%(key_ids)s::text[], %(nows)s::timestamptz[]) WITH ORDINALITY AS p (key_id, now, place)
  JOIN keyturn.api_keys k ON k.key_id = p.key_id
"""

# A namespace's keys, newest first.
_LIST: Final[LiteralString] = """
SELECT key_id, person, permissions, label, created_at, expires_at, revoked_at
  FROM keyturn.api_keys WHERE namespace = %(namespace)s ORDER BY created_at DESC, key_id
"""

# End a key that was not ended before.
_REVOKE: Final[LiteralString] = """
UPDATE keyturn.api_keys SET revoked_at = coalesce(%(now)s::timestamptz, now())
 WHERE namespace = %(namespace)s AND key_id = %(key_id)s AND revoked_at IS NULL
RETURNING key_id, person, permissions, label, created_at, expires_at, revoked_at
"""

# One key of a namespace.
_GET: Final[LiteralString] = """
SELECT key_id, person, permissions, label, created_at, expires_at, revoked_at
  FROM keyturn.api_keys WHERE namespace = %(namespace)s AND key_id = %(key_id)s
"""


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """A key about to be kept; `expires_in` None means that it does not expire."""

    key_id: str
    namespace: str
    person: str
    secret_sha256: bytes
    permissions: Sequence[str]
    label: str
    created_by: str
    expires_in: timedelta | None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is kept. `live` is False once it has expired or was revoked."""

    key_id: str
    namespace: str
    person: str
    secret_sha256: bytes
    permissions: frozenset[str]
    live: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of an id: None when there is no such key."""

    stored: StoredKey | None


async def insert_key(conn: Connection, draft: KeyDraft, *, now: datetime | None) -> KeyRecord:
    """Keep a new key and return it with its times; it begins now."""
    row = await (await conn.execute(_INSERT, {**asdict(draft), "now": now})).fetchone()
    return KeyRecord.model_validate(row)


async def find_keys(
    conn: Connection, wanted: Sequence[tuple[str, datetime | None]], *, wait: bool = True
) -> list[Found | None]:
    """What there is of each id, in any namespace, at its instant. There is nothing to `wait` for, and every one is
    looked for: a miss takes as long as a hit.
    """
    del wait
    asked = {"key_ids": [key_id for key_id, _ in wanted], "nows": [now for _, now in wanted]}
    found: list[Found | None] = [Found(None)] * len(wanted)
    for row in await (await conn.execute(_FIND, asked)).fetchall():
        found[int(row["place"]) - 1] = Found(
            StoredKey(
                key_id=row["key_id"],
                namespace=row["namespace"],
                person=row["person"],
                secret_sha256=bytes(row["secret_sha256"]),
                permissions=frozenset(row["permissions"]),
                live=row["live"],
            )
        )
    return found


async def list_keys(conn: Connection, namespace: str) -> Sequence[KeyRecord]:
    """All keys of the namespace, also the ended ones, newest first."""
    rows = await (await conn.execute(_LIST, {"namespace": namespace})).fetchall()
    return [KeyRecord.model_validate(row) for row in rows]


async def revoke_key(conn: Connection, namespace: str, key_id: str, *, now: datetime | None) -> KeyRecord | None:
    """End a key; None when the namespace has no such key, or it was ended before."""
    row = await (await conn.execute(_REVOKE, {"namespace": namespace, "key_id": key_id, "now": now})).fetchone()
    return None if row is None else KeyRecord.model_validate(row)


async def get_key(conn: Connection, namespace: str, key_id: str) -> KeyRecord | None:
    """A key of the namespace, also an ended one; None when there is no such key."""
    row = await (await conn.execute(_GET, {"namespace": namespace, "key_id": key_id})).fetchone()
    return None if row is None else KeyRecord.model_validate(row)
