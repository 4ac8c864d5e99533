"""Many clients at once, and clients that read nothing: every one is given everything, and costs little meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncGenerator

import httpx
import psutil

from benchmarks.streams import Load, child, measure
from orchestrator.service import identity
from orchestrator.wire import KeyRequest
from tests.harness import Keyturn, caller
from tests.web.test_feeds import in_case

_SLOW = 50
_EVENTS = 5_000
_TEXT = 2_000
_AT_ONCE = 100
_APPEND = """
SELECT keyturn.append_events(%(id)s, now(), array_fill('noted'::text, ARRAY[%(many)s]),
                             array_fill('test'::text, ARRAY[%(many)s]), %(bodies)s::text[])
"""


async def test_a_hundred_clients_see_every_event_once_and_in_order_also_over_a_new_connection(
    database_url: str,
) -> None:
    """What `./task bench:streams` does with a thousand: each client checks what it is sent."""
    found = await measure(database_url, Load(clients=100, workflows=10, steps=4, pause=0.3))
    assert found.events == 10 * (2 + 3 * (2 + 4) + 1)
    assert found.delivered == 10 * found.events
    assert found.reconnected >= 25


@contextlib.asynccontextmanager
async def deaf(url: str, path: str, key: str) -> AsyncGenerator[asyncio.StreamReader]:
    """A client of a stream whose process takes nothing from its socket until it is read from."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
    except OSError:
        connection.close()
        raise
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    )
    try:
        yield reader
    finally:
        writer.transport.abort()


async def ids(reader: asyncio.StreamReader, last: int) -> list[int]:
    """The `id:` of every event up to `last`."""
    found: list[int] = []
    rest = b""
    while not found or found[-1] < last:
        chunk = await asyncio.wait_for(reader.read(65_536), 30)
        assert chunk
        *lines, rest = (rest + chunk).split(b"\n")
        found += [int(line[4:]) for line in lines if re.fullmatch(rb"id: \d+", line)]
    return found


async def test_clients_that_read_nothing_cost_bounded_memory_and_hold_up_nobody(keyturn: Keyturn) -> None:
    workflow_id = await in_case(keyturn, "c")
    request = KeyRequest(person="rita", permissions=["read"])
    key = (await identity.create_key(keyturn.ctx, caller("root"), request)).key
    paths = [f"/workflows/{workflow_id}/events", "/cases/c/events"]
    async with contextlib.AsyncExitStack() as stack:
        api, told = await stack.enter_async_context(child("serve", "--port=0", database_url=keyturn.ctx.db.url))
        url = json.loads(told)["url"]
        # It says where it will be before it is there.
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=8), trust_env=False) as http:
            assert (await http.get(f"{url}/healthz", timeout=30)).status_code == 200
        slow = [await stack.enter_async_context(deaf(url, paths[number % 2], key)) for number in range(_SLOW)]
        quick = await stack.enter_async_context(deaf(url, paths[0], key))
        assert await ids(quick, 1) == [1]
        before = _megabytes(api)
        reading = asyncio.create_task(ids(quick, _EVENTS + 1))
        await _append(keyturn, workflow_id)
        # Nobody waits for those who read nothing.
        assert await reading == list(range(2, _EVENTS + 2))
        sent = _SLOW * _EVENTS * _TEXT / 2**20
        assert _megabytes(api) - before < sent / 8
        # And when they do read, they are given everything.
        assert await ids(slow[0], _EVENTS + 1) == list(range(1, _EVENTS + 2))
        positions = await ids(slow[1], (await _last_position(keyturn)))
        assert len(set(positions)) >= _EVENTS + 1
        assert positions == sorted(positions)


def _megabytes(process: psutil.Process) -> float:
    return process.memory_info().rss / 2**20


async def _append(keyturn: Keyturn, workflow_id: str) -> None:
    bodies = [json.dumps({"text": "x" * _TEXT})] * _AT_ONCE
    for _ in range(_EVENTS // _AT_ONCE):
        async with keyturn.ctx.db.connection() as conn:
            await conn.execute(_APPEND, {"id": workflow_id, "many": _AT_ONCE, "bodies": bodies})
        keyturn.ctx.db.ring("keyturn_events", workflow_id)


async def _last_position(keyturn: Keyturn) -> int:
    async with keyturn.ctx.db.connection() as conn:
        row = await (await conn.execute("SELECT max(position) AS last FROM keyturn.events")).fetchone()
    assert row is not None
    return row["last"]
