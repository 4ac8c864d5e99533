"""Keeping what was computed while the database is away: the same commit is tried again until it is stored or refused.

Only for work that is idempotent under the lease's guard: what was lost with the reply must not be written twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar, cast

from orchestrator.core.errors import LeaseLost, Unavailable

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
_FIRST, _LONGEST = 0.05, 1.0


async def until_stored(attempt: Callable[[], Awaitable[T]], patience: float = PATIENCE_SECONDS) -> T:
    """The result of `attempt`, tried again with growing pauses while it raises Unavailable, for `patience` seconds."""
    loop = asyncio.get_running_loop()
    end, pause = loop.time() + patience, _FIRST
    while True:
        try:
            return await attempt()
        except Unavailable:
            if loop.time() + pause > end:
                raise
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 jitter, not a secret
        pause = min(pause * 2, _LONGEST)


async def whole(work: Coroutine[object, object, T]) -> T:
    """The result of `work`, which ends by itself also when its caller is cancelled; the cancellation comes after it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def fault_within(error: BaseException) -> LeaseLost | Unavailable | None:
    """The lost lease or absent database behind an exception that a graph or its framework wrapped."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, LeaseLost | Unavailable):
            return seen
        if isinstance(seen, BaseExceptionGroup):
            inner = [fault_within(part) for part in cast("BaseExceptionGroup[BaseException]", seen).exceptions]
            return next((part for part in inner if part is not None), None)
        seen = seen.__cause__ or seen.__context__
    return None
