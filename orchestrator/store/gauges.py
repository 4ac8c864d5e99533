"""SQL that counts, for metrics: over all namespaces, and never a name.

Nothing here may be needed for a decision.
"""

from __future__ import annotations

from typing import Final, LiteralString

from orchestrator.store.db import Connection

# All workflows by status: reads the whole table, so callers ask for it seldom.
_WORKFLOWS: Final[LiteralString] = "SELECT status, count(*) AS workflows FROM keyturn.workflows GROUP BY status"

# The queue by level.
_APPROVALS: Final[LiteralString] = """
SELECT risk_level, count(*) AS approvals FROM keyturn.approvals WHERE state = 'pending' GROUP BY risk_level
"""


async def workflows_by_status(conn: Connection) -> dict[str, int]:
    """How many workflows there are in each status."""
    rows = await (await conn.execute(_WORKFLOWS)).fetchall()
    return {str(row["status"]): int(row["workflows"]) for row in rows}


async def pending_by_level(conn: Connection) -> dict[str, int]:
    """How many approvals wait for a decision at each risk level."""
    rows = await (await conn.execute(_APPROVALS)).fetchall()
    return {str(row["risk_level"]): int(row["approvals"]) for row in rows}
