"""A connection breaks in the middle of a stream, and the public clients go on by themselves behind the last event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from tests.harness import running
from tests.node.node import run_script
from tests.web.edge import Edge, served
from tests.web.proxy import Proxy

# first, block (until a file is there), second: the first one's end is the last told before the connection breaks.
MODES: Any = ["updates", "values"]


class Wire:
    """A server behind a proxy that can be cut, and what its clients ask for."""

    def __init__(self, edge: Edge, proxy: Proxy, key: str, go: Path) -> None:
        self.edge, self.proxy, self.key, self.go = edge, proxy, key, go
        self.url = f"http://127.0.0.1:{proxy.port}"
        self.input = {"text": str(go), "seconds": 60.0}

    def break_and_go_on(self) -> None:
        """Cut every connection; what the graph waits for happens meanwhile."""
        self.proxy.cut()
        self.proxy.mend()
        self.go.touch()


@pytest.fixture
async def wire(database_url: str, tmp_path: Path) -> AsyncIterator[Wire]:
    async with running(database_url) as keyturn, served(keyturn) as edge, keyturn.working():
        proxy = Proxy(edge.url)
        async with proxy.running():
            yield Wire(edge, proxy, await edge.key("rita"), tmp_path / "go")


async def test_the_python_client_goes_on_where_its_connection_broke(wire: Wire) -> None:
    asked: list[tuple[str, str | None]] = []

    async def note(request: httpx.Request) -> None:
        asked.append((request.method, request.headers.get("last-event-id")))

    seen: list[Any] = []
    async with (
        httpx.AsyncClient(
            base_url=wire.url, headers={"x-api-key": wire.key}, event_hooks={"request": [note]}, trust_env=False
        ) as http,
        asyncio.timeout(60),
    ):
        client = LangGraphClient(http)
        thread = await client.threads.create()
        async for part in client.runs.stream(thread["thread_id"], "blocking", input=wire.input, stream_mode=MODES):
            seen.append(part)
            if part.event == "updates" and part.data == {"first": None}:
                wire.break_and_go_on()
    (broke,) = [part.id for part in seen if part.data == {"first": None}]
    assert asked[-1] == ("GET", broke)
    _check([(part.event, part.data) for part in seen])


async def test_the_npm_client_goes_on_where_its_connection_broke(wire: Wire, node_modules: Path) -> None:
    env = {
        "KEYTURN_URL": wire.url,
        "KEYTURN_KEYS": json.dumps(dict.fromkeys(("rita", "tara", "tom", "theo", "cleo"), wire.key)),
        "SCENARIO": "reconnect",
        "INPUT": json.dumps(wire.input),
    }
    assert node_modules.is_dir()
    script = asyncio.create_task(run_script("langgraph_api.mjs", env))
    async with get_client(url=wire.edge.url, api_key=wire.key) as client:
        # It makes the file that is named in its input once it has seen the first step.
        seen = wire.go.with_name("go.seen")
        async with asyncio.timeout(60):
            while not seen.exists() and not script.done():
                await client.threads.count()
    wire.break_and_go_on()
    found = await script
    assert found["asked"][-1] == ["GET", found["broke"]]
    _check([(event, data) for event, data in found["parts"]])


def _check(parts: list[tuple[str, Any]]) -> None:
    """Nothing was told twice and nothing is missing."""
    assert [data for event, data in parts if event == "updates"] == [{"first": None}, {"block": None}, {"second": None}]
    assert parts[-1][0] == "end"
    assert [data["log"] for event, data in parts if event == "values"][-1] == ["first", "block", "second"]
