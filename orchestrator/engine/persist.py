"""Keeping what was computed while the database is away: the same commit is tried again until it is stored or refused.

Only for work that is idempotent under the lease's guard: what was lost with the reply must not be written twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from orchestrator.core.errors import Unavailable

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
