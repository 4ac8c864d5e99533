"""Bugs, planted on purpose: a check that cannot fail proves nothing. Each is a mistake that somebody could make.

`plant` puts one into the process it is called in; the others into a database, or into a client for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Generator, Sequence
from unittest import mock

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from orchestrator.engine.lease import Lease
from orchestrator.engine.saver import BarrierSaver
from orchestrator.sdk import effects
from orchestrator.sdk.runtime import host
from orchestrator.service.dispatch import Claimer
from orchestrator.store import decisions
from orchestrator.store.db import Connection
from orchestrator.store.decisions import Asked, Written
from orchestrator.worker import Worker

_LOST = {
    "resolution": (
        b"CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        (
            b"CREATE TRIGGER lose BEFORE UPDATE ON keyturn.approvals FOR EACH ROW"
            b" WHEN (OLD.state = 'pending' AND NEW.state <> 'pending') EXECUTE FUNCTION lose()"
        ),
    ),
    "transition": (
        b"CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.status := OLD.status; RETURN NEW; END'",
        (
            b"CREATE TRIGGER lose BEFORE UPDATE ON keyturn.workflows FOR EACH ROW"
            b" WHEN (OLD.status = 'waiting' AND NEW.status = 'ready') EXECUTE FUNCTION lose()"
        ),
    ),
}
_DELIVER = "UPDATE keyturn.approvals SET delivered_at = now() WHERE approval_id = ANY (%s)"
_FENCE = "OR w.epoch <> p_epoch OR w.status <> 'running'"


def plant(name: str) -> None:
    """Put a bug into this worker process."""
    WORKER_BUGS[name]()


def _deaf() -> None:
    """A worker does not mind that its leases could not be renewed. (Its writes are still refused.)"""
    Worker._abort = lambda *_: None  # pyright: ignore[reportAttributeAccessIssue]


def _random_keys() -> None:
    """The idempotency key of an effect is a new one each time."""

    def key(name: str = "") -> str:
        return f"{host().workflow_id}:{secrets.token_hex(8)}:1:{name}"

    effects.idempotency_key = key


def _late_barrier() -> None:
    """What completed is kept only at the end of the segment."""

    async def barrier(self: BarrierSaver) -> None:
        del self
        await asyncio.sleep(0)

    BarrierSaver.barrier = barrier


def _delivered_early() -> None:
    """A decision counts as delivered when it is handed to a worker."""
    claim = Claimer.claim

    async def early(self: Claimer, running: int, suspects: int) -> list[Lease]:
        leases = await claim(self, running, suspects)
        async with self._ctx.db.connection() as conn:
            for lease in leases:
                await conn.execute(_DELIVER, [[one.approval_id for one in lease.decided]])
        return leases

    Claimer.claim = early


WORKER_BUGS = {
    "deaf": _deaf,
    "random keys": _random_keys,
    "late barrier": _late_barrier,
    "delivered early": _delivered_early,
}


async def remove_fence(database_url: str) -> None:
    """Commits of segments no longer prove the lease."""
    async with await AsyncConnection[TupleRow].connect(database_url, autocommit=True) as conn:
        for name in ("commit_segment", "hold_lease"):
            found = await (await conn.execute(b"SELECT prosrc, oid FROM pg_proc WHERE proname = %s", [name])).fetchone()
            assert found is not None
            assert _FENCE in found[0]
            row = await (await conn.execute(b"SELECT pg_get_functiondef(%s)", [found[1]])).fetchone()
            assert row is not None
            await conn.execute(row[0].replace(_FENCE, "").encode())


@contextlib.contextmanager
def acknowledged_without_being_stored() -> Generator[None]:
    """A decision is answered, and its transaction is rolled back."""

    write = decisions.write

    async def rolled_back(
        conn: Connection, items: Sequence[tuple[Asked, Written]], *, wait: bool
    ) -> Sequence[bool | None]:
        async with conn.transaction(force_rollback=True):
            return await write(conn, items, wait=wait)

    with mock.patch.object(decisions, "write", rolled_back):
        yield


async def lose(database_url: str, what: str) -> None:
    """From now on the database loses a part of each decision, as if that part were a transaction of its own that never
    was committed: its `resolution`, or the `transition` of its workflow.
    """
    async with await AsyncConnection[TupleRow].connect(database_url, autocommit=True) as conn:
        for statement in _LOST[what]:
            await conn.execute(statement)
