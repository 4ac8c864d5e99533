"""`python -m benchmarks.streams`: many clients that follow busy workflows on one API process.

API and worker are processes of their own, as they are when deployed. Every client checks that it sees every event of
its workflow once and in order; a quarter of them break their connection in the middle and go on with `Last-Event-ID`.
How late an event is: from the beginning of the transaction that wrote it until a client has it, all on one clock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.report import machine, percentile
from benchmarks.server import running
from benchmarks.watchers import Watcher, WrongStreamError
from orchestrator.config import load_governance
from orchestrator.engine.catalog import load_catalog
from orchestrator.service import identity, workflows
from orchestrator.service.context import Caller, Context
from orchestrator.settings import load_settings
from orchestrator.store.db import Database
from orchestrator.web.server import allow_many_files
from orchestrator.wire import SubmitRequest
from orchestrator.worker import Worker

_APP = Path(__file__).parent / "busy.json"
_NODES = 3
_CONNECTING_AT_ONCE = 50
_RECONNECTING_SHARE = 4
_SPARE_SECONDS = 120
_SETTLING_SECONDS = 0.5
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Load:
    """How many clients follow how many workflows, and how busy those are."""

    clients: int = 1000
    workflows: int = 100
    steps: int = 15
    pause: float = 0.5


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run measured. Memory is the API process's, in MB; `cpu` its share of one core while workflows ran."""

    load: Load
    events: int
    delivered: int
    reconnected: int
    late_ms: dict[str, float]
    seconds: float
    rss_before: float
    rss_idle: float
    rss_peak: float
    kb_per_client: float
    cpu: float
    clients_cpu: float


