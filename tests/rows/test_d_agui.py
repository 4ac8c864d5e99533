"""AG-UI over real HTTP: runs with their steps, questions with their text, answers, declared nodes, keys and outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from tests.conftest import REPOSITORY
from tests.harness import APPS, running
from tests.web.agui import Run, body, cancelled, check, code_of, gathered, parsed, read, resolved, respond, run, said
from tests.web.edge import Edge, served
from tests.web.proxy import Proxy
from tests.web.team import Team
from tests.web.test_outage import behind, recovered


@pytest.fixture
async def team(database_url: str) -> AsyncIterator[Team]:
    async with gathered(database_url) as team:
        yield team


@pytest.fixture
def rita(team: Team) -> httpx.AsyncClient:
    return team.people["rita"]


@pytest.fixture
def tara(team: Team) -> httpx.AsyncClient:
    return team.people["tara"]


# D1


async def test_d1_a_run_streams_its_steps_as_nodes_change(rita: httpx.AsyncClient) -> None:
    found = await run(rita, "sorter", body("t1", said("an invoice over 5 euros")))
    assert found.types[0] == "RUN_STARTED"
    assert found.steps == ["classify", "clarify", "file"]
    assert found.outcome == "success"
    assert found.last["result"]["category"] == "bill"
    assert found.state == {"text": "an invoice over 5 euros -> bill", "category": "bill", "confidence": 0.95}


async def test_d1_the_next_run_of_a_thread_goes_on_with_what_the_first_left(rita: httpx.AsyncClient) -> None:
    first = await run(rita, "chat", body("t1", said("hello")))
    assert first.messages == [("user", "hello"), ("assistant", "You said: hello")]
    sent = [*first.of("MESSAGES_SNAPSHOT")[0]["messages"], {"id": "m9", "role": "user", "content": "and again"}]
    second = await run(rita, "chat", body("t1", sent, "r2", state=first.state))
    assert [text for _, text in second.messages] == ["hello", "You said: hello", "and again", "You said: and again"]
    # What the client sends back unchanged is not added once more.
    assert second.state["visits"] == ["router", "router"]
    # A client that comes with nothing gets all of it.
    third = await run(rita, "chat", body("t1", [{"id": "m10", "role": "user", "content": "third"}]))
    assert [text for _, text in third.messages][:3] == ["hello", "You said: hello", "and again"]
    assert len(third.messages) == 6


async def test_d1_state_that_the_client_changed_reaches_the_graph_and_unknown_fields_do_not(
    rita: httpx.AsyncClient, team: Team
) -> None:
    sent = body("t1", state={"target": "bakery", "unknown": 1, "token": "hunter22"})
    found = await run(rita, "deploy", sent)
    assert "bakery only" in found.interrupts[0]["message"]
    assert "unknown" not in found.state
    workflow_id = found.interrupts[0]["metadata"]["workflowId"]
    assert (await team.keyturn.get(workflow_id)).input["target"] == "bakery"
    hidden = await rita.post("/ag-ui/deploy", json=body("t2", state={"target": "«hidden»"}))
    assert code_of(hidden) == (422, "invalid_input")


async def test_d1_progress_is_told_and_secrets_are_not(rita: httpx.AsyncClient, tara: httpx.AsyncClient) -> None:
    asked = await run(rita, "deploy", body("t1", state={"token": "hunter22"}))
    answered = await run(tara, "deploy", body("t1", resume=[resolved(asked.interrupts[0], {"approved": True})]))
    assert answered.custom("progress") == [{"node": "done", "percent": 100}]
    assert answered.outcome == "success"
    assert "hunter22" not in str(asked.events) + str(answered.events)


async def test_d1_a_failed_run_ends_in_a_run_error_with_its_code(rita: httpx.AsyncClient) -> None:
    found = await run(rita, "failing", body("t1"))
    assert found.last == {
        "type": "RUN_ERROR", "code": "node_error", "message": "RuntimeError: the boiler is cold"
    }  # fmt: skip


async def test_d1_a_cancelled_run_says_so_and_why(rita: httpx.AsyncClient, team: Team) -> None:
    asked = await run(rita, "deploy", body("t1"))
    await rita.post(f"/workflows/{asked.interrupts[0]['metadata']['workflowId']}/cancel", json={"reason": "no more"})
    found = await run(rita, "deploy", body("t1", resume=[resolved(asked.interrupts[0], {"approved": True})]))
    assert found.outcome == "cancelled"
    assert found.custom("workflow_ended")[0]["status"] == "cancelled"
    assert found.custom("workflow_ended")[0]["reason"] == "no more"
    assert found.warnings == ["already_resolved"]


async def test_d1_a_client_that_leaves_stops_nothing_and_is_told_all_when_it_comes_back(
    rita: httpx.AsyncClient, team: Team
) -> None:
    sent = body("t1", said("an invoice"))
    async with rita.stream("POST", "/ag-ui/sorter", json=sent) as stream:
        assert stream.status_code == 200
    workflows = (await rita.get("/workflows")).json()["workflows"]
    await team.keyturn.until(workflows[0]["workflow_id"], "completed")
    assert len(workflows) == 1


async def test_d1_a_run_under_way_is_followed_by_whoever_sends_the_same_and_nothing_else_begins(
    database_url: str,
) -> None:
    async with AsyncExitStack() as on:
        keyturn = await on.enter_async_context(running(database_url, app=APPS / "agui.json"))
        edge = await on.enter_async_context(served(keyturn))
        rita = await on.enter_async_context(edge.http(await edge.key("rita")))
        sent = body("t1", said("an invoice"))
        first = asyncio.create_task(rita.post("/ag-ui/sorter", json=sent))
        async with asyncio.timeout(10):
            while not (await rita.get("/workflows")).json()["workflows"]:
                pass
        second = asyncio.create_task(rita.post("/ag-ui/sorter", json=sent))
        other = await rita.post("/ag-ui/sorter", json=body("t1", said("another invoice")))
        assert code_of(other) == (409, "thread_busy")
        await on.enter_async_context(keyturn.working())
        told = [read(await one, "t1", "r1").events for one in (first, second)]
        assert told[0] == told[1]
        assert len((await rita.get("/workflows")).json()["workflows"]) == 1


async def test_d1_a_server_that_stops_tells_its_clients_and_the_workflow_goes_on(database_url: str) -> None:
    async with AsyncExitStack() as on:
        keyturn = await on.enter_async_context(running(database_url, app=APPS / "agui.json"))
        sent = body("t1", said("an invoice"))
        async with served(keyturn) as edge, edge.http(await edge.key("rita")) as rita:
            async with rita.stream("POST", "/ag-ui/sorter", json=sent) as stream:
                chunks = stream.aiter_bytes()
                content = await anext(chunks)
                edge.stop.set()
                async for chunk in chunks:
                    content += chunk
            events = parsed(content)
            check(events)
            assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "stopping")
        edge = await on.enter_async_context(served(keyturn))
        await on.enter_async_context(keyturn.working())
        rita = await on.enter_async_context(edge.http(await edge.key("rita")))
        # The first request was sent again: nothing began twice.
        assert (await run(rita, "sorter", sent)).outcome == "success"
        assert len((await rita.get("/workflows")).json()["workflows"]) == 1


_EXPIRE = "UPDATE keyturn.workflows SET lease_until = now() - interval '1 second' WHERE status = 'running'"


async def test_d1_steps_and_text_stay_balanced_when_another_worker_takes_over_in_the_middle(
    rita: httpx.AsyncClient, team: Team
) -> None:
    async with team.keyturn.working(), rita.stream("POST", "/ag-ui/slow", json=body("t1", said("hello"))) as stream:
        chunks = stream.aiter_bytes()
        content = b""
        while b"TEXT_MESSAGE_CONTENT" not in content:
            content += await anext(chunks)
        # Whoever holds it is taken for dead until somebody has taken it over.
        async with team.keyturn.ctx.db.connection() as conn:
            attempts = 1
            while attempts == 1:
                await conn.execute(_EXPIRE)
                team.keyturn.ctx.db.ring("keyturn_ready", "default")
                row = await (await conn.execute("SELECT attempts, status FROM keyturn.workflows")).fetchone()
                assert row is not None
                assert row["status"] == "running"
                attempts = row["attempts"]
        async for chunk in chunks:
            content += chunk
    found = Run(parsed(content))
    check(found.events)
    assert found.outcome == "success"
    assert len(found.of("STEP_STARTED")) == 2
    cut, whole = found.texts.values()
    assert "word by word".startswith(cut)
    assert whole == "word by word"
    # What was cut off is no part of the conversation.
    assert found.messages == [("user", "hello"), ("assistant", "word by word")]


# D2


async def test_d2_a_question_streams_its_text_then_asks_for_a_person_then_ends_in_an_interrupt(
    rita: httpx.AsyncClient,
) -> None:
    found = await run(rita, "sorter", body("t1", said("a note")))
    assert list(found.texts.values()) == ["Is this about work or home?"]
    (asked,) = found.interrupts
    assert asked["reason"] == "input_required"
    assert asked["message"] == "Is this about work or home?"
    assert asked["responseSchema"]["properties"]["answer"]["enum"] == ["work", "home"]
    assert found.custom("HITL_REQUIRED") == [{"threadId": "t1"}]
    end = [one for one in found.types if one not in ("STEP_STARTED", "STEP_FINISHED")]
    assert end == [
        "RUN_STARTED", "STATE_SNAPSHOT", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "CUSTOM",
        "CUSTOM", "RUN_FINISHED",
    ]  # fmt: skip
    names = [event["name"] for event in found.of("CUSTOM")]
    assert names == ["HITL_REQUIRED", "on_interrupt"]


async def test_d2_the_classifier_asks_one_question_and_the_answer_files_the_note(database_url: str) -> None:
    async with AsyncExitStack() as on:
        keyturn = await on.enter_async_context(running(database_url, app=REPOSITORY / "graphs" / "langgraph.json"))
        edge = await on.enter_async_context(served(keyturn))
        rita = await on.enter_async_context(edge.http(await edge.key("rita")))
        await on.enter_async_context(keyturn.working())
        asked = await run(rita, "triage", body("t1", said("Think about the kitchen")))
        (question,) = asked.texts.values()
        assert "?" in question
        assert asked.state["confidence"] < 0.6
        assert asked.interrupts[0]["message"] == question
        assert asked.messages == [("user", "Think about the kitchen"), ("assistant", question)]
        assert [event["name"] for event in asked.of("CUSTOM")] == ["HITL_REQUIRED", "on_interrupt"]
        assert asked.types.index("TEXT_MESSAGE_END") < asked.types.index("CUSTOM")
        assert asked.steps == ["take", "classify", "clarify", "listen"]
        filed = await respond(rita, "t1", "Ideas")
        assert filed.last["result"]["category"] == "Ideas"
        assert filed.last["result"]["confidence"] == 0.85
        assert [text.partition(":")[0] for text in filed.texts.values()] == ["Filed under Ideas"]
        # The next note of the same conversation, of which nothing is unclear.
        bill = {"id": "m9", "role": "user", "content": "Pay the electricity bill by Friday"}
        sent = [*filed.of("MESSAGES_SNAPSHOT")[0]["messages"], bill]
        sure = await run(rita, "triage", body("t1", sent, "r3", state=filed.state))
        assert sure.last["result"]["category"] == "Admin"
        assert len(sure.messages) == 6


async def test_d2_a_run_without_an_answer_drops_nothing_and_is_asked_again(rita: httpx.AsyncClient) -> None:
    first = await run(rita, "sorter", body("t1", said("a note")))
    again = await run(rita, "sorter", body("t1", said("a note"), "r2"))
    assert again.interrupts == first.interrupts
    assert list(again.texts.values()) == ["Is this about work or home?"]
    # Whoever has the question already is not told it twice; what they say besides is not taken, and that is told.
    has = [*said("a note"), {"id": next(iter(first.texts)), "role": "assistant", "content": "Is this about …?"}]
    third = await run(rita, "sorter", body("t1", [*has, {"id": "x", "role": "user", "content": "new words"}], "r3"))
    assert third.texts == {}
    assert third.warnings == ["thread_busy"]
    assert third.interrupts == first.interrupts
    assert len((await rita.get("/workflows")).json()["workflows"]) == 1


# D3


async def test_d3_respond_answers_the_thread_and_streams_the_result(rita: httpx.AsyncClient) -> None:
    await run(rita, "sorter", body("t1", said("a note")))
    found = await respond(rita, "t1", "home")
    assert found.outcome == "success"
    assert found.last["result"] == {"text": "a note -> home", "category": "home", "confidence": 0.85}
    assert found.steps == ["clarify", "file"]


async def test_d3_respond_refuses_what_does_not_answer_and_takes_the_right_one_after(
    rita: httpx.AsyncClient, team: Team
) -> None:
    asked = await run(rita, "sorter", body("t1", said("a note")))
    wrong = await rita.post("/ag-ui/respond", json={"thread_id": "t1", "response": "garden"})
    assert code_of(wrong) == (422, "invalid_answer")
    nobody = await rita.post("/ag-ui/respond", json={"thread_id": "t2", "response": "home"})
    assert code_of(nobody) == (404, "not_found")
    found = await respond(rita, "t1", {"answer": "work"}, interrupt_id=asked.interrupts[0]["id"])
    assert found.state["category"] == "work"
    late = await rita.post("/ag-ui/respond", json={"thread_id": "t1", "response": "home"})
    assert code_of(late) == (409, "already_resolved")
    both = await run(rita, "deploy_both", body("t3"))
    which = await team.people["tara"].post("/ag-ui/respond", json={"thread_id": "t3", "response": True})
    assert code_of(which) == (409, "approval_id_needed")
    assert {one["interrupt_id"] for one in which.json()["approvals"]} == {one["id"] for one in both.interrupts}


async def test_d3_an_answer_sent_twice_never_answers_the_next_question(rita: httpx.AsyncClient) -> None:
    first = (await run(rita, "two_questions", body("t1"))).interrupts[0]
    second = (await run(rita, "two_questions", body("t1", resume=[resolved(first, "one")]))).interrupts[0]
    assert second["id"] != first["id"]
    again = await run(rita, "two_questions", body("t1", resume=[resolved(first, "one")]))
    assert again.warnings == ["already_resolved"]
    assert [one["id"] for one in again.interrupts] == [second["id"]]
    refused = await rita.post(
        "/ag-ui/respond", json={"thread_id": "t1", "response": "one", "interrupt_id": first["id"]}
    )
    assert code_of(refused) == (409, "already_resolved")
    found = await run(rita, "two_questions", body("t1", resume=[resolved(second, "two")]))
    assert found.last["result"]["log"] == ["one/two"]


# Resuming


async def test_an_approval_is_resumed_with_what_its_schema_says(
    rita: httpx.AsyncClient, tara: httpx.AsyncClient
) -> None:
    (asked,) = (await run(rita, "deploy", body("t1"))).interrupts
    assert asked["reason"] == "confirmation"
    assert asked["responseSchema"]["required"] == ["approved"]
    (approval,) = asked["metadata"]["approvals"]
    assert approval["riskLevel"] == "high"
    assert approval["stillNeeded"] == 1
    assert approval["revision"] == 1
    assert approval["digest"]
    found = await run(tara, "deploy", body("t1", resume=[resolved(asked, {"approved": True})]))
    assert found.outcome == "success"
    assert found.last["result"]["log"] == ["only True", "done"]


async def test_an_unknown_id_is_warned_of_and_applied_to_nothing_while_the_others_are_applied(
    rita: httpx.AsyncClient, tara: httpx.AsyncClient
) -> None:
    left, right = (await run(rita, "deploy_both", body("t1"))).interrupts
    wrong = "0" * 32
    sent = [resolved(wrong, {"approved": True}), resolved(left, {"approved": True})]
    found = await run(tara, "deploy_both", body("t1", resume=sent))
    assert found.warnings == ["unknown_interrupt"]
    assert found.custom("warning")[0]["interruptId"] == wrong
    assert [one["id"] for one in found.interrupts] == [right["id"]]
    over = await run(tara, "deploy_both", body("t1", resume=[resolved(right, {"approved": True})]))
    assert over.outcome == "success"
    assert sorted(over.last["result"]["log"]) == ["done", "left True", "right True"]


async def test_a_malformed_answer_or_a_refused_one_is_told_and_a_right_one_works_after(
    rita: httpx.AsyncClient, tara: httpx.AsyncClient, team: Team
) -> None:
    (asked,) = (await run(rita, "deploy", body("t1"))).interrupts
    malformed = await run(tara, "deploy", body("t1", resume=[resolved(asked, {"approved": "yes"})]))
    own = await run(rita, "deploy", body("t1", resume=[resolved(asked, {"approved": True})]))
    async with team.edge.http(await team.edge.key("eve")) as stranger:
        other = await run(stranger, "deploy", body("t1", resume=[resolved(asked, {"approved": True})]))
    assert [malformed.warnings, own.warnings, other.warnings] == [
        ["invalid_answer"], ["self_approval"], ["not_eligible"]
    ]  # fmt: skip
    for refused in (malformed, own, other):
        assert [one["id"] for one in refused.interrupts] == [asked["id"]]
    found = await run(tara, "deploy", body("t1", resume=[resolved(asked, {"approved": True})]))
    assert found.outcome == "success"


async def test_a_cancelled_entry_rejects(rita: httpx.AsyncClient, tara: httpx.AsyncClient) -> None:
    left, right = (await run(rita, "deploy_both", body("t1"))).interrupts
    found = await run(tara, "deploy_both", body("t1", resume=[cancelled(left), resolved(right, {"approved": True})]))
    assert found.outcome == "cancelled"
    assert found.custom("workflow_ended")[0] | {"workflowId": ""} == {
        "workflowId": "", "status": "rejected", "reason": found.custom("workflow_ended")[0]["reason"], "by": "tara",
    }  # fmt: skip


async def test_a_cancelled_entry_of_a_gate_that_goes_on_lets_the_graph_react(
    rita: httpx.AsyncClient, tara: httpx.AsyncClient
) -> None:
    (asked,) = (await run(rita, "deploy", body("t1", state={"on_reject": "resume"}))).interrupts
    found = await run(tara, "deploy", body("t1", resume=[cancelled(asked)]))
    assert found.outcome == "success"
    assert found.last["result"]["log"] == ["only False", "done"]


TWO_NEEDED = """
policies:
  - name: deploys
    match: action.operation == 'deploy'
    stages: [[{any_of: [team_lead, tech_lead], count: 2}]]
