"""What somebody with a key of their own may try through the LangGraph API, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from orchestrator.service import threads
from tests.harness import APPS, caller, running
from tests.web.test_langgraph_api import GATE, People, people, problem, resume, waits

SIZE_OF_A_BOMB = 50_000


@pytest.fixture
async def at(database_url: str) -> AsyncIterator[People]:
    async with running(database_url, app=APPS / "dialects.json") as keyturn, people(keyturn) as found:
        yield found


async def test_a_session_is_put_away_and_described_by_nobody_but_its_owner(at: People) -> None:
    ctx = at.edge.keyturn.ctx
    made = await threads.create(ctx, caller("rita"), kind="session", graph="anything", metadata={"mine": True})
    key = await at.edge.key("tom", ("submit", "read", "decide"))
    async with at.edge.http(key) as http:
        for verb, body in (("DELETE", None), ("PATCH", {"metadata": {"mine": False}})):
            refused = await http.request(verb, f"/threads/{made.thread_id}", json=body)
            assert (refused.status_code, refused.json()["code"]) == (403, "not_owner")
    assert (await threads.find(ctx, caller("rita"), made.thread_id)).ended_at is None
    assert (await at.rita.threads.get(made.thread_id))["metadata"]["mine"] is True


async def test_no_thread_takes_the_name_of_a_workflow(at: People) -> None:
    keyturn = at.edge.keyturn
    workflow_id = await keyturn.submit("anything", payload=GATE)
    await keyturn.asked(workflow_id)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await at.tom.threads.create(thread_id=workflow_id)
    assert problem(refused) == (409, "thread_exists")
    kept = await at.tom.threads.create(thread_id=workflow_id, if_exists="do_nothing")
    assert kept["status"] == "interrupted"
    assert (await resume(at.tara, workflow_id, value=True))["answers"][0]["approved"] is True


async def test_a_threads_id_may_be_in_any_script(at: People) -> None:
    for thread_id in ("会话", "café", 'a"b c'):
        await at.rita.threads.create(thread_id=thread_id)
        values: Any = await at.rita.runs.wait(thread_id, "anything", input={"payload": GATE})
        assert values["__interrupt__"]
        (run,) = await at.rita.runs.list(thread_id)
        parts = [part.event async for part in at.rita.runs.join_stream(thread_id, run["run_id"])]
        assert parts[-1] == "end"


async def test_no_thread_is_made_that_no_address_leads_to(at: People) -> None:
    for thread_id in ("a/b", "..", "."):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await at.rita.threads.create(thread_id=thread_id)
        assert problem(refused) == (422, "invalid_input")


async def test_ignoring_says_which_state_was_seen(at: People) -> None:
    thread_id, _ = await waits(at, GATE)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await at.tara.threads.update_state(thread_id, None, as_node="__end__", checkpoint_id="1f0")
    assert problem(refused) == (422, "unsupported")
    assert (await at.rita.threads.get(thread_id))["status"] == "interrupted"


async def test_a_deleted_thread_is_not_shown_to_whoever_makes_it_again(at: People) -> None:
    await at.rita.threads.create(thread_id="gone", metadata={"team": "blue"})
    await at.rita.threads.delete("gone")
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await at.tom.threads.create(thread_id="gone", if_exists="do_nothing")
    assert problem(refused) == (410, "thread_ended")


async def test_nothing_that_can_be_sent_is_a_fault_of_the_server(at: People) -> None:
    thread_id, _ = await waits(at, GATE)
    (run,) = await at.rita.runs.list(thread_id)
    runs = f"/threads/{thread_id}/runs"
    bombs = ("[" * SIZE_OF_A_BOMB, '[["values"]]', "[1]", "[]", "[" + "9" * 5000 + "]")
    resumed = (None, 0, [], {}, "", [[]], {"": 1}, {"a": {"b": []}}, {"decisions": None}, {"answer": 1}, 1.5)
    begun = [{"stream_mode": bomb, "command": {"resume": 1}} for bomb in bombs]
    begun += [{"command": {"resume": one}} for one in resumed]
    metadata = ({"a": "\0"}, {"\ud800": 1}, {"n": 2**70}, {"x": [[[]]]}, {"a": None}, {"$.a": "' OR 1=1 --"})
    pointed = ({"checkpoint_id": 1}, {"configurable": []}, {"configurable": {"checkpoint_id": "a" * 9999}})
    posted = [(f"{runs}/stream", {"assistant_id": "anything", **one}) for one in begun]
    found_by = ("/threads/search", "/threads/count", "/threads", "/assistants/search")
    posted += [(path, {"metadata": one}) for one in metadata for path in found_by]
    posted += [(f"/threads/{thread_id}/history", {"before": one}) for one in pointed]
    posted += [(f"/threads/{thread_id}/state/checkpoint", {"checkpoint": one}) for one in pointed]
    names = ("%00", "%ff", "%ed%a0%80", "a" * 3000, "..%2f", "%0d%0aX: y")
    read = [f"{before}{name}" for before in ("/threads/", f"/threads/{thread_id}/state/", f"{runs}/") for name in names]
    read += [f"/threads/{thread_id}/history?before={name}" for name in names]
    read += [f"{runs}/{run['run_id']}/stream?stream_mode={bomb[:5000]}" for bomb in bombs]
    ids = ("9" * 19, "9" * 20, "-2", "x", "1e3", "-1", "0")
    async with at.edge.http(at.keys["tara"]) as http:
        json_too = {"Content-Type": "application/json"}
        sent = [await http.post(path, content=json.dumps(body), headers=json_too) for path, body in posted]
        sent += [await http.get(path) for path in read]
        followed = f"{runs}/{run['run_id']}/stream"
        sent += [await http.get(followed, headers={"Last-Event-ID": one}) for one in ids]
    wrong = [(str(one.url)[:90], one.status_code, one.text[:200]) for one in sent if one.status_code >= 500]
    assert wrong == []
    assert (await at.rita.threads.get(thread_id))["status"] == "interrupted"


async def test_the_metadata_of_a_run_is_shown_without_its_secrets(at: People) -> None:
    thread = await at.rita.threads.create()
    run = await at.rita.runs.create(
        thread["thread_id"], "anything", input={"payload": 1}, metadata={"api_key": "canary-1", "team": "blue"}
    )
    listed = await at.rita.runs.list(thread["thread_id"])
    assert "canary-1" not in str([run, listed])
    assert listed[0]["metadata"]["team"] == "blue"


async def test_threads_are_counted_by_their_ids_as_they_are_found(at: People) -> None:
    made = [(await at.rita.threads.create())["thread_id"] for _ in range(3)]
    async with at.edge.http(at.keys["rita"]) as http:
        counted = await http.post("/threads/count", json={"ids": made[:2]})
        assert counted.json() == 2


async def test_only_what_a_client_was_really_given_counts_as_seen(at: People) -> None:
    thread_id, (asked,) = await waits(at, {"messages": [{"role": "user", "content": "clean up"}]}, "two_turns")
    yes = {"resume": {"decisions": [{"type": "approve"}]}}
    first = (await at.tara.threads.get_state(thread_id))["checkpoint"]["checkpoint_id"]
    # A click; what it is shown of the run holds nothing of the second request.
    parts = [
        part.event async for part in at.tara.runs.stream(thread_id, "two_turns", command=yes, stream_mode="events")
    ]
    assert parts[-1] == "end"
    run_id = (await at.rita.runs.list(thread_id))[0]["run_id"]
    async with at.edge.http(at.keys["tara"]) as http:
        looked = (
            await http.get(f"/threads/{thread_id}/state/{first}"),
            await http.post("/threads/search", json={"select": ["thread_id"], "status": "interrupted"}),
            await http.get(f"/threads/{thread_id}/runs/{run_id}/stream", params={"stream_mode": "messages"}),
        )
        for one in looked:
            assert one.status_code == 200
            assert 'interrupts":[{' not in one.text
        # The same click again.
        again = await http.post(f"/threads/{thread_id}/runs", json={"assistant_id": "two_turns", "command": yes})
        assert (again.status_code, again.json()["code"]) == (409, "already_resolved")
        shown = await http.get(f"/threads/{thread_id}/state")
        (second,) = shown.json()["interrupts"]
        assert second["id"] != asked["id"]
        again = await http.post(f"/threads/{thread_id}/runs", json={"assistant_id": "two_turns", "command": yes})
        assert again.status_code == 201


async def test_a_key_does_what_its_permissions_say_and_is_shown_no_more(at: People) -> None:
    thread_id, (asked,) = await waits(at, GATE)
    await at.rita.threads.update(thread_id, metadata={"team": "blue"})
    run = {"assistant_id": "anything"}
    answer = {**run, "command": {"resume": {asked["id"]: {"approved": True}}}}
    begin = {**run, "input": {"payload": GATE}}
    base = f"/threads/{thread_id}"
    refused: dict[str, list[tuple[str, str, Any]]] = {
        "read": [
            ("POST", "/threads", {}), ("PATCH", base, {}), ("DELETE", base, None), ("POST", f"{base}/copy", None),
            ("POST", f"{base}/runs", answer), ("POST", "/runs", begin), ("POST", f"{base}/runs", begin),
            ("POST", f"{base}/state", {"values": None, "as_node": "__end__"}),
        ],
        "submit": [
            ("GET", base, None), ("POST", "/threads/search", {}), ("GET", f"{base}/history", None),
            ("POST", f"{base}/copy", None), ("POST", f"{base}/runs/wait", answer), ("GET", f"{base}/runs", None),
            ("GET", "/info", None), ("POST", "/threads/count", {}), ("POST", f"{base}/runs/stream", answer),
        ],
        "decide": [
            ("GET", base, None), ("POST", f"{base}/runs", begin), ("POST", "/threads", {}), ("POST", "/runs", begin),
            ("POST", "/threads/new/runs", {**begin, "if_not_exists": "create"}), ("PATCH", base, {}),
        ],
    }  # fmt: skip
    for permission, calls in refused.items():
        async with at.edge.http(await at.edge.key("tara", (permission,))) as http:
            for verb, path, body in calls:
                found = await http.request(verb, path, json=body)
                assert found.status_code == 403, (permission, verb, path, found.text)
    async with at.edge.http(await at.edge.key("tom", ("submit",))) as http:
        for verb, path, body in (
            ("POST", "/threads", {"thread_id": thread_id, "if_exists": "do_nothing"}),
            ("PATCH", base, {"metadata": {"seen": False}}),
        ):
            found = await http.request(verb, path, json=body)
            assert (found.status_code, found.json()["values"], found.json()["interrupts"]) == (200, {}, {})
            assert "blue" not in found.text
    async with at.edge.http(await at.edge.key("tara", ("decide",))) as http:
        found = await http.post(f"{base}/runs/wait", json=answer)
        assert (found.status_code, found.json()) == (200, {})
    assert (await at.rita.threads.get(thread_id))["status"] == "idle"
