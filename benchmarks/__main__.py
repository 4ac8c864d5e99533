"""`python -m benchmarks`: one run, printed as a table and, with `--json FILE`, written as JSON."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.bare import Bare, Durability
from benchmarks.footprint import Footprint, footprint
from benchmarks.governed import Governed
from benchmarks.report import BARE, Figures, show, write_json
from benchmarks.rounds import WARM_UP, Cell, Contender, play, run
from benchmarks.server import Server, running
from orchestrator.cli.running import keep_loaded

LANES = (1, 16)


@dataclass(frozen=True, slots=True)
class Size:
    """How much to run: rounds, workflows per round by concurrency, latency samples, workflows that are counted."""

    rounds: int
    workflows: dict[int, int]
    latencies: int
    counted: int


DEFAULT = Size(rounds=9, workflows={1: 60, 16: 480}, latencies=120, counted=20)
TINY = Size(rounds=1, workflows={1: 2, 16: 16}, latencies=3, counted=2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("--rounds", type=int, default=DEFAULT.rounds, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a few workflows: shows that it works, measures nothing")
    given = parser.parse_args(arguments)
    size = TINY if given.tiny else Size(given.rounds, DEFAULT.workflows, DEFAULT.latencies, DEFAULT.counted)
    figures = asyncio.run(measure(size))
    show(figures, Console())
    if given.json:
        write_json(figures, given.json)
    return 0


def _bare(server: Server, durability: Durability) -> Callable[[int], Contender]:
    return lambda lanes: Bare(server.bare_url, durability, lanes)


async def _latencies(server: Server, samples: int) -> list[float]:
    governed = Governed(server.keyturn_url)
    async with governed.opened(), governed.working():
        await run(governed, 1, WARM_UP)
        return [await governed.decided_to_next() for _ in range(samples)]


async def measure(size: Size) -> Figures:
    """The whole run, on a Postgres of its own."""
    began = time.monotonic()
    async with running() as server:
        makers = {name: _bare(server, name) for name in BARE} | {Governed.name: lambda _: Governed(server.keyturn_url)}
        cells = [Cell(make(lanes), lanes, size.workflows[lanes]) for lanes in LANES for make in makers.values()]
        latencies = await _latencies(server, size.latencies)
        # All is loaded now. A process of Keyturn does this when it begins; the other contenders gain as much from it.
        keep_loaded()
        results = await play(cells, size.rounds, server.pid)
        found: dict[str, Footprint] = {}
        for name, make in makers.items():
            url = server.keyturn_url if name == Governed.name else server.bare_url
            found[name] = await footprint(make(1), url, server.log, size.counted)
    return Figures(results, LANES, found, latencies, server.version, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
