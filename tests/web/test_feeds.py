"""Events over several workflows: in the order of their positions, each once, whatever order they were committed in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from psycopg import AsyncConnection

from orchestrator.service import threads
from orchestrator.service.feeds import OfThread
from orchestrator.service.horizon import Horizon
from orchestrator.service.threads import Thread
from orchestrator.service.workflows import submit
from orchestrator.store.db import SEARCH_PATH
from orchestrator.web.feeds import Feeding
from orchestrator.wire import SubmitRequest
from tests.harness import APPS, Keyturn, caller, running
from tests.web.edge import Edge, served
from tests.web.sse import Stream, stream_at

APPEND = "SELECT keyturn.append_events(%(id)s, now(), %(types)s::text[], ARRAY['test'], %(bodies)s::text[])"
AT_ONCE = 2.0


@contextlib.asynccontextmanager
async def writing(
    keyturn: Keyturn, workflow_id: str, kind: str, **data: object
) -> AsyncGenerator[AsyncConnection[Any]]:
    """A transaction of its own that has appended an event and is still open."""
    conn = await AsyncConnection[Any].connect(keyturn.ctx.db.url, options=f"-c search_path={SEARCH_PATH}")
    try:
        await append(conn, workflow_id, kind, **data)
        yield conn
    finally:
        await conn.close()


async def append(conn: AsyncConnection[Any], workflow_id: str, kind: str, **data: object) -> None:
    await conn.execute(APPEND, {"id": workflow_id, "types": [kind], "bodies": [json.dumps(data)]})


async def committed(keyturn: Keyturn, workflow_id: str, kind: str, **data: object) -> None:
    """An event that nobody rings."""
    async with keyturn.ctx.db.connection() as conn:
        await append(conn, workflow_id, kind, **data)


async def in_case(keyturn: Keyturn, case_id: str, graph: str = "steps", namespace: str = "default") -> str:
    request = SubmitRequest(graph=graph, case_id=case_id)
    return (await submit(keyturn.ctx, caller("rita", namespace), request)).workflow_id


async def page(http: httpx.AsyncClient, path: str) -> dict[str, Any]:
    answer = await http.get(path, headers={"Accept": "application/json"})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def until(live: Stream, kind: str) -> dict[str, Any]:
    while (event := await live.next())["event"] != kind:
        pass
    return event


async def silent(live: Stream, seconds: float) -> bool:
    """Whether no event comes for so long."""
    try:
        await live.next(seconds)
    except TimeoutError:
        return True
    return False


async def test_a_follower_does_not_pass_an_event_that_commits_after_a_later_one(edge: Edge, keyturn: Keyturn) -> None:
    first, second = await in_case(keyturn, "c"), await in_case(keyturn, "c")
    async with (
        edge.http(await edge.key()) as http,
        stream_at(http, "/events") as live,
        stream_at(http, "/cases/c/events") as case,
        writing(keyturn, first, "earlier") as slow,
    ):
        assert [(await case.next())["event"] for _ in range(2)] == ["workflow-submitted"] * 2
        async with writing(keyturn, second, "later") as quick:
            await quick.commit()
        keyturn.ctx.db.ring("keyturn_events", second)
        reading = asyncio.create_task(page(http, "/events"))
        assert await silent(live, 1.5)
        assert await silent(case, 0.1)
        assert [one["type"] for one in (await reading)["events"]] == ["workflow-submitted"] * 2
        await slow.commit()
        found = [await live.next(AT_ONCE), await live.next(AT_ONCE)]
        assert [one["event"] for one in found] == ["earlier", "later"]
        assert int(found[0]["id"]) + 1 == int(found[1]["id"])
        assert [(await case.next(AT_ONCE))["event"] for _ in range(2)] == ["earlier", "later"]


async def test_a_position_that_was_rolled_back_stalls_nobody(edge: Edge, keyturn: Keyturn) -> None:
    first, second = await in_case(keyturn, "c"), await in_case(keyturn, "c")
    async with edge.http(await edge.key()) as http, stream_at(http, "/events") as live:
        async with writing(keyturn, first, "never") as slow:
            async with writing(keyturn, second, "later") as quick:
                await quick.commit()
            keyturn.ctx.db.ring("keyturn_events", second)
            assert await silent(live, 0.3)
            await slow.rollback()
            assert (await live.next(AT_ONCE))["event"] == "later"
        await committed(keyturn, first, "afterwards")
        keyturn.ctx.db.ring("keyturn_events", first)
        assert (await live.next(AT_ONCE))["event"] == "afterwards"
        found = await page(http, "/events")
        positions = [one["position"] for one in found["events"]]
        assert [one["type"] for one in found["events"]][2:] == ["later", "afterwards"]
        assert positions[2] - positions[1] > 1


async def test_somebody_elses_long_transaction_holds_up_nobody(edge: Edge, keyturn: Keyturn) -> None:
    """Only who holds a position is waited for, not whoever writes something in the same cluster."""
    workflow_id = await in_case(keyturn, "c")
    other = await AsyncConnection[Any].connect(keyturn.ctx.db.url)
    try:
        await other.execute("CREATE TABLE public.theirs AS SELECT pg_current_xact_id() AS mine")
        await other.execute("SELECT * FROM keyturn.events FOR UPDATE")
        async with edge.http(await edge.key()) as http, stream_at(http, "/events") as live:
            await committed(keyturn, workflow_id, "one")
            keyturn.ctx.db.ring("keyturn_events", workflow_id)
            assert (await live.next(AT_ONCE))["event"] == "one"
    finally:
        await other.close()


async def test_a_transaction_left_open_is_given_up_after_a_while(
    keyturn: Keyturn, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await in_case(keyturn, "c"), await in_case(keyturn, "c")
    horizon = Horizon(keyturn.ctx.db, patience=0.2)
    before = await horizon.reach()
    async with writing(keyturn, first, "forgotten"):
        await committed(keyturn, second, "later")
        assert await horizon.within(0.05) == before
        assert await horizon.reach() == before + 2
        assert "open for" in caplog.text
        await committed(keyturn, second, "later still")
        # It is not waited for again.
        assert await horizon.within(0.1) == before + 3


async def test_positions_that_fall_back_with_a_restored_database_are_looked_at_anew(keyturn: Keyturn) -> None:
    horizon = Horizon(keyturn.ctx.db)
    workflow_id = await in_case(keyturn, "c")
    for _ in range(3):
        await committed(keyturn, workflow_id, "noted")
    was = await horizon.reach()
    async with keyturn.ctx.db.connection() as conn:
        await conn.execute("SELECT setval('keyturn.events_position_seq', %s)", [was - 2])
    # Else a stream would take what is being written right now for complete, and pass it.
    assert await horizon.reach() == horizon.known == was - 2


async def test_whatever_commits_in_whatever_order_is_given_once_and_in_order(edge: Edge, keyturn: Keyturn) -> None:
    chance = random.Random(7)  # noqa: S311 - replayable
    workflows = [await in_case(keyturn, "c") for _ in range(6)]
    kept: set[str] = set()

    async def write(workflow_id: str) -> None:
        for number in range(25):
            name = f"{workflow_id} {number}"
            async with writing(keyturn, workflow_id, "noted", name=name) as conn:
                await asyncio.sleep(chance.random() * 0.02)
                if chance.random() < 0.25:
                    await conn.rollback()
                    continue
                await conn.commit()
            kept.add(name)
            keyturn.ctx.db.ring("keyturn_events", workflow_id)

    async def follow(http: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
        """Follow with a new connection after every few events."""
        found: list[dict[str, Any]] = []
        last = {"Last-Event-ID": "0"}
        while not found or found[-1]["event"] != "over":
            async with stream_at(http, path, **last) as live:
                for _ in range(chance.randrange(1, 30)):
                    found.append(await live.next())
                    if found[-1]["event"] == "over":
                        break
            last = {"Last-Event-ID": found[-1]["id"]}
        return found

    async with edge.http(await edge.key()) as http, asyncio.TaskGroup() as group:
        following = [group.create_task(follow(http, path)) for path in ("/events", "/cases/c/events", "/events") * 2]
        async with asyncio.TaskGroup() as writers:
            for workflow_id in workflows:
                writers.create_task(write(workflow_id))
        await committed(keyturn, workflows[0], "over")
        keyturn.ctx.db.ring("keyturn_events", workflows[0])
    for task in following:
        found = task.result()
        positions = [int(one["id"]) for one in found]
        assert positions == sorted(set(positions))
        names = [one["data"]["data"]["name"] for one in found if one["event"] == "noted"]
        assert len(names) == len(kept)
        assert set(names) == kept


async def test_everything_begins_now_and_what_was_is_given_when_asked_for(edge: Edge, keyturn: Keyturn) -> None:
    before = await in_case(keyturn, "c")
    await in_case(keyturn, "elsewhere", namespace="other")
    async with edge.http(await edge.key()) as http, stream_at(http, "/events") as live:
        after = await in_case(keyturn, "d")
        event = await live.next()
        assert event["data"]["workflow_id"] == after
        assert event["data"]["case_id"] == "d"
        assert event["data"]["graph"] == "steps"
        assert event["data"]["seq"] == 1
        assert event["id"] == str(event["data"]["position"])
        async with stream_at(http, "/events?after=0") as whole:
            assert [(await whole.next())["data"]["workflow_id"] for _ in range(2)] == [before, after]
        # The namespace's own chain, where people and keys stand, is no part of it.
        found = await page(http, "/events")
        assert [one["workflow_id"] for one in found["events"]] == [before, after]
        assert found["more"] is False
        one = await page(http, "/events?limit=1")
        assert one["more"] is True
        two = await page(http, f"/events?limit=1&after={one['next_position']}")
        assert [part["events"][0]["workflow_id"] for part in (one, two)] == [before, after]


async def test_who_is_cut_off_before_the_first_event_misses_nothing(edge: Edge, keyturn: Keyturn) -> None:
    """A stream of what comes from now on says at once where it stands."""
    workflow_id = await in_case(keyturn, "c")
    async with edge.http(await edge.key()) as http:
        async with stream_at(http, "/events") as live:
            stands = await live.standing()
        await committed(keyturn, workflow_id, "between")
        async with stream_at(http, "/events", **{"Last-Event-ID": stands}) as live:
            assert (await live.next())["event"] == "between"


async def test_only_some_types_are_given_to_who_asks_for_them(edge: Edge, keyturn: Keyturn) -> None:
    async with keyturn.working(), edge.http(await edge.key()) as http:
        workflow_id = await in_case(keyturn, "c", "governed")
        await keyturn.until(workflow_id, "completed")
        for path in ("/events", "/cases/c/events"):
            found = await page(http, f"{path}?types=workflow-completed,step-finished&after=0")
            kinds = [one["type"] for one in found["events"]]
            assert kinds == ["step-finished"] * 3 + ["workflow-completed"]
            assert found["more"] is False
            async with stream_at(http, f"{path}?types=workflow-completed&after=0") as live:
                assert (await live.next())["event"] == "workflow-completed"
        assert (await http.get("/events?types=A%20B")).status_code == 422
        assert (await http.get("/events?after=x")).status_code == 422
        wrong = await http.get("/events", headers={"Last-Event-ID": "x"})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_input")


async def test_a_case_is_followed_from_its_beginning_and_over_all_its_workflows(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.http(await edge.key()) as http, stream_at(http, "/cases/2024%2F17%20ü/events") as live:
        # Nothing is in this case yet.
        await in_case(keyturn, "another")
        ids = [await in_case(keyturn, "2024/17 ü") for _ in range(3)]
        assert [(await live.next())["data"]["workflow_id"] for _ in range(3)] == ids
        await committed(keyturn, ids[1], "more")
        keyturn.ctx.db.ring("keyturn_events", ids[1])
        event = await live.next()
        assert (event["event"], event["data"]["workflow_id"], event["data"]["seq"]) == ("more", ids[1], 2)
        async with stream_at(http, "/cases/2024%2F17%20ü/events", **{"Last-Event-ID": event["id"]}) as later:
            assert await silent(later, 0.2)
        found = await page(http, "/cases/2024%2F17%20ü/events?limit=3")
        assert [one["workflow_id"] for one in found["events"]] == ids
        rest = await page(http, f"/cases/2024%2F17%20ü/events?after={found['next_position']}")
        assert [one["type"] for one in rest["events"]] == ["more"]


async def test_pages_of_a_case_with_long_workflows_are_whole(edge: Edge, keyturn: Keyturn) -> None:
    ids = [await in_case(keyturn, "c") for _ in range(3)]
    async with keyturn.ctx.db.connection() as conn:
        for number in range(150):
            await append(conn, ids[number * 7 % 3], "noted", number=number, text="x" * (number % 5 * 20_000))
    async with edge.http(await edge.key()) as http:
        for path in ("/events", "/cases/c/events"):
            numbers: list[int] = []
            async with stream_at(http, f"{path}?after=0&types=noted") as live:
                while len(numbers) < 150:
                    numbers.append((await live.next())["data"]["data"]["number"])
            assert numbers == list(range(150))
            numbers, after = [], 0
            while len(numbers) < 150:
                found = await page(http, f"{path}?after={after}&limit=13")
                numbers += [one["data"]["number"] for one in found["events"] if one["type"] == "noted"]
                after = found["next_position"]
            assert numbers == list(range(150))


async def test_an_event_that_was_never_rung_arrives_within_two_seconds(edge: Edge, keyturn: Keyturn) -> None:
    workflow_id = await in_case(keyturn, "c")
    async with edge.http(await edge.key()) as http, stream_at(http, "/cases/c/events") as live:
        await live.next()
        await asyncio.sleep(1.1)
        await committed(keyturn, workflow_id, "unrung")
        assert (await live.next(3.0))["event"] == "unrung"


async def test_a_silent_feed_gives_signs_of_life_that_tell_where_it_stands(keyturn: Keyturn) -> None:
    settings = keyturn.settings.model_copy(update={"keepalive_seconds": 0.05})
    async with (
        served(Keyturn(keyturn.ctx, settings, keyturn.catalog)) as edge,
        edge.http(await edge.key()) as http,
        stream_at(http, "/cases/c/events") as live,
    ):
        assert await live.standing() == "0"
        await in_case(keyturn, "elsewhere")
        reached = (await page(http, "/events"))["next_position"]
        async with asyncio.timeout(5):
            # What concerns others only is passed, too.
            while int(await live.standing()) < reached:
                pass


async def test_a_client_goes_on_at_another_process_and_after_a_restart(keyturn: Keyturn) -> None:
    workflow_id = await in_case(keyturn, "c")
    last, seen = "0", list[str]()
    for number in range(3):
        # Each of these has its own pool and listens for itself, as a process of its own does.
        async with (
            served(keyturn, own_database=True) as edge,
            edge.http(await edge.key()) as http,
            stream_at(http, "/cases/c/events", **{"Last-Event-ID": last}) as live,
        ):
            if number == 0:
                seen.append((await live.next())["event"])
            await committed(keyturn, workflow_id, f"at-{number}")
            keyturn.ctx.db.ring("keyturn_events", workflow_id)
            event = await live.next()
            seen.append(event["event"])
            last = event["id"]
            await committed(keyturn, workflow_id, f"behind-{number}")
            keyturn.ctx.db.ring("keyturn_events", workflow_id)
            event = await live.next()
            seen.append(event["event"])
            last = event["id"]
    assert seen == ["workflow-submitted", "at-0", "behind-0", "at-1", "behind-1", "at-2", "behind-2"]


async def test_feeds_hold_no_pooled_connection(keyturn: Keyturn) -> None:
    settings = keyturn.settings.model_copy(update={"pool_min": 1, "pool_max": 2})
    small = Keyturn(keyturn.ctx, settings, keyturn.catalog)
    async with served(small, own_database=True) as edge, edge.http(await edge.key()) as http:
        workflow_id = await in_case(keyturn, "c")
        async with contextlib.AsyncExitStack() as stack:
            paths = ["/events?after=0", "/cases/c/events", f"/workflows/{workflow_id}/events"] * 20
            streams = [await stack.enter_async_context(stream_at(http, path)) for path in paths]
            for live in streams:
                assert (await live.next())["event"] == "workflow-submitted"
            for _ in range(10):
                assert (await http.get(f"/workflows/{workflow_id}")).status_code == 200
            # Also while nobody can say how far events are complete.
            async with writing(keyturn, workflow_id, "noted") as slow:
                for _ in range(10):
                    assert (await http.get(f"/workflows/{workflow_id}")).status_code == 200
                await slow.commit()
            for live in streams:
                assert (await live.next())["event"] == "noted"


async def test_a_revoked_key_and_a_server_that_stops_end_feeds(keyturn: Keyturn) -> None:
    settings = keyturn.settings.model_copy(update={"keepalive_seconds": 0.1})
    async with contextlib.AsyncExitStack() as stack:
        edge = await stack.enter_async_context(served(Keyturn(keyturn.ctx, settings, keyturn.catalog)))
        admin = await stack.enter_async_context(edge.http(await edge.key()))
        key = await edge.key("tom", ("read",))
        tom = await stack.enter_async_context(edge.http(key))
        his = await stack.enter_async_context(stream_at(tom, "/events"))
        hers = await stack.enter_async_context(stream_at(admin, "/events"))
        await admin.delete(f"/keys/{key.split('_')[1]}")
        assert await his.rest(seconds=5) == []
        began = time.monotonic()
        edge.stop.set()
        assert await hers.rest() == []
        assert time.monotonic() - began < 2.0
        submitter = await edge.key("tom", ("submit",))
        async with served(keyturn) as again, again.http(submitter) as http:
            assert (await http.get("/events")).status_code == 403


async def test_a_thread_is_followed_over_all_its_runs(database_url: str) -> None:
    async with running(database_url, app=APPS / "talking.json") as talking:
        ctx, me = talking.ctx, talking.me
        thread, other = [await threads.create(ctx, me, kind="thread") for _ in range(2)]

        async def run(on: Thread, text: str) -> str:
            values: dict[str, object] = {"messages": [{"role": "user", "content": text}]}
            return (await threads.begin(ctx, me, on, graph="remembering", input=values)).workflow_id

        async with talking.working(), served(talking) as edge:
            parts, key = edge.app.state.parts, await edge.key()
            following = Feeding(parts, me, key, OfThread(thread.thread_key), ["workflow-submitted"])
            batches = following.batches(0)
            runs: list[str] = []
            for text in ("one", "two"):
                runs.append(await run(thread, text))
                await run(other, text)
                batch = await asyncio.wait_for(anext(batches), 10)
                assert batch is not None
                assert [one.workflow_id for one in batch.events] == runs[-1:]
                await talking.until(runs[-1], "completed")
                await talking.until((await threads.find(ctx, me, other.thread_id)).workflow_id or "", "completed")
            await batches.aclose()
