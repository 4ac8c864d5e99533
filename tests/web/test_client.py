"""The SDK's clients against the real API: typed answers, typed refusals, waiting, and trying again only when safe."""

from __future__ import annotations

import asyncio
import inspect
import time

import pytest

from orchestrator.sdk.client import ApiError, AsyncKeyturn, Keyturn, Unreachable
from orchestrator.sdk.following import Following, SseParser
from orchestrator.wire import ExplainRequest, VoteRequest
from tests import harness
from tests.web.edge import Edge, served
from tests.web.proxy import Proxy
from tests.web.test_outage import behind


async def test_a_workflow_is_led_through_its_life_with_the_async_client(edge: Edge, keyturn: harness.Keyturn) -> None:
    async with keyturn.working(), edge.client("rita") as rita, edge.client("tara") as tara:
        values = {"operation": "deploy", "environment": "production"}
        submitted = await rita.submit("governed", values, title="Ship it")
        waiting = await rita.wait(submitted.workflow_id, 20, until="settled")
        assert waiting.status == "waiting"
        with pytest.raises(ApiError) as refused:
            await rita.approve(submitted.workflow_id)
        assert (refused.value.status, refused.value.code) == (403, "self_approval")
        (line,) = (await tara.pending(mine=True)).workflows
        assert line.workflow_id == submitted.workflow_id
        assert "rita" in (await tara.explain(line.approval_id, "rita")).why_not
        decided = await tara.vote(line.approval_id, VoteRequest(verdict="approve", justification="go"))
        assert decided.code == "resolved"
        done = await rita.wait(submitted.workflow_id, 20)
        assert done.status == "completed", done.error
        assert (await rita.wait(submitted.workflow_id, 20)).status == "completed"
        assert (await rita.workflow(submitted.workflow_id)).result is not None
        assert (await tara.approval(line.approval_id)).state == "executed"
        followed = [event.type async for event in rita.follow(submitted.workflow_id)]
        assert followed == await keyturn.types(submitted.workflow_id)
        assert "flowchart" in await rita.drawing(submitted.workflow_id)
        assert (await rita.graph(submitted.workflow_id)).graph == "governed"
        assert (await rita.ready()).ready


async def test_the_sync_client_does_the_same(edge: Edge, keyturn: harness.Keyturn) -> None:
    rita_key, tara_key = await edge.key("rita"), await edge.key("tara")

    def life() -> list[str]:
        with Keyturn(edge.url, rita_key) as rita, Keyturn(edge.url, tara_key) as tara:
            values = {"operation": "deploy", "environment": "production"}
            workflow_id = rita.submit("governed", values, idempotency_key="once").workflow_id
            assert rita.submit("governed", values, idempotency_key="once").replayed
            assert rita.wait(workflow_id, 20, until="settled").status == "waiting"
            tara.approve(workflow_id, "go", approval_id=tara.pending().workflows[0].approval_id)
            done = rita.wait(workflow_id, 20)
            assert done.status == "completed", done.error
            assert [one.workflow_id for one in rita.workflows(status="completed").workflows] == [workflow_id]
            assert rita.events(workflow_id, limit=1).next_seq == 1
            action = ExplainRequest(action={"operation": "vacuum"})
            assert rita.explain_action(action).risk_level == "low"
            assert "tara" in [one.person for one in rita.people()]
            assert rita.put_person("new", roles=["cto"]).roles == ["cto"]
            made = rita.create_key("new", ["read"])
            known = rita.keys()
            assert made.key_id in [one.key_id for one in known]
            assert rita.revoke_key(made.key_id).revoked_at is not None
            other = rita.submit("steps", {"seconds": 30}).workflow_id
            assert rita.cancel(other, "enough").status == "cancelled"
            with pytest.raises(ApiError) as refused:
                rita.retry(other)
            assert refused.value.problem.facts["workflow_status"] == "cancelled"
            return [event.type for event in rita.follow(workflow_id)]

    async with keyturn.working():
        assert (await asyncio.to_thread(life))[-1] == "workflow-completed"


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def taken(client: type[Keyturn | AsyncKeyturn]) -> dict[str, list[tuple[str, object]]]:
        every = {name: found for base in reversed(client.__mro__[:-1]) for name, found in vars(base).items()}
        methods = {name: found for name, found in every.items() if not name.startswith("_")}
        return {
            name: [(one.name, one.default) for one in inspect.signature(found).parameters.values()]
            for name, found in methods.items()
        }

    assert taken(Keyturn) == taken(AsyncKeyturn)


