"""The HTTP server around an application: it runs until it is told to stop, and then ends in good order.

Signals are not handled here: whoever runs the process decides what they mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Final

import uvicorn
from fastapi import FastAPI

from orchestrator.web.app import stop_streams

# After that the requests that still run are cut off; live streams end at once.
_GRACE_SECONDS: Final = 10
_IDLE_SECONDS: Final = 65
_BACKLOG: Final = 2048


class _Server(uvicorn.Server):
    """A server that leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def serve(app: FastAPI, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serve `app` on a bound socket until `stop` is set; then finish what has begun and return."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        backlog=_BACKLOG,
    )
    server = _Server(config)

    async def stopping() -> None:
        await stop.wait()
        stop_streams(app)
        server.should_exit = True

    watching = asyncio.create_task(stopping(), name="stop-server")
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, port 0 for any free one; raises OSError when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Windows takes this option for leave to share the port with another process.
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener
