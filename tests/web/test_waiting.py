"""Waiting for a decision is woken, not polled: prompt, cheap while it lasts, and no wake-up is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

import pytest

from orchestrator.sdk.client import ApiError, AsyncKeyturn
from orchestrator.sdk.client import Keyturn as SyncKeyturn
from orchestrator.web import hub
from orchestrator.web.parts import Parts
from tests.harness import Keyturn
from tests.web.edge import Edge, served
from tests.web.proxy import Proxy
from tests.web.test_outage import behind, recovered

RISKY = {"operation": "deploy", "environment": "production"}


@pytest.fixture
def only_notified(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look once a second helps: only a notification wakes."""
    monkeypatch.setattr(hub, "_LOOK_SECONDS", 3600.0)


@contextlib.asynccontextmanager
async def waiting(client: AsyncKeyturn, workflow_id: str, until: str = "ended") -> AsyncGenerator[asyncio.Task[str]]:
    """Somebody who waits for the status, and whom the server has put to wait."""

    async def wait() -> str:
        return (await client.wait(workflow_id, 20, until=until)).status  # pyright: ignore[reportArgumentType]

    task = asyncio.create_task(wait())
    # The server has read the status once it has answered what came behind.
    await client.status(workflow_id)
    await client.status(workflow_id)
    assert not task.done()
    yield task
    task.cancel()


@pytest.mark.usefixtures("only_notified")
async def test_a_wait_returns_at_once_when_it_is_decided(edge: Edge, keyturn: Keyturn) -> None:
    async with keyturn.working(), edge.client("rita") as rita, edge.client("tara") as tara:
        for _ in range(3):
            workflow_id = (await rita.submit("governed", RISKY)).workflow_id
            assert (await rita.wait(workflow_id, 20)).status == "waiting"
            async with waiting(rita, workflow_id) as task:
                began = time.monotonic()
                await tara.approve(workflow_id, "go")
                assert await task == "completed"
                assert time.monotonic() - began < 0.5


@pytest.mark.usefixtures("only_notified")
async def test_a_wait_for_what_is_there_already_returns_at_once(edge: Edge, keyturn: Keyturn) -> None:
    async with keyturn.working(), edge.client() as client:
        workflow_id = await keyturn.submit("governed", **RISKY)
        await keyturn.asked(workflow_id)
        began = time.monotonic()
        assert (await client.wait(workflow_id, 20)).status == "waiting"
        await client.cancel(workflow_id)
        for until in ("settled", "ended"):
            assert (await client.wait(workflow_id, 20, until=until)).status == "cancelled"
        assert time.monotonic() - began < 1.0


async def test_who_waits_costs_the_database_nothing(keyturn: Keyturn) -> None:
    async with (
        Proxy(keyturn.settings.require_database_url()).running() as proxy,
        served(behind(keyturn, proxy), own_database=True) as edge,
        edge.http(await edge.key()) as http,
    ):
        workflow_id = await keyturn.submit("steps")
        await recovered(http, f"/workflows/{workflow_id}")
        path, clients = f"/workflows/{workflow_id}/wait", 50
        tasks = [asyncio.create_task(http.get(path)) for _ in range(clients)]
        parts: Parts = edge.app.state.parts
        while len(parts.hub._followers[workflow_id]) < clients or parts.hub._reads:
            await http.get("/healthz")
        before = proxy.sent
        assert (await http.get(path, params={"timeout": 3})).json()["status"] == "ready"
        # One look a second for all of them, the last one's own statuses and key; to poll would be 150 and more.
        assert proxy.sent - before < 20
        await http.post(f"/workflows/{workflow_id}/cancel")
        assert {answer.json()["status"] for answer in await asyncio.gather(*tasks)} == {"cancelled"}


