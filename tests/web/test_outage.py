"""A database that is away: fast and clear refusals, and recovery without anybody's help."""

from __future__ import annotations

import asyncio
import time

import httpx

from orchestrator.service import workflows
from tests.harness import Keyturn
from tests.web.edge import served
from tests.web.proxy import Proxy
from tests.web.sse import stream


def behind(keyturn: Keyturn, proxy: Proxy, **settings: object) -> Keyturn:
    """The same Keyturn as somebody sees it who reaches the database through the proxy."""
    update = {"database_url": proxy.url, **settings}
    return Keyturn(keyturn.ctx, keyturn.settings.model_copy(update=update), keyturn.catalog)


async def refused(http: httpx.AsyncClient, path: str) -> None:
    """The answer to a call is a 503, quickly, with all that belongs to it."""
    began = time.monotonic()
    answer = await http.get(path)
    took = time.monotonic() - began
    assert answer.status_code == 503, answer.text
    assert took < 1.0, took
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["code"] == "unavailable"
    assert "cause" not in answer.json()


async def recovered(http: httpx.AsyncClient, path: str, seconds: float = 5.0) -> None:
    """The call works again within so many seconds."""
    until = time.monotonic() + seconds
    while (answer := await http.get(path)).status_code == 503:
        assert time.monotonic() < until
        await asyncio.sleep(0.02)
    assert answer.status_code == 200, answer.text


async def test_while_the_database_is_away_calls_are_refused_quickly_and_then_work_again(keyturn: Keyturn) -> None:
    async with (
        Proxy(keyturn.settings.require_database_url()).running() as proxy,
        served(behind(keyturn, proxy), own_database=True) as edge,
        edge.http(await edge.key()) as http,
    ):
        workflow_id = await keyturn.submit("steps")
        await recovered(http, f"/workflows/{workflow_id}")
        for _ in range(2):
            proxy.cut()
            for _ in range(2):
                await refused(http, f"/workflows/{workflow_id}")
            await asyncio.gather(*(refused(http, "/workflows/pending") for _ in range(20)))
            assert (await http.get("/healthz")).status_code == 200
            ready = await http.get("/readyz")
            assert ready.status_code == 503
            assert ready.json()["database"] is False
            assert b"keyturn_database_up 0.0" in (await http.get("/metrics")).content
            proxy.mend()
            await recovered(http, f"/workflows/{workflow_id}")
            answers = [await http.get("/workflows") for _ in range(30)]
            assert {answer.status_code for answer in answers} == {200}


async def test_a_server_that_starts_before_its_database_serves_once_that_is_there(keyturn: Keyturn) -> None:
    async with Proxy(keyturn.settings.require_database_url()).running() as proxy:
        proxy.cut()
        async with served(behind(keyturn, proxy), own_database=True) as edge, edge.http(await edge.key()) as http:
            await refused(http, "/workflows")
            assert (await http.get("/healthz")).status_code == 200
            proxy.mend()
            await recovered(http, "/workflows", seconds=8.0)


async def test_a_stream_outlives_the_database_and_misses_nothing(keyturn: Keyturn) -> None:
    async with (
        Proxy(keyturn.settings.require_database_url()).running() as proxy,
        served(behind(keyturn, proxy), own_database=True) as edge,
        edge.http(await edge.key()) as http,
    ):
        workflow_id = await keyturn.submit("steps")
        async with stream(http, workflow_id) as live:
            await live.next()
            proxy.cut()
            await refused(http, "/workflows")
            await workflows.cancel(keyturn.ctx, keyturn.me, workflow_id, "while you were away")
            proxy.mend()
            rest = await live.rest(seconds=10.0)
        assert [one["event"] for one in rest] == ["workflow-cancelled"]


async def test_a_pool_that_is_used_up_answers_503_in_under_a_second(keyturn: Keyturn) -> None:
    small = Keyturn(keyturn.ctx, keyturn.settings.model_copy(update={"pool_min": 1, "pool_max": 1}), keyturn.catalog)
    async with served(small, own_database=True) as edge, edge.http(await edge.key()) as http:
        await recovered(http, "/workflows")
        workflow_id = await keyturn.submit("steps")
        async with keyturn.ctx.db.transaction() as conn:
            await conn.execute(
                "SELECT FROM keyturn.workflows WHERE workflow_id = %(id)s FOR UPDATE", {"id": workflow_id}
            )
            # This call waits for the row and holds the only connection.
            held = asyncio.create_task(http.post(f"/workflows/{workflow_id}/cancel"))
            while True:
                found = await conn.execute("SELECT FROM pg_locks WHERE NOT granted")
                if found.rowcount:
                    break
                await asyncio.sleep(0.01)
            await refused(http, "/workflows")
        assert (await held).status_code == 200
        await recovered(http, "/workflows")
