"""Running processes of Keyturn: the event loop, signals, and what starts and ends together.

What the processes do is elsewhere; here is only how one lives and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import AsyncGenerator, Coroutine
from typing import Final

from orchestrator.config import load_governance
from orchestrator.service.context import Context
from orchestrator.settings import Settings
from orchestrator.store.db import Database

# A worker's segment would rather wait for a connection than lose its lease's work; an API call must not.
_WORKER_PATIENCE: Final = 5.0


def run_async(work: Coroutine[object, object, None]) -> None:
    """Run `work` to its end."""
    # Psycopg needs a selector loop, which is not Windows' own choice.
    factory = asyncio.SelectorEventLoop if sys.platform == "win32" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


def keep_loaded() -> None:
    """Call once everything is loaded: the garbage collector leaves that alone from now on.

    Looking through it all again each time halted a process for a tenth of a second, once in some 200 workflows.
    """
    gc.collect()
    gc.freeze()


def stop_on_signals() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set. A second signal ends the process as if nothing was caught."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    caught = (signal.SIGINT, signal.SIGTERM)

    def first() -> None:
        stop.set()
        for number in caught:
            if sys.platform == "win32":
                signal.signal(number, signal.SIG_DFL)
            else:
                loop.remove_signal_handler(number)

    for number in caught:
        if sys.platform == "win32":
            signal.signal(number, lambda _number, _frame: loop.call_soon_threadsafe(first))
        else:
            loop.add_signal_handler(number, first)
    return stop


@contextlib.asynccontextmanager
async def worker_context(settings: Settings) -> AsyncGenerator[Context]:
    """The context of a worker, whose database may also come later than the worker."""
    governance = load_governance(settings.config_dir)
    db = Database(
        settings.require_database_url(),
        min_size=settings.pool_min,
        max_size=settings.pool_max,
        timeout=_WORKER_PATIENCE,
        connect_seconds=settings.connect_timeout_seconds,
        statement_seconds=settings.statement_timeout_seconds,
    )
    await db.pool.open()
    try:
        yield Context(db, governance)
    finally:
        await db.close()
