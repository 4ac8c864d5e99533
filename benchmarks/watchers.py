"""Many clients of event streams in one process: each checks the order of what it is sent and how late it comes.

They read with a bare HTTP parser, so that a thousand of them cost less than what they watch.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from httptools import HttpResponseParser

_AT = re.compile(rb'"at":"([^"]+)"')
_OK = 200
_TRY_AGAIN = 0.05
_END = b"event: workflow-completed"


class WrongStreamError(Exception):
    """An event is missing, came twice, or came out of order."""


@dataclass
class Watcher:
    """One client of one workflow's events. It breaks its connection after each number in `leaves` and comes back."""

    url: str
    key: str
    workflow_id: str
    leaves: Sequence[int] = ()
    seen: int = 0
    reconnected: int = 0
    ended: bool = False
    # Seconds from an event's time, which is that of its transaction, until it was here.
    late: list[float] = field(default_factory=list[float])
    connected: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self) -> None:
        """Follow to the workflow's end, whatever breaks in between; raises WrongStreamError."""
        while not self.ended:
            try:
                await self._connection()
            except OSError:
                await asyncio.sleep(_TRY_AGAIN)

    async def _connection(self) -> None:
        address = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            last = f"Last-Event-ID: {self.seen}\r\n" if self.seen else ""
            writer.write(
                f"GET /workflows/{self.workflow_id}/events HTTP/1.1\r\nHost: {address.netloc}\r\n"
                f"Accept: text/event-stream\r\nAuthorization: Bearer {self.key}\r\n{last}\r\n".encode()
            )
            answer = _Answer(self, time.time())
            while not answer.complete and (chunk := await reader.read(65_536)):
                answer.parser.feed_data(chunk)
                if self._leaves_now():
                    self.reconnected += 1
                    return
        finally:
            writer.transport.abort()

    def _leaves_now(self) -> bool:
        if self.leaves and self.seen >= self.leaves[0]:
            self.leaves = self.leaves[1:]
            return not self.ended
        return False

    def take(self, event: bytes, since: float) -> None:
        """One event; those from before the connection began were not late."""
        now = time.time()
        name = next((line[4:] for line in event.split(b"\n") if line.startswith(b"id: ")), None)
        if name is None:
            return
        if int(name) != self.seen + 1:
            message = f"{self.workflow_id}: event {int(name)} came after event {self.seen}"
            raise WrongStreamError(message)
        self.seen += 1
        self.ended = _END in event
        found = _AT.search(event)
        if found is not None:
            at = datetime.fromisoformat(found[1].decode()).timestamp()
            if at > since:
                self.late.append(now - at)


class _Answer:
    """What the parser tells of one answer."""

    def __init__(self, watcher: Watcher, since: float) -> None:
        self._watcher = watcher
        self._since = since
        self._rest = b""
        self.complete = False
        self.parser = HttpResponseParser(self)

    def on_headers_complete(self) -> None:
        """The status is known."""
        if self.parser.get_status_code() != _OK:
            message = f"{self._watcher.workflow_id}: HTTP {self.parser.get_status_code()}"
            raise WrongStreamError(message)
        self._watcher.connected.set()

    def on_body(self, body: bytes) -> None:
        """A piece of the stream."""
        *events, self._rest = (self._rest + body).split(b"\n\n")
        for event in events:
            self._watcher.take(event, self._since)

    def on_message_complete(self) -> None:
        """The server has ended the stream."""
        self.complete = True
