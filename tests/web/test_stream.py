"""The live timeline: replayed from a cursor, followed without gaps, and holding nothing while it waits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator

from tests.harness import Keyturn
from tests.web.edge import Edge, served
from tests.web.sse import stream


async def test_a_finished_workflow_is_replayed_whole_and_the_stream_ends(edge: Edge, keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow_id = await keyturn.submit("steps", text="line\nend\u2028\u202e“ü”")
        await keyturn.until(workflow_id, "completed")
    types = await keyturn.types(workflow_id)
    async with edge.http(await edge.key()) as http:
        async with stream(http, workflow_id) as live:
            found = await live.rest()
        assert [one["event"] for one in found] == types
        assert [int(one["id"]) for one in found] == list(range(1, len(types) + 1))
        assert found[0]["data"]["data"]["input"] == {"text": "line\nend\u2028\u202e“ü”"}
        async with stream(http, workflow_id, **{"Last-Event-ID": "3"}) as live:
            assert [int(one["id"]) for one in await live.rest()] == list(range(4, len(types) + 1))
        page = await http.get(
            f"/workflows/{workflow_id}/events?limit=2&after=1", headers={"Accept": "application/json"}
        )
        assert page.json()["success"] is True
        assert [one["seq"] for one in page.json()["events"]] == [2, 3]
        assert page.json()["next_seq"] == 3
        assert page.json()["finished"] is False
        unknown = await http.get("/workflows/wf-none/events", headers={"Accept": "text/event-stream"})
        assert unknown.status_code == 404
        assert unknown.json()["code"] == "not_found"


async def test_what_happens_is_streamed_as_it_happens(edge: Edge, keyturn: Keyturn) -> None:
    async with keyturn.working(), edge.http(await edge.key("tara")) as http:
        workflow_id = await keyturn.submit("governed", operation="deploy", environment="production")
        async with stream(http, workflow_id) as live:
            while (event := await live.next())["event"] != "confirmation-required":
                pass
            assert event["data"]["data"]["request_id"]
            began = time.monotonic()
            answer = await http.post(f"/workflows/{workflow_id}/approve", json={"justification": "go"})
            assert answer.status_code == 200
            assert (await live.next())["event"] == "vote-recorded"
            assert time.monotonic() - began < 1.0
            rest = await live.rest()
        assert rest[-1]["event"] == "workflow-completed"
    assert rest[0]["event"] == "confirmation-resolved"


async def test_a_reconnecting_client_misses_and_repeats_nothing(edge: Edge, keyturn: Keyturn) -> None:
    seen: list[int] = []
    async with keyturn.working(), edge.http(await edge.key("tara")) as http:
        workflow_id = await keyturn.submit("governed", operation="deploy", environment="production")
        await keyturn.asked(workflow_id)
        await http.post(f"/workflows/{workflow_id}/approve", json={"justification": "go"})
        while True:
            headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
            async with stream(http, workflow_id, **headers) as live:
                try:
                    seen.append(int((await live.next())["id"]))
                except EOFError:
                    break
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) == len(await keyturn.types(workflow_id))


async def test_followers_hold_no_pooled_connection(database_url: str, keyturn: Keyturn) -> None:
    settings = keyturn.settings.model_copy(update={"pool_min": 1, "pool_max": 2})
    small = Keyturn(keyturn.ctx, settings, keyturn.catalog)
    async with served(small, own_database=True) as edge, edge.http(await edge.key()) as http:
        workflow_id = await keyturn.submit("steps")
        async with contextlib.AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(stream(http, workflow_id)) for _ in range(40)]
            for live in streams:
                assert (await live.next())["event"] == "workflow-submitted"
            for _ in range(20):
                assert (await http.get(f"/workflows/{workflow_id}")).status_code == 200
            await http.post(f"/workflows/{workflow_id}/cancel")
            for live in streams:
                assert [one["event"] for one in await live.rest()] == ["workflow-cancelled"]


async def test_streams_go_on_when_the_listening_connection_is_lost(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.http(await edge.key()) as http:
        workflow_id = await keyturn.submit("steps")
        async with stream(http, workflow_id) as live:
            await live.next()
            async with keyturn.ctx.db.connection() as conn:
                ended = await conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'keyturn-listen' AND datname = current_database()"
                )
                assert ended.rowcount == 1
            await http.post(f"/workflows/{workflow_id}/cancel")
            assert [one["event"] for one in await live.rest()] == ["workflow-cancelled"]


async def test_an_event_that_was_never_rung_arrives_within_two_seconds(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.http(await edge.key()) as http:
        workflow_id = await keyturn.submit("steps")
        async with stream(http, workflow_id) as live:
            await live.next()
            async with keyturn.ctx.db.connection() as conn:
                await conn.execute(
                    "SELECT keyturn.append_events(%(id)s, now(), '{progress}', '{test}', '{\"{}\"}')",
                    {"id": workflow_id},
                )
            assert (await live.next(seconds=3.0))["event"] == "progress"


@contextlib.asynccontextmanager
async def lively(keyturn: Keyturn, seconds: float) -> AsyncGenerator[Edge]:
    """The API, whose streams give a sign of life so often."""
    settings = keyturn.settings.model_copy(update={"keepalive_seconds": seconds})
    async with served(Keyturn(keyturn.ctx, settings, keyturn.catalog)) as edge:
        yield edge


async def test_a_silent_stream_gives_signs_of_life(keyturn: Keyturn) -> None:
    async with lively(keyturn, 0.05) as edge, edge.http(await edge.key()) as http:
        workflow_id = await keyturn.submit("steps")
        async with stream(http, workflow_id) as live:
            await live.next()
            for _ in range(3):
                assert await live.sign_of_life() == "still here"
            await http.post(f"/workflows/{workflow_id}/cancel")
            assert (await live.next())["event"] == "workflow-cancelled"


async def test_a_revoked_key_ends_its_streams(keyturn: Keyturn) -> None:
    async with lively(keyturn, 0.1) as edge, edge.http(await edge.key()) as admin, contextlib.AsyncExitStack() as stack:
        key = await edge.key("tom", ("read",))
        tom = await stack.enter_async_context(edge.http(key))
        workflow_id = await keyturn.submit("steps")
        async with stream(tom, workflow_id) as live:
            await live.next()
            await admin.delete(f"/keys/{key.split('_')[1]}")
            assert await live.rest(seconds=5) == []


async def test_a_server_that_stops_ends_its_streams_at_once(keyturn: Keyturn) -> None:
    async with contextlib.AsyncExitStack() as stack:
        edge = await stack.enter_async_context(served(keyturn))
        http = await stack.enter_async_context(edge.http(await edge.key()))
        live = await stack.enter_async_context(stream(http, await keyturn.submit("steps")))
        await live.next()
        began = time.monotonic()
        edge.stop.set()
        assert await live.rest() == []
        await edge.task
        assert time.monotonic() - began < 2.0