@contextlib.asynccontextmanager
async def child(*command: str, database_url: str, **settings: object) -> AsyncGenerator[tuple[psutil.Process, str]]:
    """A process of Keyturn and the first line it prints, while the block runs."""
    own = {f"KEYTURN_{name.upper()}": str(value) for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator.cli", *command, "--json",
        env={**os.environ, "KEYTURN_DATABASE_URL": database_url, "KEYTURN_LOG_LEVEL": "warning", **own},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        yield psutil.Process(process.pid), line.decode()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def measure(database_url: str, load: Load) -> Figures:
    """The whole run on a migrated and empty database; raises WrongStreamError when a client is sent anything wrong."""
    allow_many_files()
    settings = load_settings(database_url=database_url, app=_APP)
    async with contextlib.AsyncExitStack() as stack:
        db = Database(database_url)
        await db.open()
        stack.push_async_callback(db.close)
        ctx = Context(db, load_governance(settings.config_dir))
        first = await identity.bootstrap(ctx, "default")
        assert first is not None
        async with load_catalog(settings.app, ctx.governance.rules.gates) as catalog:
            await Worker(ctx, catalog, settings).announce_graphs()
        api, told = await stack.enter_async_context(child("serve", "--port=0", database_url=database_url))
        ids = await _submitted(ctx, load)
        watchers = _watchers(json.loads(told)["url"], first.key, ids, load)
        watching = [asyncio.create_task(one.watch()) for one in watchers]
        before = _megabytes(api)
        for number in range(0, len(watchers), _CONNECTING_AT_ONCE):
            await asyncio.gather(*(one.connected.wait() for one in watchers[number : number + _CONNECTING_AT_ONCE]))
        await asyncio.sleep(_SETTLING_SECONDS)
        idle = _megabytes(api)
        busy = child("worker", f"--app={_APP}", database_url=database_url, worker_concurrency=load.workflows)
        spent = _Spent(api)
        await stack.enter_async_context(busy)
        async with asyncio.timeout(_NODES * load.steps * load.pause + _SPARE_SECONDS), spent.looking():
            await asyncio.gather(*watching)
        return _figures(load, watchers, await _last_seqs(ctx, ids), before, idle, spent)


class _Spent:
    """What the API and its clients used from here on."""

    def __init__(self, api: psutil.Process) -> None:
        self._api = api
        self._began, self._cpu_then, self._own_then = time.monotonic(), _cpu(api), time.process_time()
        self.seconds = self.cpu = self.own = self.highest = 0.0

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncGenerator[None]:
        """Look at the memory while the block runs, and at everything when it has."""
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
        self.seconds = time.monotonic() - self._began
        self.cpu = (_cpu(self._api) - self._cpu_then) / self.seconds
        self.own = (time.process_time() - self._own_then) / self.seconds

    async def _look(self) -> None:
        while True:
            self.highest = max(self.highest, _megabytes(self._api))
            await asyncio.sleep(_LOOK_SECONDS)


async def _submitted(ctx: Context, load: Load) -> list[str]:
    caller = Caller("default", identity.FIRST_PERSON, frozenset({"submit", "read"}))
    chance = random.Random(2)  # noqa: S311 the same every time
    found: list[str] = []
    for _ in range(load.workflows):
        # Each at its own pace, so that they do not all speak at the same instant.
        pause = load.pause * chance.uniform(0.8, 1.2)
        request = SubmitRequest(graph="busy", input={"steps": load.steps, "pause": pause})
        found.append((await workflows.submit(ctx, caller, request)).workflow_id)
    return found


def _watchers(url: str, key: str, ids: Sequence[str], load: Load) -> list[Watcher]:
    chance = random.Random(1)  # noqa: S311 the same every time
    found: list[Watcher] = []
    for number in range(load.clients):
        leaves: list[int] = []
        if number % _RECONNECTING_SHARE == 0:
            leaves = sorted(chance.sample(range(3, _NODES * load.steps), 2))
        found.append(Watcher(url, key, ids[number % len(ids)], leaves))
    return found


def _figures(
    load: Load, watchers: Sequence[Watcher], last: dict[str, int], before: float, idle: float, spent: _Spent
) -> Figures:
    for one in watchers:
        if one.seen != last[one.workflow_id]:
            message = f"{one.workflow_id}: {one.seen} of {last[one.workflow_id]} events came"
            raise WrongStreamError(message)
    late = [seconds for one in watchers for seconds in one.late]
    shown = {"p50": statistics.median(late), "p99": percentile(late, 0.99), "max": max(late)}
    return Figures(
        load=load,
        events=sum(last.values()),
        delivered=sum(one.seen for one in watchers),
        reconnected=sum(one.reconnected for one in watchers),
        late_ms={name: round(seconds * 1000, 1) for name, seconds in shown.items()},
        seconds=round(spent.seconds, 1),
        rss_before=before,
        rss_idle=idle,
        rss_peak=max(spent.highest, idle),
        kb_per_client=round((idle - before) * 1024 / len(watchers), 1),
        cpu=round(spent.cpu, 2),
        clients_cpu=round(spent.own, 2),
    )


def _megabytes(process: psutil.Process) -> float:
    return round(process.memory_info().rss / 2**20, 1)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def _last_seqs(ctx: Context, ids: Sequence[str]) -> dict[str, int]:
    caller = Caller("default", identity.FIRST_PERSON, frozenset({"read"}))
    pages = [await workflows.events_page(ctx, caller, one, 0, 1000) for one in ids]
    return {one: page.next_seq for one, page in zip(ids, pages, strict=True)}


def show(figures: Figures, console: Console) -> None:
    """Print the run."""
    load, late = figures.load, figures.late_ms
    table = Table(title=f"{load.clients} clients on one API process, {load.workflows} busy workflows")
    table.add_column("")
    table.add_column("", justify="right")
    rows = {
        "events written": f"{figures.events:,}",
        "events delivered, each once and in order": f"{figures.delivered:,}",
        "deliveries a second": f"{figures.delivered / figures.seconds:,.0f}",
        "connections broken and made again": f"{figures.reconnected:,}",
        "late, ms: p50 / p99 / max": f"{late['p50']} / {late['p99']} / {late['max']}",
        "memory of the API, MB: before / all connected / highest": (
            f"{figures.rss_before} / {figures.rss_idle} / {figures.rss_peak}"
        ),
        "memory a client, KB": f"{figures.kb_per_client}",
        "CPU of the API / of all clients, cores": f"{figures.cpu} / {figures.clients_cpu}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


async def run(load: Load) -> tuple[Figures, str]:
    """Measure on a Postgres of its own; the figures and Postgres' version."""
    async with running() as server:
        return await measure(server.keyturn_url, load), server.version


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("--clients", type=int, default=Load.clients, help="clients (default: %(default)s)")
    parser.add_argument("--workflows", type=int, default=Load.workflows, help="workflows (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=Load.steps, help="progress events a node (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=Load.pause, help="seconds between them (default: %(default)s)")
    given = parser.parse_args(arguments)
    figures, postgres = asyncio.run(run(Load(given.clients, given.workflows, given.steps, given.pause)))
    show(figures, Console())
    if given.json:
        told = {**asdict(figures), "machine": machine(postgres)}
        given.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
