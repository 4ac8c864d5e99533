"""The HTTP server around an application: it runs until it is told to stop, and then ends in good order.

Signals are not handled here: whoever runs the process decides what they mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Generator
from typing import ClassVar, Final

import uvicorn
from fastapi import FastAPI

from orchestrator.core.errors import Fault
from orchestrator.web.app import stop_streams

# After that the requests that still run are cut off; live streams end at once.
_GRACE_SECONDS: Final = 10
_IDLE_SECONDS: Final = 65
_BACKLOG: Final = 2048
# A client that takes nothing for so long is gone, whether it reads no more or its network is.
_STALLED_SECONDS: Final = 60


class _Server(uvicorn.Server):
    """A server that leaves the process's signals alone, and says when it has started."""

    def __init__(self, config: uvicorn.Config, started: asyncio.Event) -> None:
        super().__init__(config)
        self._has_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._has_started.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def serve(
    app: FastAPI, listener: socket.socket, stop: asyncio.Event, started: asyncio.Event | None = None
) -> None:
    """Serve `app` on a bound socket until `stop` is set; then finish what has begun and return.

    `started` is set once requests are taken.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        backlog=_BACKLOG,
    )
    server = _Server(config, started or asyncio.Event())

    async def stopping() -> None:
        await stop.wait()
        stop_streams(app)
        server.should_exit = True

    watching = asyncio.create_task(stopping(), name="stop-server")
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()


class AddressInUse(Fault):
    """Nothing can listen on the address that was asked for."""

    code: ClassVar[str] = "address_in_use"
    title: ClassVar[str] = "The address cannot be used"


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, port 0 for any free one; raises AddressInUse."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small answers at once; without, they wait for the client's acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Windows takes SO_REUSEADDR for leave to share the port with another process.
        option = "SO_EXCLUSIVEADDRUSE" if sys.platform == "win32" else "SO_REUSEADDR"
        listener.setsockopt(socket.SOL_SOCKET, int(getattr(socket, option)), 1)
        if (stalled := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
            listener.setsockopt(socket.IPPROTO_TCP, int(stalled), _STALLED_SECONDS * 1000)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        said = error.strerror or error
        raise AddressInUse(f"cannot listen on {host}:{port}: {said}. Choose another port with --port.") from None
    return listener


def address(listener: socket.socket) -> str:
    """The URL under which this machine reaches what listens there."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
