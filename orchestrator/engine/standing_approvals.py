"""Whether what was approved may still run: the checks that need the database, and how each is refused."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from orchestrator.core.errors import ApproversIneligible, Frozen
from orchestrator.core.votes import still_approved
from orchestrator.store import decisions
from orchestrator.store.db import Connection
from orchestrator.store.decisions import Question, view_of


async def ineligible(
    conn: Connection, namespace: str, workflow_id: str, approval_ids: Collection[str], now: datetime | None
) -> Collection[str]:
    """Those of the approvals that would not be given any more, by the roles their voters hold now (rule 5). What a
    policy decided by itself had no voters.
    """
    (asked,) = await decisions.read(conn, [Question(namespace, workflow_id, [], now)])
    rows = asked.approvals if asked else []
    return {
        row["approval_id"]
        for row in rows
        if asked and row["approval_id"] in approval_ids and row["votes"]
        and not still_approved(view_of(row), asked.votes(row))
    }  # fmt: skip


def frozen_error(until: datetime, approval_ids: Sequence[str]) -> Frozen:
    """The refusal while a freeze lasts."""
    detail = f"a freeze holds what was approved until {until.isoformat()}; it runs by itself then"
    return Frozen(detail, until=until.isoformat(), approval_ids=list(approval_ids))


def ineligible_error(approval_ids: Sequence[str]) -> ApproversIneligible:
    """The refusal when too few of those who approved still hold their roles."""
    detail = (
        "too few of those who approved this still hold the roles it needs; nothing ran. Retry the workflow to request"
        " it anew"
    )
    return ApproversIneligible(detail, approval_id=approval_ids[0], approval_ids=list(approval_ids))
