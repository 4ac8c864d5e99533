"""Whether what was approved may still run: the checks that need the database, and how each is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol, cast

from orchestrator.core.asking import Law
from orchestrator.core.errors import ApprovalLapsed, ApproversIneligible, Frozen, KeyturnError
from orchestrator.core.model import ApprovalState
from orchestrator.core.votes import still_approved
from orchestrator.engine.lease import Lease
from orchestrator.engine.persist import until_stored
from orchestrator.store import decisions
from orchestrator.store.db import Clock, Connection, Database, Params
from orchestrator.store.decisions import Question, view_of

# What becomes of an approval that a check right before the effect finds good no longer.
_BECAME: Mapping[type, ApprovalState] = {
    ApprovalLapsed: ApprovalState.LAPSED, ApproversIneligible: ApprovalState.STALE,
}  # fmt: skip


class Laws(Protocol):
    """What a namespace's requests are judged by. `tells` says whether anybody is ever told of one."""

    @property
    def tells(self) -> bool:
        """Whether anybody is told."""
        ...

    async def at(self, namespace: str, policy_version: int, people_version: int) -> Law:
        """The law with these published policies and these people, or newer ones."""
        ...


def ended_by(error: Exception) -> tuple[Sequence[str], ApprovalState | None]:
    """The approvals that a failure uses up, and what becomes of them."""
    became = _BECAME.get(type(error))
    if became is None or not isinstance(error, KeyturnError):
        return (), None
    return [str(one) for one in cast("Sequence[object]", error.facts.get("approval_ids", ()))], became


async def check_roles(db: Database, lease: Lease, approval_ids: Sequence[str], clock: Clock) -> None:
    """Refuse to run what fewer than needed of those who approved it still may approve: the approval is used up then."""
    if not approval_ids:
        return

    async def read() -> Collection[str]:
        async with db.connection() as conn:
            return await ineligible(conn, lease.namespace, lease.workflow_id, approval_ids, clock())

    if gone := sorted(await until_stored(read)):
        raise ineligible_error(gone)


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
        if asked and row["approval_id"] in approval_ids and _by_people(row)
        and not still_approved(view_of(row), asked.votes(row))
    }  # fmt: skip


def _by_people(row: Params) -> bool:
    """Whether people decided it by their votes, and not a policy or the clock."""
    return bool(row["votes"]) and row["resolved_by"] in {vote["voter"] for vote in row["votes"]}


def frozen_error(until: datetime, approval_ids: Sequence[str]) -> Frozen:
    """The refusal while a freeze lasts."""
    detail = (
        f"a freeze holds what was approved until {until.isoformat()}; it runs by itself then, unless the approval"
        " lapses before"
    )
    return Frozen(detail, until=until.isoformat(), approval_ids=list(approval_ids))


def ineligible_error(approval_ids: Sequence[str]) -> ApproversIneligible:
    """The refusal when too few of those who approved still hold their roles."""
    detail = (
        "too few of those who approved this still hold the roles it needs; nothing ran. Retry the workflow to request"
        " it anew"
    )
    return ApproversIneligible(detail, approval_id=approval_ids[0], approval_ids=list(approval_ids))
