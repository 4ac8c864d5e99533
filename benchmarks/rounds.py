"""Interleaved rounds: every contender at every concurrency, again and again, so that drift of the machine cancels.

Nothing here knows what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import psutil

WARM_UP = 6


class Contender(Protocol):
    """One way of running the workflow."""

    name: str

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Connections open while the block runs."""
        ...

    def working(self) -> AbstractAsyncContextManager[None]:
        """What works in the background at work while the block runs; only in a block of `opened`."""
        ...

    async def one(self, lane: int) -> None:
        """Run one workflow from start to end."""
        ...


@dataclass(frozen=True, slots=True)
class Cell:
    """A contender at a concurrency, and how many workflows one round runs of it."""

    contender: Contender
    lanes: int
    workflows: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one cell: workflows per second, and CPU milliseconds per workflow here and in Postgres."""

    rate: float
    client_ms: float
    postgres_ms: float


@dataclass(slots=True)
class Results:
    """The samples of every cell, in the order of the rounds."""

    samples: defaultdict[tuple[str, int], list[Sample]] = field(default_factory=lambda: defaultdict(list))

    def median(self, name: str, lanes: int, figure: Callable[[Sample], float]) -> float:
        """The median of one figure over the rounds."""
        return statistics.median(figure(sample) for sample in self.samples[name, lanes])

    def ratio(self, name: str, other: str, lanes: int) -> float:
        """How many times as fast `name` is as `other`: the median over rounds of each round's own ratio."""
        pairs = zip(self.samples[name, lanes], self.samples[other, lanes], strict=True)
        return statistics.median(one.rate / two.rate for one, two in pairs)

    def cpu(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """CPU milliseconds per workflow, by name and concurrency."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for name, lanes in self.samples:
            client = self.median(name, lanes, lambda one: one.client_ms)
            postgres = self.median(name, lanes, lambda one: one.postgres_ms)
            found.setdefault(name, {})[str(lanes)] = {"client": round(client, 2), "postgres": round(postgres, 2)}
        return found


async def play(cells: Sequence[Cell], rounds: int, postgres_pid: int) -> Results:
    """Run all cells `rounds` times; every other round goes backwards, so that no cell always follows the same one.

    Connections stay open over all rounds, so that each side's statements are prepared and its plans made.
    """
    results = Results()
    async with contextlib.AsyncExitStack() as stack:
        for cell in cells:
            await stack.enter_async_context(cell.contender.opened())
            async with cell.contender.working():
                await run(cell.contender, cell.lanes, WARM_UP * cell.lanes)
        for number in range(rounds):
            for cell in cells if number % 2 == 0 else reversed(cells):
                results.samples[cell.contender.name, cell.lanes].append(await _sample(cell, postgres_pid))
    return results


async def _sample(cell: Cell, postgres_pid: int) -> Sample:
    contender = cell.contender
    async with contender.working():
        await run(contender, cell.lanes, cell.lanes)
        wall, client, postgres = time.perf_counter(), time.process_time(), _postgres_seconds(postgres_pid)
        await run(contender, cell.lanes, cell.workflows)
        seconds = time.perf_counter() - wall
        client_ms = (time.process_time() - client) * 1000 / cell.workflows
        postgres_ms = (_postgres_seconds(postgres_pid) - postgres) * 1000 / cell.workflows
    return Sample(cell.workflows / seconds, client_ms, postgres_ms)


async def run(contender: Contender, lanes: int, workflows: int) -> None:
    """Run `workflows` workflows over `lanes` lanes, each lane one at a time."""
    numbers = itertools.count()

    async def lane(number: int) -> None:
        while next(numbers) < workflows:
            await contender.one(number)

    async with asyncio.TaskGroup() as group:
        for number in range(lanes):
            group.create_task(lane(number))


def _postgres_seconds(pid: int) -> float:
    """CPU seconds of the server and all its processes, also those that ended."""
    server = psutil.Process(pid)
    own = server.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for process in server.children():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
