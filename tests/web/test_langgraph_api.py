"""The LangGraph API as its public Python client speaks it, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from orchestrator.service import identity, policies
from orchestrator.wire import PersonRequest, PolicyText
from tests.harness import APPS, Keyturn, caller, running
from tests.web.edge import Edge, served

AGENT = {"messages": [{"role": "user", "content": "clean up"}]}
DEPLOY = {"operation": "deploy", "environment": "production", "target": "shop"}
GATE = {"type": "approval", "action": DEPLOY}


class People:
    """Everybody with a client of their own, on one server with a worker."""

    def __init__(self, edge: Edge, clients: dict[str, LangGraphClient], keys: dict[str, str]) -> None:
        self.edge = edge
        self.keys = keys
        self._clients = clients

    def __getattr__(self, name: str) -> Any:
        return self._clients[name]


@contextlib.asynccontextmanager
async def people(keyturn: Keyturn) -> AsyncGenerator[People]:
    async with served(keyturn) as edge, keyturn.working(), contextlib.AsyncExitStack() as stack:
        keys = {name: await edge.key(name) for name in ("rita", "tom", "tara", "theo", "cleo")}
        clients = {
            name: await stack.enter_async_context(get_client(url=edge.url, api_key=key)) for name, key in keys.items()
        }
        yield People(edge, clients, keys)


@pytest.fixture
async def dialects(database_url: str) -> AsyncIterator[People]:
    async with running(database_url, app=APPS / "dialects.json") as keyturn, people(keyturn) as found:
        yield found


@pytest.fixture
async def talking(database_url: str) -> AsyncIterator[People]:
    async with running(database_url, app=APPS / "talking.json") as keyturn, people(keyturn) as found:
        yield found


def problem(refused: pytest.ExceptionInfo[httpx.HTTPStatusError]) -> tuple[int, str]:
    return refused.value.response.status_code, refused.value.response.json()["code"]


async def waits(at: People, payload: Any, graph: str = "anything") -> tuple[str, list[dict[str, Any]]]:
    thread = await at.rita.threads.create()
    body = {"payload": payload} if graph == "anything" else payload
    values: Any = await at.rita.runs.wait(thread["thread_id"], graph, input=body)
    return thread["thread_id"], values["__interrupt__"]


async def resume(client: LangGraphClient, thread_id: str, value: Any, graph: str = "anything") -> Any:
    return await client.runs.wait(thread_id, graph, command={"resume": value})


async def test_an_agents_thread_from_its_first_input_to_its_last_word(dialects: People) -> None:
    thread_id, asked = await waits(dialects, AGENT, "batched")
    (one,) = asked
    assert [request["name"] for request in one["value"]["action_requests"]] == ["delete_rows", "send_mail", "ask_user"]
    thread = await dialects.rita.threads.get(thread_id)
    assert thread["status"] == "interrupted"
    assert [[each["id"] for each in ones] for ones in thread["interrupts"].values()] == [[one["id"]]]
    assert thread["metadata"]["graph_id"] == "batched"
    state = await dialects.rita.threads.get_state(thread_id)
    assert state["tasks"][-1]["interrupts"][-1]["value"] == one["value"]
    decisions = [{"type": "approve"}, {"type": "reject", "message": "no"}, {"type": "respond", "message": "sure"}]
    values = await resume(dialects.tara, thread_id, {"decisions": decisions}, "batched")
    assert "__interrupt__" not in values
    assert values["messages"][-1]["content"] == "done"
    assert (await dialects.rita.threads.get(thread_id))["status"] == "idle"
    listed = await dialects.rita.runs.list(thread_id)
    assert [run["status"] for run in listed] == ["success", "interrupted"]


async def test_a_thread_remembers_over_its_runs(talking: People) -> None:
    thread = await talking.rita.threads.create(thread_id="mine", metadata={"team": "blue"})
    for said, heard in (("hello", "1 after hello: hello"), ("again", "2 after hello: again")):
        values: Any = await talking.rita.runs.wait(
            thread["thread_id"], "remembering", input={"messages": [{"type": "human", "content": said}]}
        )
        assert values["messages"][-1]["content"] == heard
    history = await talking.rita.threads.get_history("mine", limit=50)
    assert history[0]["values"]["runs"] == 2
    older = await talking.rita.threads.get_state("mine", checkpoint=history[-1]["checkpoint"])
    assert older["checkpoint"]["checkpoint_id"] == history[-1]["checkpoint"]["checkpoint_id"]
    before = await talking.rita.threads.get_history("mine", before=history[0]["checkpoint"])
    assert [one["checkpoint"] for one in before] == [one["checkpoint"] for one in history[1:]]


async def test_every_dialect_is_resumed_through_the_client(dialects: People) -> None:
    inbox = {"action_request": {"action": "send", "args": {"to": "ann"}}, "config": {"allow_accept": True}}
    call = {"type": "tool_approval", "tool_call_id": "1", "name": "send", "args": {}, "description": ""}
    for payload, answer, heard in (
        (GATE, {"approved": True, "note": "fine"}, "approved"),
        (GATE, True, "approved"),
        ({"type": "question", "prompt": "Which?", "options": ["a", "b"]}, "a", "answer"),
        ({"action_requests": [{"name": "send", "args": {}}]}, {"decisions": [{"type": "approve"}]}, "decisions"),
        (call, {"type": "approve"}, "type"),
        ({"free": "form"}, {"any": "thing"}, "any"),
    ):
        thread_id, (asked,) = await waits(dialects, payload)
        values = await resume(dialects.tara, thread_id, {asked["id"]: answer})
        assert heard in values["answers"][0], payload
    thread_id, _ = await waits(dialects, [inbox])
    values = await resume(dialects.tara, thread_id, [{"type": "accept", "args": None}])
    assert values["answers"] == [[{"type": "accept", "args": None}]]


@pytest.mark.parametrize("names", [("tara", "theo", "tom", "cleo"), ("tara",) * 4])
@pytest.mark.parametrize("named", [True, False])
async def test_of_four_racing_resumes_one_counts_and_the_others_learn_whose(
    dialects: People, names: tuple[str, ...], named: bool
) -> None:
    cleo = PersonRequest(person="cleo", roles=["team_lead"])
    await identity.put_person(dialects.edge.keyturn.ctx, caller("root"), cleo)
    thread_id, (asked,) = await waits(dialects, GATE)
    together = asyncio.Barrier(len(names))

    async def one(name: str) -> Any:
        await together.wait()
        return await resume(getattr(dialects, name), thread_id, {asked["id"]: True} if named else True)

    outcomes = await asyncio.gather(*(one(name) for name in names), return_exceptions=True)
    (won,) = [one for one in outcomes if isinstance(one, dict)]
    lost = [one for one in outcomes if isinstance(one, httpx.HTTPStatusError)]
    assert len(lost) == 3
    (by,) = won["answers"][0]["by"]
    for refused in lost:
        body = refused.response.json()
        assert (refused.response.status_code, body["code"], body["resolved_by"]) == (409, "already_resolved", by)
        assert by in str(refused.__notes__)
    trail = await dialects.edge.keyturn.types((await dialects.rita.runs.list(thread_id))[0]["metadata"]["workflow_id"])
    assert (trail.count("confirmation-resolved"), trail.count("workflow-completed")) == (1, 1)
    with pytest.raises(httpx.HTTPStatusError) as again:
        await resume(getattr(dialects, by), thread_id, value=True)
    assert problem(again) == (409, "already_resolved")


async def test_an_unknown_id_answers_nothing_and_a_wrong_answer_leaves_room_for_a_right_one(dialects: People) -> None:
    payload = {"type": "question", "prompt": "Which?", "options": ["a", "b"]}
    thread_id, (asked,) = await waits(dialects, payload)
    other_id, (other,) = await waits(dialects, payload)
    for wrong, expected in (
        ({"0" * 32: "a"}, (404, "unknown_interrupt")),
        ({other["id"]: "a"}, (404, "unknown_interrupt")),
        ({asked["id"]: "a", other["id"]: "a"}, (404, "unknown_interrupt")),
        ("c", (422, "invalid_answer")),
        ({asked["id"]: {"answer": 3}}, (422, "invalid_answer")),
    ):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await resume(dialects.tara, thread_id, wrong)
        assert problem(refused) == expected, wrong
    assert (await dialects.rita.threads.get(other_id))["status"] == "interrupted"
    assert (await dialects.rita.threads.get(thread_id))["status"] == "interrupted"
    assert (await resume(dialects.tara, thread_id, {asked["id"]: "b"}))["answers"][0]["answer"] == "b"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"command": {"goto": "__end__"}}, "unsupported"),
    ({"command": {"update": {"answers": []}}}, "unsupported"),
    ({"command": {"resume": True, "goto": "ask"}}, "unsupported"),
    ({"command": {}, "input": {"payload": 1}}, "thread_busy"),
    ({"input": {"payload": 1}}, "thread_busy"),
    ({"input": {"payload": 1}, "command": {"resume": True}}, "invalid_input"),
    ({"input": "text"}, "invalid_input"),
    ({"command": {"resume": True}, "checkpoint_id": "1f0"}, "unsupported"),
    ({"command": {"resume": True}, "checkpoint": {"checkpoint_ns": "", "checkpoint_id": "1f0"}}, "unsupported"),
    ({"command": {"resume": True}, "interrupt_before": ["ask"]}, "unsupported"),
    ({"command": {"resume": True}, "interrupt_after": "*"}, "unsupported"),
    ({"command": {"resume": True}, "config": {"configurable": {"thread_id": "x"}}}, "unsupported"),
    ({"command": {"resume": True}, "context": {"who": "me"}}, "unsupported"),
    ({"command": {"resume": True}, "stream_mode": ["debug"]}, "unsupported"),
    ({"command": {"resume": True}, "webhook": "https://example.org"}, "unsupported"),
]


async def test_what_would_pass_by_a_person_is_refused_and_what_waits_still_waits(dialects: People) -> None:
    thread_id, (asked,) = await waits(dialects, GATE)
    async with dialects.edge.http(dialects.keys["tara"]) as http:
        for body, code in REFUSED:
            for end in ("", "/wait", "/stream"):
                found = await http.post(f"/threads/{thread_id}/runs{end}", json={"assistant_id": "anything", **body})
                if end == "/wait" and "stream_mode" in body:
                    continue
                assert 400 <= found.status_code < 500, (body, found.text)
                assert found.json()["code"] == code, (body, found.text)
                assert found.json()["detail"]
        found = await http.post(f"/threads/{thread_id}/state", json={"values": {"answers": []}, "as_node": "ask"})
        assert (found.status_code, found.json()["code"]) == (422, "unsupported")
        busy = await http.post(f"/threads/{thread_id}/runs", json={"assistant_id": "anything", "input": {}})
        assert busy.json()["workflow_status"] == "waiting"
    thread = await dialects.rita.threads.get(thread_id)
    assert thread["status"] == "interrupted"
    # What clients send along by themselves does no harm, if it names what is now.
    head = (await dialects.tara.threads.get_state(thread_id))["checkpoint"]
    values: Any = await dialects.tara.runs.wait(
        thread_id, "anything", input={}, command={"resume": {asked["id"]: True}}, checkpoint=head, config={},
        multitask_strategy="interrupt", durability="async", on_disconnect="cancel",
    )  # fmt: skip
    assert values["answers"][0]["approved"] is True


async def test_a_resume_short_of_its_quorum_is_recorded_and_says_who_is_missing(dialects: People) -> None:
    text = "policies:\n  - {name: two, match: action.operation == 'deploy', stages: [[{role: team_lead, count: 2}]]}"
    await policies.publish(dialects.edge.keyturn.ctx, caller("root"), PolicyText(text=text))
    thread_id, (asked,) = await waits(dialects, GATE)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await resume(dialects.tom, thread_id, {asked["id"]: True})
    body = refused.value.response.json()
    assert (refused.value.response.status_code, body["code"]) == (409, "more_approvals_needed")
    assert body["approvals"][0]["can_decide"] == ["tara"]
    assert "recorded" in body["detail"]
    with pytest.raises(httpx.HTTPStatusError) as mine:
        await resume(dialects.rita, thread_id, {asked["id"]: True})
    assert problem(mine) == (403, "self_approval")
    values = await resume(dialects.tara, thread_id, {asked["id"]: True})
    assert sorted(values["answers"][0]["by"]) == ["tara", "tom"]


async def test_ignoring_a_thread_withdraws_or_rejects_what_it_asks(dialects: People) -> None:
    for client, expected in ((dialects.rita, "cancelled"), (dialects.tara, "rejected")):
        thread_id, _ = await waits(dialects, GATE)
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await dialects.cleo.threads.update_state(thread_id, None, as_node="__end__")
        assert problem(refused) == (403, "not_eligible")
        await client.threads.update_state(thread_id, None, as_node="__end__")
        (run,) = await dialects.rita.runs.list(thread_id)
        assert (await dialects.edge.keyturn.get(run["metadata"]["workflow_id"])).status == expected
        assert (await dialects.rita.threads.get(thread_id))["interrupts"] == {}
        with pytest.raises(httpx.HTTPStatusError) as again:
            await client.threads.update_state(thread_id, None, as_node="__end__")
        assert problem(again) == (409, "nothing_pending")


async def test_a_rejection_ends_its_own_run_well_and_fails_for_whoever_waits(dialects: People) -> None:
    thread_id, (asked,) = await waits(dialects, GATE)
    await resume(dialects.tara, thread_id, {asked["id"]: {"approved": False, "note": "not now"}})
    (last, _first) = await dialects.rita.runs.list(thread_id)
    assert last["status"] == "error"
    values: Any = await dialects.rita.runs.join(thread_id, last["run_id"])
    assert values["__error__"]["error"] == "rejected"
    assert "not now" in values["__error__"]["message"]


async def test_threads_are_found_counted_described_copied_and_put_away(dialects: People, talking: People) -> None:
    waiting, _ = await waits(dialects, GATE)
    plain = await dialects.edge.keyturn.submit("anything", payload=GATE)
    await dialects.edge.keyturn.until(plain, "waiting")
    mine = await dialects.rita.threads.create(metadata={"team": "blue", "n": 1}, graph_id="batched")
    search = dialects.rita.threads.search
    assert {one["thread_id"] for one in await search(status="interrupted")} == {waiting, plain}
    (found,) = await search(ids=[plain])
    assert (found["status"], next(iter(found["interrupts"].values()))[0]["value"]["type"]) == (
        "interrupted",
        "approval",
    )
    assert [one["thread_id"] for one in await search(metadata={"team": "blue"})] == [mine["thread_id"]]
    assert await search(metadata={"team": "red"}) == []
    assert [one["thread_id"] for one in await search(metadata={"graph_id": "batched"})] == [mine["thread_id"]]
    (assistant,) = await dialects.rita.assistants.search(graph_id="anything")
    named = await search(metadata={"assistant_id": assistant["assistant_id"]}, status="interrupted")
    assert {one["thread_id"] for one in named} == {waiting, plain}
    everything = [one["thread_id"] for one in await search()]
    assert everything == [mine["thread_id"], plain, waiting]
    for sort in ("created_at", "updated_at", "thread_id", "status"):
        up = [one["thread_id"] for one in await search(sort_by=sort, sort_order="asc")]
        down = [one["thread_id"] for one in await search(sort_by=sort, sort_order="desc")]
        assert sorted(up) == sorted(down) == sorted(everything)
        assert sort == "status" or up == down[::-1]
    assert [one["thread_id"] for one in await search(limit=1, offset=1)] == [plain]
    count = dialects.rita.threads.count
    assert [await count(), await count(status="interrupted"), await count(metadata={"team": "blue"})] == [3, 2, 1]
    assert [list(one) for one in await search(select=["thread_id"], limit=1)] == [["thread_id"]]
    await dialects.rita.threads.update(mine["thread_id"], metadata={"n": 2})
    assert (await dialects.rita.threads.get(mine["thread_id"]))["metadata"]["n"] == 2
    copied: Any = await dialects.rita.threads.copy(waiting)
    assert (copied["status"], copied["interrupts"], copied["values"]) == ("idle", {}, found["values"])
    with pytest.raises(httpx.HTTPStatusError) as nothing:
        await resume(dialects.tara, copied["thread_id"], value=True)
    assert problem(nothing) == (409, "nothing_pending")
    for busy in (waiting, plain):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await dialects.rita.threads.delete(busy)
        assert problem(refused) == (409, "thread_busy")
    await dialects.rita.threads.delete(mine["thread_id"])
    with pytest.raises(httpx.HTTPStatusError) as gone:
        await dialects.rita.threads.get(mine["thread_id"])
    assert problem(gone) == (404, "not_found")
    assert await count() == 3


async def test_a_copied_thread_goes_on_from_where_the_other_one_was(talking: People) -> None:
    await talking.rita.threads.create(thread_id="one")
    said = {"messages": [{"type": "human", "content": "hello"}]}
    await talking.rita.runs.wait("one", "remembering", input=said)
    copied: Any = await talking.rita.threads.copy("one")
    again: Any = await talking.rita.runs.wait(copied["thread_id"], "remembering", input=said)
    assert again["messages"][-1]["content"] == "2 after hello: hello"
    assert (await talking.rita.threads.get("one"))["values"]["runs"] == 1


async def test_a_stream_tells_the_steps_the_words_and_the_values_and_its_end(talking: People) -> None:
    await talking.rita.threads.create(thread_id="t")
    begun: list[Any] = []
    said = {"messages": [{"type": "human", "content": "go"}]}
    modes: Any = ["values", "updates", "messages-tuple", "messages"]
    run = talking.rita.runs.stream("t", "speaking", input=said, stream_mode=modes, on_run_created=begun.append)
    seen = [part async for part in run]
    assert (seen[0].event, seen[-1].event) == ("metadata", "end")
    assert seen[0].data["run_id"] == begun[0]["run_id"] == (await talking.rita.runs.list("t"))[0]["run_id"]
    assert [part.data for part in seen if part.event == "updates"] == [{"route": None}, {"speak": None}]
    chunks = [part.data for part in seen if part.event == "messages"]
    assert "".join(chunk["content"] for chunk, _ in chunks) == "one two three"
    assert {meta["langgraph_node"] for _, meta in chunks} == {"speak"}
    (whole,) = [part.data for part in seen if part.event == "messages/complete"]
    assert whole[0]["content"] == "one two three"
    assert [part for part in seen if part.event == "values"][-1].data["messages"][-1]["content"] == "one two three"


async def test_whoever_joins_behind_an_event_gets_the_rest_and_no_more(talking: People) -> None:
    await talking.rita.threads.create(thread_id="t")
    said = {"messages": [{"type": "human", "content": "go"}]}
    modes: Any = ["updates", "messages-tuple", "values"]
    seen = [part async for part in talking.rita.runs.stream("t", "speaking", input=said, stream_mode=modes)]
    run_id = seen[0].data["run_id"]

    def told(parts: list[Any]) -> list[Any]:
        return [(part.event, part.data) for part in parts if part.event in {"updates", "messages"}]

    whole = [part async for part in talking.rita.runs.join_stream("t", run_id, last_event_id="-1")]
    assert told(whole) == told(seen)
    numbered = [nth for nth, part in enumerate(whole) if part.id and part.event in {"updates", "messages"}]
    for cut in numbered:
        rest = [part async for part in talking.rita.runs.join_stream("t", run_id, last_event_id=whole[cut].id)]
        assert told(rest) == told(whole[cut + 1 :])
        assert rest[-1].event == "end"
    joined: Any = await talking.rita.runs.join("t", run_id)
    assert joined["messages"][-1]["content"] == "one two three"


async def test_a_stream_that_pauses_says_what_it_asks_and_each_run_keeps_its_part(dialects: People) -> None:
    thread = await dialects.rita.threads.create()
    run = dialects.rita.runs.stream(
        thread["thread_id"], "anything", input={"payload": GATE}, stream_mode=["updates", "values"]
    )
    seen = [part async for part in run]
    asked = [part.data["__interrupt__"] for part in seen if "__interrupt__" in (part.data or {})]
    assert [part.event for part in seen][-3:] == ["updates", "values", "end"]
    answer = dialects.tara.runs.stream(
        thread["thread_id"], "anything", command={"resume": {asked[0][0]["id"]: True}}, stream_mode="updates"
    )
    rest = [part async for part in answer]
    assert [part.data for part in rest if part.event == "updates"] == [{"ask": None}]
    first = seen[0].data["run_id"]
    again = [part async for part in dialects.rita.runs.join_stream(thread["thread_id"], first, last_event_id="-1")]
    assert [part.data for part in again if part.event == "updates" and "ask" in part.data] == []
    assert again[-1].event == "end"


async def test_a_run_that_fails_ends_in_an_error_that_says_why(talking: People) -> None:
    await talking.rita.threads.create(thread_id="t")
    said = {"messages": [{"type": "human", "content": "fail"}]}
    seen = [part async for part in talking.rita.runs.stream("t", "remembering", input=said)]
    assert (seen[-1].event, seen[-1].data["error"]) == ("error", "node_error")
    assert "asked to fail" in seen[-1].data["message"]
    assert (await talking.rita.threads.get("t"))["status"] == "error"
    with pytest.raises(Exception, match=r"node_error: .*asked to fail"):
        await talking.rita.runs.wait("t", "remembering", input=said)


async def test_a_run_is_cancelled_while_it_waits_and_its_trail_stays(dialects: People) -> None:
    thread_id, _ = await waits(dialects, GATE)
    (run,) = await dialects.rita.runs.list(thread_id)
    with pytest.raises(httpx.HTTPStatusError) as rollback:
        await dialects.rita.runs.cancel(thread_id, run["run_id"], action="rollback")
    assert problem(rollback) == (422, "unsupported")
    with pytest.raises(httpx.HTTPStatusError) as deleted:
        await dialects.rita.runs.delete(thread_id, run["run_id"])
    assert problem(deleted) == (422, "unsupported")
    await dialects.rita.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await dialects.rita.runs.get(thread_id, run["run_id"]))["status"] == "interrupted"
    assert (await dialects.rita.threads.get(thread_id))["status"] == "idle"
    with pytest.raises(httpx.HTTPStatusError) as again:
        await dialects.rita.runs.cancel(thread_id, run["run_id"])
    assert problem(again) == (409, "conflict")


async def test_a_run_without_a_thread_gets_one(dialects: People) -> None:
    begun: list[Any] = []
    values: Any = await dialects.rita.runs.wait(
        None, "anything", input={"payload": {"type": "question", "prompt": "Well?"}}, on_run_created=begun.append
    )
    (asked,) = values["__interrupt__"]
    done = await resume(dialects.tara, begun[0]["thread_id"], {asked["id"]: "yes"})
    assert done["answers"][0]["answer"] == "yes"
    run = await dialects.rita.runs.create(None, "anything", input={"payload": "x"})
    assert run["status"] in ("pending", "running")
    parts = [part async for part in dialects.rita.runs.stream(None, "anything", input={"payload": "x"})]
    assert parts[-1].event == "end"


async def test_the_assistants_are_the_graphs_on_offer(dialects: People) -> None:
    found = await dialects.rita.assistants.search()
    assert "batched" in [one["graph_id"] for one in found]
    one = await dialects.rita.assistants.get("batched")
    assert one == await dialects.rita.assistants.get(one["assistant_id"])
    assert (await dialects.rita.assistants.get_schemas("batched"))["input_schema"]
    drawn = await dialects.rita.assistants.get_graph("batched")
    assert {edge["source"] for edge in drawn["edges"]} <= {node["id"] for node in drawn["nodes"]}
    assert await dialects.rita.assistants.count() == len(found)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await dialects.rita.runs.wait(None, "nothing", input={})
    assert problem(refused) == (404, "not_found")


async def test_another_namespace_sees_nothing_of_a_thread(dialects: People) -> None:
    thread_id, (asked,) = await waits(dialects, GATE)
    run = (await dialects.rita.runs.list(thread_id))[0]["run_id"]
    stranger = await dialects.edge.key("eve", namespace="elsewhere")
    paths = [
        ("GET", ""), ("GET", "/state"), ("GET", "/history"), ("POST", "/history"), ("GET", "/runs"), ("POST", "/copy"),
        ("GET", f"/runs/{run}"), ("GET", f"/runs/{run}/join"), ("GET", f"/runs/{run}/stream"), ("DELETE", ""),
        ("POST", f"/runs/{run}/cancel"), ("DELETE", f"/runs/{run}"), ("GET", "/state/1f0"),
    ]  # fmt: skip
    async with dialects.edge.http(stranger) as http:
        for method, path in paths:
            found = await http.request(method, f"/threads/{thread_id}{path}")
            assert found.status_code == 404, (method, path, found.text)
        for end in ("", "/wait", "/stream"):
            body = {"assistant_id": "anything", "command": {"resume": {asked["id"]: True}}}
            assert (await http.post(f"/threads/{thread_id}/runs{end}", json=body)).status_code == 404
        assert (await http.post("/threads/search", json={})).json() == []


async def test_an_application_in_a_browser_is_let_in_where_its_origin_is_named(database_url: str) -> None:
    inbox = "https://inbox.example.org"
    origins = f"https://other.example.org, {inbox}"
    async with running(database_url, cors_origins=origins) as keyturn, served(keyturn) as edge, edge.http() as http:
        wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
        asked = await http.options("/threads/search", headers={"Origin": inbox, **wanted})
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, inbox)
        answer = await http.get("/info", headers={"Origin": inbox, "X-API-Key": await edge.key()})
        assert "Content-Location" in answer.headers["access-control-expose-headers"]
        stranger = await http.get("/info", headers={"Origin": "https://evil.example.org"})
        assert "access-control-allow-origin" not in stranger.headers
