"""A TCP proxy between Keyturn and Postgres that a test can cut and mend: the database goes away and comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from urllib.parse import urlsplit


class Proxy:
    """Passes bytes on both ways. `cut` breaks every connection and refuses new ones until `mend`."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._whole = True
        self.port = 0
        # How often something was sent towards Postgres.
        self.sent = 0

    @property
    def url(self) -> str:
        """The address of the same database through this proxy."""
        login = self._target.netloc.rpartition("@")[0]
        return self._target._replace(netloc=f"{login}@127.0.0.1:{self.port}").geturl()

    def cut(self) -> None:
        """The database is away from now on."""
        self._whole = False
        for writer in list(self._open):
            writer.transport.abort()

    def mend(self) -> None:
        """The database is back."""
        self._whole = True

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[Proxy]:
        """Pass bytes on while the block runs."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._server.close()
            self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        both = {writer, far_writer}
        self._open |= both
        try:
            await asyncio.gather(_pass(reader, far_writer, self._count), _pass(far_reader, writer))
        finally:
            self._open -= both

    def _count(self) -> None:
        self.sent += 1


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[], None] = lambda: None
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            note()
            writer.write(data)
            await writer.drain()
    writer.close()
