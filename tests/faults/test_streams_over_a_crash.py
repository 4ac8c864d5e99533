"""Postgres is killed under open streams and comes back: they stay open, and give what follows once and in order."""

from __future__ import annotations

import asyncio
import contextlib

from orchestrator.embedded import EmbeddedPostgres
from orchestrator.service.schema import prepare_database
from tests.conftest import REPOSITORY
from tests.faults.test_postgres_killed import server
from tests.harness import running
from tests.web.edge import served
from tests.web.sse import stream_at
from tests.web.test_feeds import in_case, writing

__all__ = ["server"]


async def test_streams_go_on_when_postgres_was_killed_under_them(server: EmbeddedPostgres) -> None:
    await prepare_database(server.url, REPOSITORY / "migrations")
    async with (
        running(server.url) as keyturn,
        served(keyturn, own_database=True) as edge,
        edge.http(await edge.key()) as http,
        contextlib.AsyncExitStack() as stack,
    ):
        workflow_id = await in_case(keyturn, "c")
        paths = ("/events?after=0", "/cases/c/events", f"/workflows/{workflow_id}/events")
        streams = [await stack.enter_async_context(stream_at(http, path)) for path in paths]
        for live in streams:
            assert (await live.next())["event"] == "workflow-submitted"
        for kind in ("first", "second"):
            # What was being written is lost with the server, and the streams were told to wait for it.
            async with writing(keyturn, workflow_id, "never"):
                keyturn.ctx.db.ring("keyturn_events", workflow_id)
                await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            async with writing(keyturn, workflow_id, kind) as conn:
                await conn.commit()
            for live in streams:
                assert (await live.next())["event"] == kind