async def test_waiting_ends_at_its_time(edge: Edge, keyturn: harness.Keyturn) -> None:
    workflow_id = await keyturn.submit("steps")
    key = await edge.key()
    began = time.monotonic()
    async with edge.client() as client:
        with pytest.raises(TimeoutError):
            await client.wait(workflow_id, 0.5)

    def wait() -> None:
        with Keyturn(edge.url, key) as client, pytest.raises(TimeoutError):
            client.wait(workflow_id, 0.5)

    await asyncio.to_thread(wait)
    assert time.monotonic() - began < 5.0


async def test_nobody_there_is_said_as_unreachable() -> None:
    client = AsyncKeyturn("http://127.0.0.1:1", "kt_x_y")
    with pytest.raises(Unreachable, match="does not answer"):
        await client.workflows()
    with pytest.raises(Unreachable):
        _ = [event async for event in client.follow("wf-1", patience=0.3)]
    await client.close()


async def test_something_else_that_answers_is_not_taken_for_keyturn() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<html>hi</html>")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    client = AsyncKeyturn(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(ApiError) as refused:
        await client.workflows()
    assert refused.value.code == "not_keyturn"
    await client.close()
    server.close()


async def test_only_calls_that_may_be_repeated_are_tried_again(keyturn: harness.Keyturn) -> None:
    async with (
        Proxy(keyturn.settings.require_database_url()).running() as proxy,
        served(behind(keyturn, proxy), own_database=True) as edge,
        edge.client() as client,
    ):
        workflow_id = await keyturn.submit("steps")
        await client.status(workflow_id)
        proxy.cut()
        began = time.monotonic()
        with pytest.raises(ApiError) as away:
            await client.cancel(workflow_id)
        assert away.value.code == "unavailable"
        assert time.monotonic() - began < 1.0
        asyncio.get_running_loop().call_later(1.0, proxy.mend)
        assert (await client.submit("steps")).status == "ready"
        assert (await client.status(workflow_id)).status == "ready"
        assert (await client.cancel(workflow_id)).status == "cancelled"


async def test_following_survives_a_server_that_is_replaced(keyturn: harness.Keyturn) -> None:
    async with served(keyturn) as first:
        key = await first.key()
        workflow_id = await keyturn.submit("steps")
        client = AsyncKeyturn(first.url, key)
        following = client.follow(workflow_id, patience=20)
        assert (await anext(following)).type == "workflow-submitted"
        port = int(first.url.rpartition(":")[2])
    async with served(keyturn, port=port), keyturn.working():
        types = [event.type async for event in following]
    assert types == (await keyturn.types(workflow_id))[1:]
    await client.close()


def test_events_are_put_together_from_any_chunks() -> None:
    wire = b': hello\n\nid: 1\nevent: a\ndata: {"x":\ndata: 1}\n\ndata:2\r\n\r\nevent: only\n\n'
    for size in (1, 2, 3, 7, len(wire)):
        parser = SseParser()
        found = [one for at in range(0, len(wire), size) for one in parser.feed(wire[at : at + size])]
        assert found == [b'{"x":\n1}', b"2"]


def test_patience_and_time_run_on_the_same_clock() -> None:
    now = [0.0]
    following = Following("wf", timeout=10, patience=3, monotonic=lambda: now[0])
    _, limits = following.begin()
    assert limits.read == 10
    assert following.pause(OSError()) == 0.2
    assert following.pause(OSError()) == 0.4
    now[0] = 3.5
    with pytest.raises(Unreachable):
        following.pause(OSError())
    following.answered(200, b"")
    assert following.pause(OSError()) == 0.2
    assert following.must_renew()
    now[0] = 10.0
    with pytest.raises(TimeoutError, match="10 seconds"):
        following.begin()
