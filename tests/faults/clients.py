"""Clients that insist: the same request with the same key again, until it is answered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from orchestrator.core.errors import Unavailable

T = TypeVar("T")


async def insisting(call: Callable[[], Awaitable[T]], seconds: float = 60.0) -> T:
    """The answer, however often the database was away before it came."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311 jitter of a client
