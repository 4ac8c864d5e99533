"""What an AG-UI client cannot do: answer what it has not seen, or too much at once, or on with a key that is gone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from orchestrator.core.errors import GraphFault
from orchestrator.engine.loading import read_app
from orchestrator.service import identity
from tests.harness import caller
from tests.web.agui import body, check, code_of, gathered, parsed, resolved, respond, run, said
from tests.web.team import Team


@pytest.fixture
async def team(database_url: str) -> AsyncIterator[Team]:
    async with gathered(database_url) as team:
        yield team


@pytest.fixture
def rita(team: Team) -> httpx.AsyncClient:
    return team.people["rita"]


async def test_d3_an_answer_without_a_name_never_meets_a_question_its_sender_has_not_seen(
    rita: httpx.AsyncClient, team: Team
) -> None:
    (first,) = (await run(rita, "two_questions", body("t1"))).interrupts
    (second,) = (await respond(team.people["tom"], "t1", "toms", interrupt_id=first["id"])).interrupts
    late = await rita.post("/ag-ui/respond", json={"thread_id": "t1", "response": "ritas"})
    assert code_of(late) == (409, "already_resolved")
    assert late.json()["resolved_by"] == "tom"
    # Who is shown it may answer it.
    assert (await run(rita, "two_questions", body("t1"))).interrupts == [second]
    found = await respond(rita, "t1", "ritas")
    assert found.last["result"]["log"] == ["toms/ritas"]


async def test_a_resume_of_more_answers_than_one_may_carry_is_refused_whole_and_the_trail_does_not_swell(
    rita: httpx.AsyncClient, team: Team
) -> None:
    (asked,) = (await run(rita, "deploy", body("t1"))).interrupts
    workflow = asked["metadata"]["workflowId"]
    before = (await team.keyturn.types(workflow)).count("refused")
    many = [resolved(asked, {"approved": True}), *(resolved(f"{nth:032x}", 1) for nth in range(100))]
    refused = await team.people["tara"].post("/ag-ui/deploy", json=body("t1", resume=many))
    assert code_of(refused) == (422, "invalid_input")
    assert (await team.keyturn.types(workflow)).count("refused") <= before + 1
    assert (await team.keyturn.get(workflow)).status == "waiting"


async def test_d7_a_key_that_is_revoked_ends_the_stream_it_follows_and_the_workflow_goes_on(team: Team) -> None:
    key = await team.edge.key("rita", ("read", "submit"))
    admin = caller("root")
    sent = body("t1", said("hello"))
    async with team.edge.http(key) as http, http.stream("POST", "/ag-ui/slow", json=sent) as stream:
        chunks = stream.aiter_bytes()
        content = await anext(chunks)
        await identity.revoke_key(team.keyturn.ctx, admin, key.split("_")[1])
        async for chunk in chunks:
            content += chunk
        events = parsed(content)
        check(events)
        assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "unauthenticated")
        assert code_of(await http.post("/ag-ui/slow", json=sent)) == (401, "unauthenticated")
    listed = (await team.people["rita"].get("/workflows")).json()["workflows"]
    await team.keyturn.until(listed[0]["workflow_id"], "completed")


async def test_a_session_begins_no_run_by_agui(rita: httpx.AsyncClient, team: Team) -> None:
    session = (await rita.post("/sessions", json={"graph": "sorter"})).json()["session_id"]
    for who in (rita, team.people["tom"]):
        refused = await who.post("/ag-ui/sorter", json=body(session, said("an invoice")))
        assert code_of(refused) == (409, "conflict")
        assert f"/sessions/{session}/messages" in refused.json()["detail"]
    assert (await rita.get("/workflows")).json()["workflows"] == []


async def test_d6_of_two_who_speak_at_a_time_only_the_declared_one_is_heard(rita: httpx.AsyncClient) -> None:
    found = await run(rita, "duet", body("t1", said("hello")))
    assert list(found.texts.values()) == ["You said: hello"]
    assert found.messages == [("user", "hello"), ("assistant", "You said: hello")]
    assert "SECRET" not in str(found.events)
    assert sorted(found.steps) == ["reply", "router"]


async def test_a_question_and_a_result_that_repeat_a_secret_of_the_input_are_told_without_it(
    rita: httpx.AsyncClient,
) -> None:
    asked = await run(rita, "blabs", body("t1", state={"token": "correct-horse"}))
    ended = await respond(rita, "t1", "yes")
    assert asked.interrupts[0]["message"] == "Shall «hidden» be used?"
    assert ended.last["result"]["log"] == ["used «hidden»"]
    assert "correct-horse" not in str(asked.events) + str(ended.events)


async def test_a_state_that_is_no_json_ends_the_run_with_a_code(rita: httpx.AsyncClient) -> None:
    found = await run(rita, "odd", body("t1", said("hello")))
    assert (found.last["type"], found.last["code"]) == ("RUN_ERROR", "not_storable")


def test_a_graph_that_clients_could_not_reach_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "langgraph.json"
    file.write_text(json.dumps({"graphs": {"respond": "./graph.py:graph"}}), encoding="utf-8")
    with pytest.raises(GraphFault, match="another name"):
        read_app(file)
