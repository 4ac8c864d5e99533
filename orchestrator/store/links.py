"""Links in messages: the key they are signed with, and which were used. Which is right is decided in the service."""

from __future__ import annotations

from orchestrator.core.errors import TokenUsed
from orchestrator.store.db import Connection, Params

# A namespace's key, made when the namespace was. Who only looks writes nothing.
KEY = "SELECT link_key FROM keyturn.namespaces WHERE namespace = %(namespace)s"

# The same for a namespace that may not be there yet.
MAKE_KEY = """
INSERT INTO keyturn.namespaces AS n (namespace) VALUES (%(namespace)s)
ON CONFLICT (namespace) DO UPDATE SET namespace = n.namespace RETURNING link_key
"""

# Use a link up, in the transaction that decides by it.
USE = """
INSERT INTO keyturn.links_used (link_id, namespace, approval_id, used_at)
VALUES (%(link_id)s, %(namespace)s, %(approval_id)s, coalesce(%(now)s::timestamptz, now()))
ON CONFLICT (link_id) DO NOTHING RETURNING link_id
"""

# When a link was used.
USED = "SELECT used_at FROM keyturn.links_used WHERE link_id = %(link_id)s"


async def key(conn: Connection, namespace: str) -> bytes:
    """The key that the namespace's links are signed with."""
    row: Params = {"namespace": namespace}
    found = await (await conn.execute(KEY, row)).fetchone() or await (await conn.execute(MAKE_KEY, row)).fetchone()
    assert found is not None  # noqa: S101 the statement makes it
    return bytes(found["link_key"])


async def use(conn: Connection, link: Params) -> None:
    """Use a link up: `link_id`, `namespace`, `approval_id`, `now`. TokenUsed when it was before."""
    if await (await conn.execute(USE, link)).fetchone() is None:
        raise used_up(link["link_id"])


async def is_used(conn: Connection, link_id: str) -> bool:
    """Whether a link was used."""
    return await (await conn.execute(USED, {"link_id": link_id})).fetchone() is not None


def used_up(link_id: str) -> TokenUsed:
    """The refusal for a link that was used."""
    detail = "this link was used already; open the request to see how it was decided"
    return TokenUsed(detail, link_id=link_id)
