"""A proxy between Keyturn and Postgres that knows where each unit of work ends, and can lose it there.

A unit is what a client waits for: one simple query, or everything up to a Sync or a Flush. It is named by its
statements; a `Cut` names a unit and says whether it is lost before Postgres sees it, or its reply is after it was done.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

Moment = Literal["before", "after", "stalled"]
_NAME_LENGTH = 100
# Messages of a client: those it waits for an answer to, and those that stand for themselves.
_ASKS = (b"Q", b"S", b"H")
_ENDS = (*_ASKS, b"X", b"p", b"f", b"d", b"c")
# Messages of the server that end one statement.
_COMPLETIONS = (b"C", b"I", b"s", b"E")


@dataclass(frozen=True)
class Point:
    """The n-th unit of this name since the proxy was armed."""

    name: str
    nth: int


@dataclass
class Cut:
    """Where the connection is lost, and what else happens there. `stalled` holds up everything instead."""

    point: Point
    moment: Moment
    act: Callable[[], None] = lambda: None
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """Listens on a port of its own; `url` is the database's address through it."""

    def __init__(self, url: str) -> None:
        self._real = urlsplit(url)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._counts: Counter[str] = Counter()
        self._cut: Cut | None = None
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self.seen: list[Point] = []

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        login = self._real.netloc.rpartition("@")[0]
        # In clear, as the units could not be told apart otherwise.
        query = "sslmode=disable&gssencmode=disable"
        return urlunsplit(self._real._replace(netloc=f"{login}@127.0.0.1:{port}", query=query))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[Proxy]:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._server.close()
            for link in self._links:
                link.cancel()
            await asyncio.gather(*self._links, return_exceptions=True)

    def arm(self, cut: Cut | None = None) -> None:
        """Count from nothing, and cut there if at all."""
        self._counts.clear()
        self.seen.clear()
        self._cut = cut

    def flow(self) -> None:
        """Let a stalled proxy go on."""
        self._flowing.set()

    def passing(self, name: str) -> Cut | None:
        """Count a unit; the cut, if this is where it is due."""
        self._counts[name] += 1
        point = Point(name, self._counts[name])
        self.seen.append(point)
        if self._cut is None or self._cut.done.is_set() or self._cut.point != point:
            return None
        if self._cut.moment == "stalled":
            self._flowing.clear()
        return self._cut

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            real_reader, real_writer = await asyncio.open_connection(self._real.hostname, self._real.port)
            await _Link(self, self._flowing, reader, writer, real_reader, real_writer).run()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._links.discard(task)


@dataclass
class _Unit:
    """Sent, and not yet answered whole: up to ReadyForQuery, or where a Flush ended it, up to so many completions."""

    cut: Cut | None
    completions: int | None


class _Link:
    """One connection of a client, and ours to the server behind it."""

    def __init__(
        self,
        proxy: Proxy,
        flowing: asyncio.Event,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        real_reader: asyncio.StreamReader,
        real_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._flowing = flowing
        self._reader = reader
        self._writer = writer
        self._real_reader = real_reader
        self._real_writer = real_writer
        self._statements: dict[bytes, str] = {}
        self._last = ""
        # The start-up is answered like a unit.
        self._sent = deque([_Unit(None, None)])

    async def run(self) -> None:
        """Until one side is gone, or the link is cut."""
        pumps = {asyncio.create_task(self._upward()), asyncio.create_task(self._downward())}
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writer.transport.abort()
            self._real_writer.transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _upward(self) -> None:
        length = await self._reader.readexactly(4)
        self._real_writer.write(length + await self._reader.readexactly(int.from_bytes(length) - 4))
        unit, names, executes = bytearray(), list[str](), 0
        while True:
            kind, message = await _message(self._reader)
            unit += message
            names += self._named(kind, message[5:])
            executes += kind == b"E"
            if kind not in _ENDS:
                continue
            if kind in _ASKS:
                name = " + ".join(names) or "(sync)"
                if not await self._passes(name, bytes(unit), executes if kind == b"H" else None):
                    return
            else:
                self._real_writer.write(bytes(unit))
            unit, names, executes = bytearray(), list[str](), 0
            await self._real_writer.drain()

    async def _passes(self, name: str, unit: bytes, completions: int | None) -> bool:
        """Send a unit on, unless it is to be lost."""
        await self._flowing.wait()
        cut = self._proxy.passing(name)
        if cut is not None and cut.moment == "before":
            cut.act()
            cut.done.set()
            return False
        if cut is not None and cut.moment == "stalled":
            cut.done.set()
            await self._flowing.wait()
        if completions != 0:
            self._sent.append(_Unit(cut if cut and cut.moment == "after" else None, completions))
        self._real_writer.write(unit)
        return True

    async def _downward(self) -> None:
        while True:
            kind, message = await _message(self._real_reader)
            await self._flowing.wait()
            unit = self._sent[0] if self._sent else None
            if unit is None or unit.cut is None:
                self._writer.write(message)
                await self._writer.drain()
            if unit is not None and self._answered(unit, kind) and unit.cut is not None:
                unit.cut.act()
                unit.cut.done.set()
                return

    def _answered(self, unit: _Unit, kind: bytes) -> bool:
        """Whether this message ends what a unit is answered with."""
        if kind == b"Z":
            # After an error, what was flushed but not done is answered by the Sync's own end.
            while self._sent.popleft().completions is not None:
                pass
            return True
        if unit.completions is not None and kind in _COMPLETIONS:
            unit.completions -= 1
            if unit.completions == 0:
                self._sent.popleft()
                return True
        return False

    def _named(self, kind: bytes, body: bytes) -> list[str]:
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._statements[name] = _squeezed(text)
        if kind not in b"QB":
            return []
        found = _squeezed(body[:-1]) if kind == b"Q" else self._statements.get(body.split(b"\0", 2)[1], "?")
        # A commit is told from others by what it commits.
        self._last, before = found, self._last
        return [f"COMMIT after {before}" if found == "COMMIT" else found]


def _squeezed(text: bytes) -> str:
    return re.sub(r"\s+", " ", text.decode(errors="replace")).strip()[:_NAME_LENGTH]


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    try:
        head = await reader.readexactly(5)
        return head[:1], head + await reader.readexactly(int.from_bytes(head[1:]) - 4)
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError from error
