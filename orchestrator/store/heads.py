"""SQL that tells how far the event chains of some workflows reach, for those who follow them live."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, LiteralString

from orchestrator.store.db import Connection

# The number of the newest event of each; over all namespaces, as nothing of an event is read.
_HEADS: Final[LiteralString] = """
SELECT workflow_id, last_seq FROM keyturn.workflows WHERE workflow_id = ANY (%(workflow_ids)s)
"""


async def heads(conn: Connection, workflow_ids: Collection[str]) -> dict[str, int]:
    """The number of the newest event of each workflow that there is."""
    rows = await (await conn.execute(_HEADS, {"workflow_ids": list(workflow_ids)})).fetchall()
    return {str(row["workflow_id"]): int(row["last_seq"]) for row in rows}
