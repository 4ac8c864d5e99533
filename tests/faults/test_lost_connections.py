"""Sweeps over every unit of a workflow's life: the request is lost, or the reply of what was done, or the worker dies.

The short versions run always; the whole sweeps with `./task faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.faults.proxy import Cut, Moment, Point, Proxy
from tests.faults.rig import Rig, rigged, supervising
from tests.faults.target import Target

GRAPHS = ("governed", "bound", "two_questions", "side_by_side", "auto_twice", "fan_out")
ANNOUNCED = "SELECT keyturn.note_events"
Case = tuple[Proxy, Point, Moment]


@pytest.fixture
async def rig(database_url: str, target: Target, tmp_path: Path) -> AsyncIterator[Rig]:
    async with rigged(database_url, target, tmp_path) as found:
        yield found


def lost_at(proxy: Proxy, points: Sequence[Point]) -> list[Case]:
    """At each point the request is lost, or the reply."""
    moments: tuple[Moment, ...] = ("before", "after")
    return [(proxy, point, moment) for point in points for moment in moments]


def spread(cases: Sequence[Case], count: int | None) -> list[Case]:
    """So many of the cases, spread over all of them."""
    if count is None or count >= len(cases):
        return list(cases)
    return [cases[number * len(cases) // count] for number in range(count)]


async def lost_replies(rig: Rig, graph: str, count: int | None = None) -> None:
    at_worker, at_client = await rig.dry_run(graph)
    chosen = spread([*lost_at(rig.worker, at_worker), *lost_at(rig.client, at_client)], count)
    missed: list[Case] = []
    for proxy, point, moment in chosen:
        ended, hit = await rig.cut_life(graph, proxy, point, moment)
        assert ended.status == "completed", (point, moment, ended.error)
        if not hit:
            missed.append((proxy, point, moment))
    await rig.farm.check(steps_alike=True)
    # Some units fall away in another run, such as a claim that finds nothing.
    assert len(missed) <= len(chosen) // 5, missed


async def test_a_connection_lost_in_the_middle_loses_nothing_and_repeats_nothing(rig: Rig) -> None:
    await lost_replies(rig, "governed", count=15)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("graph", GRAPHS)
async def test_a_connection_lost_at_any_unit_loses_nothing_and_repeats_nothing(rig: Rig, graph: str) -> None:
    await lost_replies(rig, graph)


async def killed_workers(rig: Rig, graph: str, count: int | None = None) -> None:
    at_worker, _ = await rig.dry_run(graph)
    watching = asyncio.create_task(supervising(rig))
    try:
        for proxy, point, moment in spread(lost_at(rig.worker, at_worker), count):
            pid = rig.running_worker.pid
            ended, _ = await rig.cut_life(graph, proxy, point, moment, lambda pid=pid: os.kill(pid, signal.SIGKILL))
            assert ended.status == "completed", (point, moment, ended.error)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    await rig.farm.check()


async def test_a_worker_killed_at_a_unit_loses_nothing_and_repeats_nothing(rig: Rig) -> None:
    await killed_workers(rig, "governed", count=4)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("graph", GRAPHS)
async def test_a_worker_killed_at_any_unit_loses_nothing_and_repeats_nothing(rig: Rig, graph: str) -> None:
    await killed_workers(rig, graph)


async def stalled_workers(rig: Rig, graph: str, only: str = "") -> None:
    """All that a worker says is held up at a unit, past its lease, until another worker has finished its workflow."""
    at_worker, _ = await rig.dry_run(graph)
    for point in [point for point in at_worker if only in point.name]:
        cut = Cut(point, "stalled")
        rig.worker.arm(cut)
        living = asyncio.create_task(rig.life(graph))
        there = asyncio.create_task(cut.done.wait())
        await asyncio.wait({living, there}, return_when=asyncio.FIRST_COMPLETED)
        there.cancel()
        other = rig.farm.worker(app=rig.farm.app, lease_seconds=1.0)
        ended = await living
        assert ended.status == "completed", (point, ended.error)
        other.terminate()
        await other.ended()
        rig.worker.flow()
    # The one that was held up has had its say when it has done something else.
    await rig.life(graph)
    await rig.farm.check()


async def test_a_worker_held_up_until_another_took_over_is_refused(rig: Rig) -> None:
    await stalled_workers(rig, "governed", only="commit_segment")


# Where a transaction was open, Postgres has to end it first.
@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("graph", GRAPHS)
async def test_a_worker_held_up_at_any_unit_until_another_took_over_is_refused(rig: Rig, graph: str) -> None:
    rig.patience = 40.0
    await stalled_workers(rig, graph)


async def announced(rig: Rig, times: int, cut: Cut | None) -> list[Point]:
    """A life that is held in a node until the worker has announced where it is; the units until then."""
    rig.farm.target.hold("it-before")
    rig.worker.arm()
    living = asyncio.create_task(rig.life("governed"))
    await rig.farm.target.until("at it-before", times=times)
    rig.worker.arm(cut)
    if cut is None:
        await rig.farm.until(lambda: any(ANNOUNCED in point.name for point in rig.worker.seen))
    else:
        await asyncio.wait_for(cut.done.wait(), 10)
    seen = [*rig.worker.seen]
    rig.farm.target.release("it-before")
    assert (await living).status == "completed"
    return seen


async def test_a_step_announced_while_its_node_runs_is_noted_once_although_the_reply_is_lost(rig: Rig) -> None:
    point = next(point for point in await announced(rig, 1, None) if ANNOUNCED in point.name)
    await announced(rig, 2, Cut(point, "before"))
    await announced(rig, 3, Cut(point, "after"))
    await rig.farm.check(steps_alike=True)
