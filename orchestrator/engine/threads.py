"""Threads for sync nodes, and a watch over the event loop that everything else runs on."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("keyturn.engine")
STUCK_EXIT = 70


class NodeThreads(ThreadPoolExecutor):
    """A daemon thread for each call. A node that blocks for ever, or whose workflow was cancelled, then keeps neither
    other nodes from running nor the process from ending; how many run at once is the worker's capacity.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a new thread."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 the future carries it to whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=run, name="keyturn-node", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing to shut down."""


async def watch_loop(patience: float) -> None:
    """End the process when its event loop stands still for `patience` seconds, as an async node that never awaits
    makes it: its leases are lost by then, and only a new process can go on. Runs until cancelled.
    """
    beat = time.monotonic()
    stop = threading.Event()

    def watch() -> None:
        looked = since = time.monotonic()
        while not stop.wait(patience / 4):
            now, before = time.monotonic(), looked
            looked = now
            # Where this thread stood still as well, the process was stopped: its loop has all its time from now on.
            since = now if now - before > patience / 2 else max(since, beat)
            if now - since > patience:
                log.critical("the event loop stood still for %.0f s: a node blocks it; ending this process", patience)
                os._exit(STUCK_EXIT)

    threading.Thread(target=watch, name="keyturn-watch", daemon=True).start()
    try:
        while True:
            beat = time.monotonic()
            await asyncio.sleep(patience / 8)
    finally:
        stop.set()
