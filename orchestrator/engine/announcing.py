"""What a running node tells between commits, so that its watchers see it run. Nothing of a graph is kept here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from orchestrator.core.canonical import Hiding
from orchestrator.core.errors import LeaseLost
from orchestrator.engine.lease import Lease
from orchestrator.engine.persist import until_stored
from orchestrator.store import segments
from orchestrator.store.db import Clock, Database
from orchestrator.store.events import Event
from orchestrator.store.segments import Note

# Numbers of a later lease are higher than all of an earlier one.
_PER_LEASE = 2**32
_LONGEST_MESSAGE = 500
_LONGEST_NAME = 100


def discreet(data: Mapping[str, object], hiding: Hiding) -> dict[str, object]:
    """What a node tells, without secrets. Cut short behind that: half a secret would not be found any more."""
    told = {name: _without(value, hiding) for name, value in data.items()}
    message = told.get("message")
    return {**told, "message": message[:_LONGEST_MESSAGE]} if isinstance(message, str) else told


def _without(value: object, hiding: Hiding) -> object:
    if isinstance(value, str):
        return hiding(value)
    if isinstance(value, Mapping):  # sub-steps, by name
        named = cast("Mapping[str, object]", value)
        return {hiding(name)[:_LONGEST_NAME]: share for name, share in named.items()}
    return value


async def tell_once(db: Database, lease: Lease, number: int, told: Sequence[Event], clock: Clock) -> None:
    """Append events, once also when a reply is lost: `number` rises with every call within a lease.

    LeaseLost when the workflow is somebody else's.
    """
    one = Note(lease.workflow_id, lease.epoch, lease.epoch * _PER_LEASE + number, told, clock())
    if not await until_stored(lambda: db.together(segments.note, one)):
        detail = f"workflow {lease.workflow_id} is not held at epoch {lease.epoch}"
        raise LeaseLost(detail)