@pytest.mark.usefixtures("only_notified")
async def test_who_waits_holds_no_connection_of_the_pool(keyturn: Keyturn) -> None:
    settings = keyturn.settings.model_copy(update={"pool_min": 1, "pool_max": 2})
    small = Keyturn(keyturn.ctx, settings, keyturn.catalog)
    async with served(small, own_database=True) as edge, edge.http(await edge.key()) as http:
        workflow_id = await keyturn.submit("steps")
        tasks = [asyncio.create_task(http.get(f"/workflows/{workflow_id}/wait")) for _ in range(40)]
        for _ in range(20):
            assert (await http.get(f"/workflows/{workflow_id}")).status_code == 200
        await http.post(f"/workflows/{workflow_id}/cancel")
        assert {answer.json()["status"] for answer in await asyncio.gather(*tasks)} == {"cancelled"}


@pytest.mark.usefixtures("only_notified")
async def test_what_was_decided_while_nobody_listened_wakes_all_the_same(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.client() as client:
        workflow_id = await keyturn.submit("steps")
        async with waiting(client, workflow_id) as task, keyturn.ctx.db.connection() as conn:
            # In one statement, so that the change is made and rung while the listener is gone.
            await conn.execute(
                "WITH gone AS MATERIALIZED (SELECT pg_terminate_backend(pid, 5000) AS done FROM pg_stat_activity"
                " WHERE application_name = 'keyturn-listen' AND datname = current_database())"
                " UPDATE keyturn.workflows SET status = 'cancelled', finished_at = now()"
                " WHERE workflow_id = %(id)s AND (SELECT bool_and(done) FROM gone)",
                {"id": workflow_id},
            )
            # Long before the call would have ended by itself.
            assert await asyncio.wait_for(task, 5) == "cancelled"


async def test_a_client_waits_on_through_a_server_that_is_replaced(keyturn: Keyturn) -> None:
    async with served(keyturn) as first:
        key = await first.key()
        client = AsyncKeyturn(first.url, key)
        workflow_id = await keyturn.submit("steps")
        port = int(first.url.rpartition(":")[2])
        async with waiting(client, workflow_id) as task:
            first.stop.set()
            await first.task
            async with served(keyturn, port=port), keyturn.working():
                assert await task == "completed"
    await client.close()


async def test_a_wait_ends_at_its_time_and_a_wrong_one_is_refused(edge: Edge, keyturn: Keyturn) -> None:
    workflow_id = await keyturn.submit("steps")
    async with edge.http(await edge.key()) as http, edge.client() as client:
        began = time.monotonic()
        answer = await http.get(f"/workflows/{workflow_id}/wait?timeout=0.3")
        assert answer.json()["status"] == "ready"
        assert 0.3 <= time.monotonic() - began < 1.5
        for wrong in ("timeout=61", "timeout=-1", "timeout=nan", "until=never"):
            assert (await http.get(f"/workflows/{workflow_id}/wait?{wrong}")).status_code == 422, wrong
        with pytest.raises(ApiError) as refused:
            await client.wait("wf-none")
        assert refused.value.status == 404


async def test_who_waits_with_a_key_that_is_revoked_is_told_nothing_more(edge: Edge, keyturn: Keyturn) -> None:
    key = await edge.key("tom", ("read",))
    async with edge.client() as rita, edge.http(key) as tom:
        workflow_id = await keyturn.submit("steps")
        task = asyncio.create_task(tom.get(f"/workflows/{workflow_id}/wait?timeout=1.5"))
        assert (await tom.get("/workflows")).status_code == 200
        await rita.revoke_key(key.split("_")[1])
        assert (await task).status_code == 401


async def test_the_sync_client_waits_in_the_same_way(edge: Edge, keyturn: Keyturn) -> None:
    key = await edge.key("rita")

    def wait(workflow_id: str) -> list[str]:
        with SyncKeyturn(edge.url, key) as client:
            return [client.wait(workflow_id, 20).status, client.wait(workflow_id, 20, until="ended").status]

    async with keyturn.working(), edge.client("tara") as tara:
        workflow_id = await keyturn.submit("governed", **RISKY)
        task = asyncio.create_task(asyncio.to_thread(wait, workflow_id))
        await keyturn.asked(workflow_id)
        await tara.approve(workflow_id, "go")
        found = await task
    assert found[1] == "completed"
