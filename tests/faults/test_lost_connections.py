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

from tests.faults.proxy import Moment, Point, Proxy
from tests.faults.rig import Rig, rigged, supervising
from tests.faults.target import Target

GRAPHS = ("governed", "two_questions", "side_by_side", "auto_twice", "fan_out")
Case = tuple[Proxy, Point, Moment]


@pytest.fixture
async def rig(database_url: str, target: Target, tmp_path: Path) -> AsyncIterator[Rig]:
    async with rigged(database_url, target, tmp_path) as found:
        yield found


def spread(cases: Sequence[Case], count: int | None) -> list[Case]:
    """So many of the cases, spread over all of them."""
    if count is None or count >= len(cases):
        return list(cases)
    return [cases[number * len(cases) // count] for number in range(count)]


async def lost_replies(rig: Rig, graph: str, count: int | None = None) -> None:
    at_worker, at_client = await rig.dry_run(graph)
    moments: tuple[Moment, ...] = ("before", "after")
    cases = [(rig.worker, point, moment) for point in at_worker for moment in moments]
    cases += [(rig.client, point, moment) for point in at_client for moment in moments]
    chosen = spread(cases, count)
    missed: list[Case] = []
    for proxy, point, moment in chosen:
        ended, hit = await rig.cut_life(graph, proxy, point, moment)
        assert ended.status == "completed", (point, moment, ended.error)
        if not hit:
            missed.append((proxy, point, moment))
    await rig.farm.check(each_step_once=True)
    # Some units fall away in another run, such as a claim that finds nothing.
    assert len(missed) <= len(chosen) // 5, missed


async def test_a_connection_lost_in_the_middle_loses_nothing_and_repeats_nothing(rig: Rig) -> None:
    await lost_replies(rig, "governed", count=16)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("graph", GRAPHS)
async def test_a_connection_lost_at_any_unit_loses_nothing_and_repeats_nothing(rig: Rig, graph: str) -> None:
    await lost_replies(rig, graph)


async def killed_workers(rig: Rig, graph: str, count: int | None = None) -> None:
    at_worker, _ = await rig.dry_run(graph)
    moments: tuple[Moment, ...] = ("before", "after")
    cases = [(rig.worker, point, moment) for point in at_worker for moment in moments]
    watching = asyncio.create_task(supervising(rig))
    try:
        for proxy, point, moment in spread(cases, count):
            pid = rig.running_worker.pid
            ended, _ = await rig.cut_life(graph, proxy, point, moment, lambda pid=pid: os.kill(pid, signal.SIGKILL))
            assert ended.status == "completed", (point, moment, ended.error)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    await rig.farm.check()


async def test_a_worker_killed_at_a_unit_loses_nothing_and_repeats_nothing(rig: Rig) -> None:
    await killed_workers(rig, "governed", count=5)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("graph", GRAPHS)
async def test_a_worker_killed_at_any_unit_loses_nothing_and_repeats_nothing(rig: Rig, graph: str) -> None:
    await killed_workers(rig, graph)
