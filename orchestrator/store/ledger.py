"""A namespace's own event chain, for what belongs to no workflow: people, keys, delegations, published policies.

The namespace's row is the last that a transaction locks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from orchestrator.store.db import Connection
from orchestrator.store.events import Event, columns

# Append to the chain of a namespace.
APPEND = """
SELECT keyturn.append_ledger(%(namespace)s, coalesce(%(now)s::timestamptz, now()), %(types)b::text[],
                             %(actors)b::text[], %(bodies)b::text[])
"""


def stream_of(namespace: str) -> str:
    """The name under which a namespace's own events stand among those of workflows."""
    return f"@{namespace}"


async def append(conn: Connection, namespace: str, events: Sequence[Event], now: datetime | None) -> None:
    """Append `events` in order, in the caller's transaction."""
    await conn.execute(APPEND, {"namespace": namespace, "now": now, **columns(events)})
