"""Commits of several segments in one transaction: each proves its own lease, and has its own bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from orchestrator.service.dispatch import Claimer
from orchestrator.store import checkpoints, segments
from orchestrator.store.checkpoints import Batch, BlobRow, CheckpointRow, WriteRow
from orchestrator.store.db import Connection, Database
from orchestrator.store.events import Event
from orchestrator.store.segments import Commit, Parts, Release
from tests.harness import Keyturn, running


@pytest.fixture
async def keyturn(database_url: str) -> AsyncGenerator[Keyturn]:
    async with running(database_url) as found:
        yield found


@pytest.fixture
async def db(database_url: str) -> AsyncGenerator[Database]:
    found = Database(database_url)
    await found.open()
    yield found
    await found.close()


async def claimed(keyturn: Keyturn, count: int) -> list[tuple[str, int]]:
    """Workflows that nobody runs, each with the epoch it is held at."""
    for _ in range(count):
        await keyturn.submit("steps")
    leases = await Claimer(keyturn.ctx, "tests", keyturn.catalog, 60.0, count).claim(0, 0)
    return [(lease.workflow_id, lease.epoch) for lease in leases]


def parts(word: str) -> Parts:
    """A commit whose every piece says `word`."""
    checkpoint = '{"channel_versions": {"said": "1"}}'
    return Parts(
        node=word,
        batch=Batch(
            [CheckpointRow("", "1", None, checkpoint, f'{{"said": "{word}"}}')],
            [BlobRow("", "said", "1", "bytes", word.encode())],
            [WriteRow("", "1", "task", "path", 0, "said", "bytes", word[::-1].encode())],
        ),
        events=[Event("step-finished", "tests", {"node": word})],
    )


_KEPT = """
SELECT node, (SELECT body ->> 'node' FROM keyturn.events e WHERE e.workflow_id = w.workflow_id AND seq = 2) AS told
  FROM keyturn.workflows w WHERE workflow_id = %s
"""


async def kept(conn: Connection, workflow: str) -> tuple[object, ...]:
    """What a workflow's commit has left: its node, its event, its blob and its write."""
    row = await (await conn.execute(_KEPT, [workflow])).fetchone()
    assert row is not None
    (found,) = await checkpoints.newest(conn, [(workflow, "")])
    if found is None:
        return (row["node"], row["told"])
    (blob,), (write,) = found.blobs, found.writes
    return (row["node"], row["told"], blob.blob, write.blob)


async def test_each_commit_of_a_batch_keeps_its_own(keyturn: Keyturn, db: Database) -> None:
    held = await claimed(keyturn, 3)
    commits = [Commit(key, epoch, parts(f"word{nth}"), None) for nth, (key, epoch) in enumerate(held)]
    async with db.connection() as conn:
        assert await segments.commit(conn, commits, wait=False) == [True] * 3
        for nth, (workflow, _) in enumerate(held):
            word = f"word{nth}"
            assert await kept(conn, workflow) == (word, word, word.encode(), word[::-1].encode())


async def test_a_lost_lease_writes_nothing_and_the_others_are_kept(keyturn: Keyturn, db: Database) -> None:
    (one, epoch), (lost, old), (other, last) = await claimed(keyturn, 3)
    end = Parts(release=Release("completed", finished=True))
    commits = [
        Commit(one, epoch, parts("one"), None),
        Commit(lost, old - 1, parts("lost"), None),
        Commit(other, last, end, None),
    ]
    async with db.connection() as conn:
        assert await segments.commit(conn, commits, wait=True) == [True, None, True]
        assert (await kept(conn, one))[:2] == ("one", "one")
        assert await kept(conn, lost) == (None, None)
    assert (await keyturn.get(other)).status == "completed"


async def test_a_row_that_somebody_holds_holds_up_nobody_else(keyturn: Keyturn, db: Database) -> None:
    (busy, epoch), (free, other) = await claimed(keyturn, 2)
    async with db.connection() as holder, asyncio.timeout(10):
        async with holder.transaction():
            await holder.execute("SELECT FROM keyturn.workflows WHERE workflow_id = %s FOR UPDATE", [busy])
            waiting = asyncio.create_task(db.together(segments.commit, Commit(busy, epoch, parts("busy"), None)))
            assert await db.together(segments.commit, Commit(free, other, parts("free"), None))
            assert not waiting.done()
        assert await waiting
    async with db.connection() as conn:
        assert (await kept(conn, busy))[0] == "busy"


async def test_what_cannot_be_stored_is_refused_alone(keyturn: Keyturn, db: Database) -> None:
    (first, one), (bad, two), (fine, three) = await claimed(keyturn, 3)
    unstorable = Parts(release=Release("completed", finished=True, result="\ud800"))
    found = await asyncio.gather(
        *(
            db.together(segments.commit, Commit(*held, what, None))
            for held, what in (((first, one), parts("first")), ((bad, two), unstorable), ((fine, three), parts("fine")))
        ),
        return_exceptions=True,
    )
    assert [found[0], found[2]] == [True, True]
    assert "cannot hold" in str(found[1])
    assert (await keyturn.get(bad)).status == "running"
