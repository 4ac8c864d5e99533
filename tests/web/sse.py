"""A strict reader of server-sent events for tests: it takes the stream apart byte by byte, as the standard says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Stream:
    """One open stream. `comments` are the lines that begin with a colon."""

    response: httpx.Response
    chunks: AsyncGenerator[bytes]
    raw: bytes = b""
    comments: list[str] = field(default_factory=list)
    reading: asyncio.Future[bytes | None] | None = None

    async def next(self, seconds: float = 10.0) -> dict[str, Any]:
        """The next event: its `event`, `id` and decoded `data`; EOFError when the stream has ended."""
        async with asyncio.timeout(seconds):
            while True:
                fields = await self._block()
                if "data" in fields:
                    return {**fields, "data": json.loads(fields["data"])}

    async def sign_of_life(self, seconds: float = 10.0) -> str:
        """The next comment, where no event comes before it."""
        async with asyncio.timeout(seconds):
            assert await self._block() == {}
            return self.comments[-1]

    async def standing(self, seconds: float = 10.0) -> str:
        """Where a sign of life says that the client stands, where no event comes before it."""
        async with asyncio.timeout(seconds):
            fields = await self._block()
            assert list(fields) == ["id"]
            return fields["id"]

    async def _block(self) -> dict[str, str]:
        while b"\n\n" not in self.raw:
            # A reading outlives the time-out of who waits for it: what comes later is not lost.
            self.reading = self.reading or asyncio.ensure_future(anext(self.chunks, None))
            chunk = await asyncio.shield(self.reading)
            self.reading = None
            if chunk is None:
                assert not self.raw
                raise EOFError
            self.raw += chunk
        head, _, self.raw = self.raw.partition(b"\n\n")
        return self._fields(head)

    async def rest(self, seconds: float = 10.0) -> list[dict[str, Any]]:
        """Every event up to the end of the stream."""
        found: list[dict[str, Any]] = []
        with contextlib.suppress(EOFError):
            while True:
                found.append(await self.next(seconds))
        return found

    def _fields(self, block: bytes) -> dict[str, str]:
        assert b"\r" not in block
        fields: dict[str, str] = {}
        for line in block.decode().split("\n"):
            name, _, value = line.partition(":")
            if not name:
                self.comments.append(value.strip())
            else:
                assert name not in fields
                fields[name] = value.removeprefix(" ")
        return fields


@contextlib.asynccontextmanager
async def stream_at(http: httpx.AsyncClient, path: str, **headers: str) -> AsyncGenerator[Stream]:
    """Follow what is at `path`."""
    async with http.stream("GET", path, headers={"Accept": "text/event-stream", **headers}) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        chunks = response.aiter_bytes()
        assert isinstance(chunks, AsyncGenerator)
        live = Stream(response, chunks)
        try:
            yield live
        finally:
            if live.reading is not None:
                live.reading.cancel()
                await asyncio.wait([live.reading])


@contextlib.asynccontextmanager
async def stream(http: httpx.AsyncClient, workflow_id: str, **headers: str) -> AsyncGenerator[Stream]:
    """Follow a workflow's events."""
    async with stream_at(http, f"/workflows/{workflow_id}/events", **headers) as live:
        yield live
