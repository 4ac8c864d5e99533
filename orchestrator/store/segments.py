"""One commit of a segment as one statement, which is one transaction: the lease is proved, then everything is written.

Whatever a worker changes of a workflow while it holds it goes through here, except the ledger of effects and steps told
between commits. Rows of LangGraph's own tables are those stock LangGraph savers write, so its tools read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.store import checkpoints, events
from orchestrator.store.checkpoints import Batch
from orchestrator.store.db import Connection, Params
from orchestrator.store.events import Event
from orchestrator.store.parts import as_parts

COMMIT = "SELECT keyturn.commit_segment(%(workflow)s, %(epoch)s, %(now)s, %(parts)s::json, %(bytes)b::bytea[])"


@dataclass(frozen=True, slots=True)
class Release:
    """What the workflow's row becomes when the lease ends. `progress`: claims without progress start from nothing."""

    status: str
    finished: bool
    reason: str | None = None
    error: Mapping[str, object] | None = None
    result: object = None
    progress: bool = True


@dataclass(frozen=True, slots=True)
class Parts:
    """What one commit writes. Without `release` it is a barrier, and the lease goes on.

    `approvals` are rows whose JSON columns are plain values. An approval is executed when the workflow completes
    (`executed`), or when the node that asked has completed with its effects (one of `completed`); one that an effect of
    the ledger is bound to, when that effect finishes.
    """

    node: str | None = None
    batch: Batch = field(default_factory=Batch)
    delivered: Sequence[str] = ()
    executed: bool = False
    completed: Sequence[str] = ()
    approvals: Sequence[Params] = ()
    lapsed: Sequence[str] = ()
    events: Sequence[Event] = ()
    risk: str | None = None
    release: Release | None = None


async def commit(conn: Connection, workflow_id: str, epoch: int, parts: Parts, now: datetime | None) -> None:
    """Commit `parts`, or fail with LeaseLost and write nothing. The connection is in autocommit."""
    rows = checkpoints.columns(parts.batch)
    contents = rows.pop("bytes")
    written: Params = {
        **rows, "delivered": parts.delivered or None, "executed": parts.executed, "completed": parts.completed or None,
        "approvals": parts.approvals or None, "lapsed": parts.lapsed or None, "node": parts.node, "risk": parts.risk,
        **events.columns(parts.events), **_ended(parts.release, checkpointed=bool(parts.batch.checkpoints)),
    }  # fmt: skip
    await conn.execute(
        COMMIT,
        {"workflow": workflow_id, "epoch": epoch, "now": now, "parts": as_parts(written), "bytes": contents},
    )


def _ended(release: Release | None, *, checkpointed: bool) -> Params:
    if release is None:
        return {}
    return {
        "status": release.status, "reason": release.reason, "error": release.error, "result": release.result,
        "checkpointed": checkpointed, "progress": release.progress, "finished": release.finished,
    }  # fmt: skip
