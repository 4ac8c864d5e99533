"""LangGraph with its own Postgres saver, driven by hand: start, interrupt, resume, end. Nothing governs it.

Each lane has a connection and a saver of its own. A saver serves one statement at a time, also over a pool, so lanes
that share one wait for each other: this is the faster way for the bare side.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, cast

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.types import Command

from benchmarks.graph import build, payload

Durability = Literal["sync", "async", "exit"]
_APPROVED = {"approved": True, "by": ["tara"]}


class Bare:
    """The loop at one durability."""

    def __init__(self, url: str, durability: Durability, lanes: int) -> None:
        self.name = durability
        self._url = url
        self._durability: Durability = durability
        self._lanes = lanes
        self._graphs: list[Any] = []

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Connections open while the block runs."""
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(self._lanes):
                saver = await stack.enter_async_context(AsyncPostgresSaver.from_conn_string(self._url))
                self._graphs.append(build().compile(checkpointer=saver))
            yield
        self._graphs.clear()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """Nothing works in the background; asyncio's own threads, where a worker of Keyturn has left others behind."""
        with ThreadPoolExecutor(thread_name_prefix="asyncio") as threads:
            asyncio.get_running_loop().set_default_executor(threads)
            yield

    async def one(self, lane: int) -> None:
        """The whole life of one workflow."""
        graph, thread = self._graphs[lane], uuid.uuid4().hex
        config = {"configurable": {"thread_id": thread}}
        start: dict[str, object] = {"job": thread, "payload": payload(), "log": []}
        paused = await graph.ainvoke(start, config, durability=self._durability)
        assert paused["__interrupt__"]
        ended = cast(
            "dict[str, Any]", await graph.ainvoke(Command(resume=_APPROVED), config, durability=self._durability)
        )
        assert ended["log"][-1] == "done"