"""


async def test_an_answer_short_of_its_quorum_ends_in_the_interrupt_again(
    rita: httpx.AsyncClient, tara: httpx.AsyncClient, team: Team
) -> None:
    await team.policies(TWO_NEEDED)
    (asked,) = (await run(rita, "deploy", body("t1"))).interrupts
    assert asked["metadata"]["approvals"][0]["stillNeeded"] == 2
    (short,) = (await run(tara, "deploy", body("t1", resume=[resolved(asked, {"approved": True})]))).interrupts
    assert short["metadata"]["approvals"][0]["stillNeeded"] == 1
    assert list(short["metadata"]["approvals"][0]["filled"]) == ["tara"]
    found = await run(team.people["tom"], "deploy", body("t1", resume=[resolved(asked, {"approved": True})]))
    assert found.outcome == "success"


async def test_a_batched_tool_call_takes_decisions_and_agui_words(
    rita: httpx.AsyncClient, tara: httpx.AsyncClient
) -> None:
    answers: list[Any] = [
        {"decisions": [{"type": "approve"}]}, {"approved": True}, {"approved": False, "note": "not to ann"},
    ]  # fmt: skip
    results = [
        "{'type': 'approve'}", "{'type': 'approve'}", "{'type': 'reject', 'message': 'not to ann'}",
    ]  # fmt: skip
    for nth, (answer, result) in enumerate(zip(answers, results, strict=True)):
        found = await run(rita, "mailing", body(f"t{nth}"))
        if found.last.get("outcome", {}).get("type") == "interrupt":
            found = await run(tara, "mailing", body(f"t{nth}", resume=[resolved(found.interrupts[0], answer)]))
        assert found.last["result"]["log"] == [result]


async def test_racing_resumes_are_applied_once_and_the_loser_is_told_who_won(
    rita: httpx.AsyncClient, tara: httpx.AsyncClient, team: Team
) -> None:
    (asked,) = (await run(rita, "deploy", body("t1"))).interrupts
    sent = body("t1", resume=[resolved(asked, {"approved": True})])
    found = await asyncio.gather(run(tara, "deploy", sent), run(team.people["tom"], "deploy", sent))
    assert [one.outcome for one in found] == ["success", "success"]
    warned = [warning for one in found for warning in one.custom("warning")]
    assert [one["code"] for one in warned] == ["already_resolved"]
    assert warned[0]["resolved_by"] in ("tara", "tom")
    assert {str(one.last["result"]["log"]) for one in found} == {"['only True', 'done']"}


async def test_clients_from_before_answer_by_command_and_get_no_outcome(
    rita: httpx.AsyncClient, tara: httpx.AsyncClient
) -> None:
    asked = await run(rita, "old_sorter", body("t1", said("a note")))
    assert "outcome" not in asked.last
    (event,) = [one for one in asked.of("CUSTOM") if one["name"] == "on_interrupt"]
    command: dict[str, Any] = {"command": {"resume": "work"}}
    found = await run(rita, "old_sorter", body("t1", forwardedProps=command))
    assert "outcome" not in found.last
    assert found.last["result"]["category"] == "work"
    assert event["metadata"]["interruptId"]
    both = await run(rita, "old_deploy_both", body("t2"))
    ids = [one["metadata"]["interruptId"] for one in both.of("CUSTOM") if one["name"] == "on_interrupt"]
    scalar = await run(tara, "old_deploy_both", body("t2", forwardedProps={"command": {"resume": True}}))
    assert scalar.warnings == ["approval_id_needed"]
    mapped: dict[str, Any] = {"command": {"resume": {one: {"approved": True} for one in ids}}}
    over = await run(tara, "old_deploy_both", body("t2", forwardedProps=mapped))
    assert sorted(over.last["result"]["log"]) == ["done", "left True", "right True"]


async def test_a_command_that_steers_the_graph_is_refused(rita: httpx.AsyncClient) -> None:
    steering: list[dict[str, Any]] = [
        {"goto": "file"}, {"update": {"category": "x"}}, {"resume": "work", "goto": "file"}, {"resume": 1, "graph": 1},
    ]  # fmt: skip
    for graph in ("sorter", "old_sorter"):
        await run(rita, graph, body(graph, said("a note")))
        for command in steering:
            sent = body(graph, forwardedProps={"command": command})
            assert code_of(await rita.post(f"/ag-ui/{graph}", json=sent)) == (422, "invalid_input"), command
        status = (await rita.get("/workflows", params={"graph": graph})).json()["workflows"][0]["status"]
        assert status == "waiting"
    trail = (await rita.get("/audit", params={"type": "refused"})).json()["events"]
    assert len(trail) == 2 * len(steering)


async def test_a_command_is_refused_where_clients_speak_1_0(rita: httpx.AsyncClient) -> None:
    await run(rita, "sorter", body("t1", said("a note")))
    sent = body("t1", forwardedProps={"command": {"resume": "work"}})
    refused = await rita.post("/ag-ui/sorter", json=sent)
    assert code_of(refused) == (422, "invalid_input")
    assert "legacy" in refused.json()["detail"]


# D6


async def test_d6_only_the_text_of_declared_nodes_reaches_the_client(rita: httpx.AsyncClient) -> None:
    found = await run(rita, "chat", body("t1", said("hello")))
    assert list(found.texts.values()) == ["You said: hello"]
    assert found.messages == [("user", "hello"), ("assistant", "You said: hello")]
    assert "SECRET THOUGHT" not in str(found.events)
    # The text came word by word, under the id that the conversation has it by.
    assert len(found.of("TEXT_MESSAGE_CONTENT")) >= 1
    assert list(found.texts) == [found.of("MESSAGES_SNAPSHOT")[0]["messages"][-1]["id"]]
    assert found.steps == ["router", "reply"]


async def test_d6_a_graph_that_declares_nothing_streams_no_text(rita: httpx.AsyncClient) -> None:
    found = await run(rita, "plain_chat", body("t1", said("hello")))
    assert found.texts == {}
    assert ("assistant", "You said: hello") in found.messages


async def test_d6_text_reaches_the_client_while_its_node_is_still_writing(rita: httpx.AsyncClient) -> None:
    async with rita.stream("POST", "/ag-ui/slow", json=body("t1", said("hello"))) as stream:
        chunks = stream.aiter_bytes()
        content = b""
        while b"TEXT_MESSAGE_CONTENT" not in content:
            content += await anext(chunks)
        assert (await rita.get("/workflows")).json()["workflows"][0]["status"] == "running"
        assert b"TEXT_MESSAGE_END" not in content
        async for chunk in chunks:
            content += chunk
    found = Run(parsed(content))
    check(found.events)
    assert list(found.texts.values()) == ["word by word"]
    assert len(found.of("TEXT_MESSAGE_CONTENT")) > 3


# D7


async def test_d7_a_key_is_needed_and_it_does_no_more_than_it_may(team: Team) -> None:
    edge: Edge = team.edge
    async with edge.http() as nobody:
        for path in ("/ag-ui/sorter", "/ag-ui/respond"):
            assert code_of(await nobody.post(path, json=body("t1"))) == (401, "unauthenticated")
    key = await edge.key("rita")
    async with edge.http() as http:
        answer = await http.post("/ag-ui/sorter", json=body("t1", said("a note")), headers={"X-API-Key": key})
        (asked,) = read(answer, "t1", "r1").interrupts
        sends = {"answers": body("t1", resume=[resolved(asked, "work")]), "begins": body("t2", said("a note"))}
        may: dict[tuple[str, ...], dict[str, int]] = {
            ("submit", "decide"): {"answers": 403, "begins": 403},
            ("read",): {"answers": 403, "begins": 403},
            ("read", "decide"): {"answers": 200, "begins": 403},
            ("read", "submit"): {"answers": 403, "begins": 200},
        }
        for permissions, expected in may.items():
            headers = {"X-API-Key": await edge.key("rita", permissions)}
            for what, status in expected.items():
                if (permissions, what) != (("read", "decide"), "answers"):
                    answer = await http.post("/ag-ui/sorter", json=sends[what], headers=headers)
                    assert answer.status_code == status, (permissions, what, answer.text)
        refused = await http.post(
            "/ag-ui/respond", json={"thread_id": "t1", "response": "work"},
            headers={"X-API-Key": await edge.key("rita", ("read", "submit"))},
        )  # fmt: skip
        assert code_of(refused) == (403, "forbidden")
        decides = {"X-API-Key": await edge.key("tom", ("read", "decide"))}
        answer = await http.post("/ag-ui/sorter", json=sends["answers"], headers=decides)
        assert read(answer, "t1", "r1").outcome == "success"


async def test_d7_the_threads_of_another_namespace_are_not_found(team: Team, rita: httpx.AsyncClient) -> None:
    (asked,) = (await run(rita, "sorter", body("t1", said("a note")))).interrupts
    async with team.edge.http(await team.edge.key("eve", namespace="elsewhere")) as eve:
        answered = await eve.post("/ag-ui/sorter", json=body("t1", resume=[resolved(asked, "work")]))
        assert code_of(answered) == (404, "not_found")
        responded = await eve.post("/ag-ui/respond", json={"thread_id": "t1", "response": "work"})
        assert code_of(responded) == (404, "not_found")
        # The same id is another thread there.
        assert (await run(eve, "sorter", body("t1", said("an invoice")))).outcome == "success"
    assert [one["id"] for one in (await run(rita, "sorter", body("t1"))).interrupts] == [asked["id"]]


async def test_d7_what_is_wrong_is_a_problem_document_before_the_stream(rita: httpx.AsyncClient) -> None:
    wrong: list[tuple[str, Any, tuple[int, str]]] = [
        ("nowhere", body("t1"), (404, "not_found")),
        ("sorter", body("t1", resume=[resolved("0" * 32, 1)]), (404, "not_found")),
        ("sorter", {"threadId": "t1"}, (422, "invalid_input")),
        ("sorter", body("t1", [{"id": "1", "role": "wizard", "content": "x"}]), (422, "invalid_input")),
        ("sorter", body("t1", state=[1]), (422, "invalid_input")),
        ("sorter", body(" ", said("an invoice")), (422, "invalid_input")),
        ("sorter", body("t1", state={"text": 5}), (422, "invalid_input")),
        ("sorter", body("t1", forwardedProps={"command": "go"}), (422, "invalid_input")),
    ]
    for graph, sent, expected in wrong:
        assert code_of(await rita.post(f"/ag-ui/{graph}", json=sent)) == expected, sent
    assert (await rita.get("/workflows")).json()["workflows"] == []
    await run(rita, "sorter", body("t1", said("an invoice")))
    other = await rita.post("/ag-ui/chat", json=body("t1", said("hello")))
    assert code_of(other) == (409, "conflict")


async def test_d7_while_the_database_is_away_a_run_is_refused_and_one_under_way_goes_on_after(
    database_url: str,
) -> None:
    async with AsyncExitStack() as on:
        keyturn = await on.enter_async_context(running(database_url, app=APPS / "agui.json"))
        proxy = await on.enter_async_context(Proxy(database_url).running())
        edge = await on.enter_async_context(served(behind(keyturn, proxy), own_database=True))
        rita = await on.enter_async_context(edge.http(await edge.key("rita")))
        await recovered(rita, "/workflows")
        async with rita.stream("POST", "/ag-ui/sorter", json=body("t1", said("an invoice"))) as under_way:
            chunks = under_way.aiter_bytes()
            content = await anext(chunks)
            proxy.cut()
            for path, sent in (
                ("/ag-ui/sorter", body("t2", said("a note"))),
                ("/ag-ui/respond", {"thread_id": "t1", "response": "work"}),
            ):
                refused = await rita.post(path, json=sent)
                assert code_of(refused) == (503, "unavailable")
                assert int(refused.headers["retry-after"]) >= 1
                assert "database" in refused.json()["detail"]
            await on.enter_async_context(keyturn.working())
            proxy.mend()
            async for chunk in chunks:
                content += chunk
        events = parsed(content)
        check(events)
        assert events[-1]["outcome"] == {"type": "success"}
        assert len((await rita.get("/workflows")).json()["workflows"]) == 1
