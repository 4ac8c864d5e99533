"""Commits of segments as one statement, which is one transaction: each lease is proved, then all it brings is written.

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
from orchestrator.store.decisions import Notice
from orchestrator.store.events import Event
from orchestrator.store.parts import as_parts

# Each by itself proves its lease.
COMMIT = """
SELECT keyturn.commit_segment(one.workflow, one.epoch, one.now, one.parts::json, %(bytes)b::bytea[], %(wait)s) AS held
  FROM unnest(%(workflows)s::text[], %(epochs)s::bigint[], %(nows)s::timestamptz[], %(parts)b::text[])
       AS one (workflow, epoch, now, parts)
"""


@dataclass(frozen=True, slots=True)
class Release:
    """What the workflow's row becomes when the lease ends. `progress`: claims without progress start from nothing;
    `run_at`: nobody claims it before.
    """

    status: str
    finished: bool
    reason: str | None = None
    error: Mapping[str, object] | None = None
    result: object = None
    progress: bool = True
    run_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What one commit writes. Without `release` it is a barrier, and the lease goes on.

    `approvals` are rows whose JSON columns are plain values, `ended` approvals that are good no longer and `ended_as`
    what became of them, `notices` ask for people to be told. An approval is executed when the workflow completes
    (`executed`), or when the node that asked has completed with its effects (one of `completed`); one that an effect of
    the ledger is bound to, when that effect finishes.
    """

    node: str | None = None
    batch: Batch = field(default_factory=Batch)
    delivered: Sequence[str] = ()
    executed: bool = False
    completed: Sequence[str] = ()
    approvals: Sequence[Params] = ()
    ended: Sequence[str] = ()
    ended_as: str | None = None
    notices: Sequence[Notice] = ()
    events: Sequence[Event] = ()
    risk: str | None = None
    release: Release | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of a workflow held at `epoch`."""

    workflow_id: str
    epoch: int
    parts: Parts
    now: datetime | None


async def commit(conn: Connection, commits: Sequence[Commit], *, wait: bool) -> list[bool | None]:
    """Commit each whose lease is held: True where it was, else None, with nothing written. Unless it may `wait`, a row
    that another transaction holds counts as not held. The connection is in autocommit.
    """
    contents: list[bytes | None] = []
    parts = [as_parts(_written(one.parts, contents)) for one in commits]
    found = await conn.execute(
        COMMIT,
        {
            "workflows": [one.workflow_id for one in commits], "epochs": [one.epoch for one in commits],
            "nows": [one.now for one in commits], "parts": parts, "bytes": contents, "wait": wait,
        },
    )  # fmt: skip
    return [row["held"] or None for row in await found.fetchall()]


# What running nodes tell between commits; each by itself proves its lease, and is written once.
NOTE = """
SELECT keyturn.note_events(one.workflow, one.epoch, one.number, one.now, told.types, told.actors, told.bodies,
                           %(wait)s) AS held
  FROM unnest(%(workflows)s::text[], %(epochs)s::bigint[], %(numbers)s::bigint[], %(nows)s::timestamptz[],
              %(events)b::text[]) AS one (workflow, epoch, number, now, events)
 CROSS JOIN LATERAL json_to_record(one.events::json) AS told (types text[], actors text[], bodies text[])
"""


@dataclass(frozen=True, slots=True)
class Note:
    """Events of a workflow held at `epoch`; `number` is higher than that of any note before."""

    workflow_id: str
    epoch: int
    number: int
    events: Sequence[Event]
    now: datetime | None


async def note(conn: Connection, notes: Sequence[Note], *, wait: bool) -> list[bool | None]:
    """Append each whose lease is held: True where it was, or stood there already. As `commit` in all else."""
    found = await conn.execute(
        NOTE,
        {
            "workflows": [one.workflow_id for one in notes], "epochs": [one.epoch for one in notes],
            "numbers": [one.number for one in notes], "nows": [one.now for one in notes],
            "events": [as_parts(events.columns(one.events)) for one in notes], "wait": wait,
        },
    )  # fmt: skip
    return [row["held"] or None for row in await found.fetchall()]


def _written(parts: Parts, contents: list[bytes | None]) -> Params:
    return {
        **checkpoints.columns(parts.batch, contents), "delivered": parts.delivered or None, "executed": parts.executed,
        "completed": parts.completed or None, "approvals": parts.approvals or None, "ended": parts.ended or None,
        "ended_as": parts.ended_as, "notices": parts.notices or None,
        "node": parts.node, "risk": parts.risk, **events.columns(parts.events),
        **_ended(parts.release, checkpointed=bool(parts.batch.checkpoints)),
    }  # fmt: skip


def _ended(release: Release | None, *, checkpointed: bool) -> Params:
    if release is None:
        return {}
    return {
        "status": release.status, "reason": release.reason, "error": release.error, "result": release.result,
        "checkpointed": checkpointed, "progress": release.progress, "finished": release.finished,
        "run_at": release.run_at,
    }  # fmt: skip
