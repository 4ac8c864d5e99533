"""Idempotency keys: which request a caller's key stood for, and what it led to (rule 3)."""

from __future__ import annotations

from datetime import datetime

from orchestrator.store.db import Connection, Params

# Take the key for this request. Waits for another transaction that is taking the same key.
TAKE = """
INSERT INTO keyturn.idempotency_keys (namespace, caller, key, request_hash, subject, created_at)
VALUES (%(namespace)s, %(caller)s, %(key)s, %(request_hash)s, %(subject)s, coalesce(%(now)s::timestamptz, now()))
ON CONFLICT (namespace, caller, key) DO NOTHING RETURNING key
"""

FIND = """
SELECT request_hash, subject FROM keyturn.idempotency_keys
 WHERE namespace = %(namespace)s AND caller = %(caller)s AND key = %(key)s
"""

# Keys are remembered for a while, not for ever.
FORGET = "DELETE FROM keyturn.idempotency_keys WHERE created_at < coalesce(%(now)s::timestamptz, now()) - make_interval(days => %(days)s)"  # noqa: E501 one statement


async def take(conn: Connection, row: Params) -> Params | None:
    """Take the key; None when it is ours now, else what it already stands for."""
    if await (await conn.execute(TAKE, row)).fetchone() is not None:
        return None
    return await find(conn, row)


async def find(conn: Connection, row: Params) -> Params | None:
    """What the key stands for already."""
    return await (await conn.execute(FIND, row)).fetchone()


async def forget(conn: Connection, days: int, now: datetime | None) -> int:
    """Forget keys older than `days`; returns how many."""
    return (await conn.execute(FORGET, {"days": days, "now": now})).rowcount
