"""Real worker and API processes for fault tests: started, stopped, continued and killed by their process id.

They are forked from one server process that has everything imported, so that a start takes milliseconds; each has its
own memory, connections and signals, and is built from the same parts as the commands `keyturn worker` and `serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil

_POLL = 0.01
Pipe = Any  # its type is another one on each system
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.faults.children"])


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker is started with; `plants` name bugs of tests/faults/planted.py that it is to have."""

    database_url: str
    app: Path
    log: Path
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    plants: tuple[str, ...] = ()


@dataclass(frozen=True)
class ApiSpec:
    """What an API process is started with; it sends the port it listens on."""

    database_url: str
    log: Path
    port: Pipe


class Child:
    """A process of ours, known by its pid."""

    def __init__(self, process: ForkServerProcess, log: Path) -> None:
        self.process = process
        self.log = log
        process.start()
        assert process.pid is not None
        self.pid: int = process.pid

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        assert await self.ended() == -signal.SIGKILL

    async def freeze(self) -> None:
        """SIGSTOP, and wait until not one of its threads runs."""
        os.kill(self.pid, signal.SIGSTOP)
        end = time.monotonic() + 5
        while psutil.Process(self.pid).status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < end, "the process does not stop"
            await asyncio.sleep(_POLL)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM: stop in good order."""
        os.kill(self.pid, signal.SIGTERM)

    async def ended(self, seconds: float = 15.0) -> int:
        """Wait for its end; its exit code, negative for a signal."""
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(self.process.sentinel, gone.set)
        try:
            async with asyncio.timeout(seconds):
                await gone.wait()
        finally:
            loop.remove_reader(self.process.sentinel)
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode

    def clear_away(self) -> None:
        """End it whatever it is doing, and let go of it."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.process.join()
        self.process.close()


def start_worker(spec: WorkerSpec) -> Child:
    from tests.faults.children import work

    return Child(_FORKS.Process(target=work, args=(spec,)), spec.log)


async def start_api(database_url: str, log: Path) -> tuple[Child, str]:
    """An API process and its address."""
    from tests.faults.children import serve_api

    mine, theirs = _FORKS.Pipe(duplex=False)
    child = Child(_FORKS.Process(target=serve_api, args=(ApiSpec(database_url, log, theirs),)), log)
    theirs.close()
    with mine:
        port = await asyncio.to_thread(mine.recv)
    return child, f"http://127.0.0.1:{port}"
