"""Cases by Keyturn's own clients and on the command line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from orchestrator.sdk.client import ApiError, AsyncKeyturn
from orchestrator.sdk.client import Keyturn as SyncKeyturn
from orchestrator.service import workflows
from orchestrator.wire import SubmitRequest
from orchestrator.wire_feeds import FeedEvent
from tests.harness import Keyturn
from tests.web.edge import Edge, served


async def submit(keyturn: Keyturn, graph: str, case_id: str) -> str:
    request = SubmitRequest(graph=graph, case_id=case_id)
    return (await workflows.submit(keyturn.ctx, keyturn.me, request)).workflow_id


async def test_a_case_is_confirmed_and_followed_by_both_clients(edge: Edge, keyturn: Keyturn) -> None:
    case = "a/b c"
    key = await edge.key("tara")

    def sync() -> list[str]:
        """Answer everything that waits, and follow until all three have ended."""
        with SyncKeyturn(edge.url, key) as client:
            kinds: list[str] = []
            for event in client.follow_case(case, timeout=20):
                kinds.append(event.type)
                if event.type == "confirmation-required" and event.request_id:
                    client.confirm_case(case, event.request_id, True, "yes")
                if kinds.count("workflow-completed") == 3:
                    return kinds
        return []

    async with keyturn.working(), edge.client("tara") as client:
        answering = asyncio.create_task(asyncio.to_thread(sync))
        for _ in range(3):
            await submit(keyturn, "yes_or_no", case)
        kinds = await answering
        assert kinds.count("confirmation-resolved") == 3
        found = [event async for event in limited(client, case, 3)]
        assert {event.data["state"] for event in found} == {"answered"}
        assert (await client.case_pending(case)).confirmations == []
        with pytest.raises(ApiError) as refused:
            await client.confirm_case(case, "ap-none", False)
        assert refused.value.status == 404
        with pytest.raises(TimeoutError):
            async for _ in client.follow_case("empty", timeout=0.3):
                pass


async def limited(client: AsyncKeyturn, case: str, count: int) -> AsyncGenerator[FeedEvent]:
    async for event in client.follow_case(case, types=["confirmation-resolved"]):
        yield event
        count -= 1
        if not count:
            return


async def test_a_client_that_follows_everything_misses_nothing_over_a_restart(keyturn: Keyturn) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(served(keyturn))
        port = int(first.url.rpartition(":")[2])
        client = AsyncKeyturn(first.url, await first.key())
        stack.push_async_callback(client.close)
        following = client.follow_all(timeout=30)
        reading = asyncio.ensure_future(anext(following))
        seen, last = list[str](), ""
        # Only what happens from now on is told: it has begun when the first event arrives.
        while not reading.done():
            last = await submit(keyturn, "steps", "c")
            await asyncio.wait([reading], timeout=0.3)
        seen.append((await reading).workflow_id)
        while seen[-1] != last:
            seen.append((await anext(following)).workflow_id)
        first.stop.set()
        await first.task
        away = await submit(keyturn, "steps", "c")
        await stack.enter_async_context(served(keyturn, port=port))
        assert (await anext(following)).workflow_id == away
