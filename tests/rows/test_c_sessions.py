"""Execution sessions over real HTTP: what may be said when, and what is kept of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import NotOwner
from orchestrator.service import threads
from tests.harness import caller
from tests.rows.office import Office
from tests.web.sse import Stream
from tests.web.team import refusal


async def test_c1_an_interactive_session_asks_and_the_next_message_is_the_answer(desk: Office) -> None:
    session = await desk.begin(message="paint", title="A wall")
    waiting = await desk.settled(session, "waiting")
    (asked,) = waiting["pending"]
    assert (asked["kind"], asked["question"]["options"], waiting["note"]) == ("question", ["red", "blue"], None)
    wrong = await desk.say(session, "green")
    assert refusal(wrong) == (422, "invalid_answer")
    assert wrong.json()["allowed"] == ["red", "blue"]
    answered = await desk.say(session, "blue")
    assert (answered.status_code, answered.json()["did"]) == (200, "answered")
    assert answered.json()["approval_id"] == asked["approval_id"]
    done = await desk.settled(session)
    assert (done["workflow_id"], done["pending"]) == (waiting["workflow_id"], [])
    assert await desk.told(session) == [
        ("message", "paint"), ("question", "Which colour?"), ("answer", "blue"), ("result", "painted blue")
    ]  # fmt: skip


async def test_c1_an_autonomous_session_takes_declared_defaults_and_says_what_has_none(desk: Office) -> None:
    session = await desk.begin(mode="autonomous", message="count")
    await desk.settled(session)
    assert await desk.told(session) == [("message", "count"), ("answer", 3), ("result", "counted 3")]
    (answer,) = [one for one in await desk.history(session) if one["type"] == "answer"]
    assert (answer["role"], answer["facts"]["note"]) == ("system", "the declared default")
    await desk.say(session, "travel")
    waiting = await desk.settled(session, "waiting")
    assert "declares no default" in waiting["note"]
    await desk.talk(session, "Rome")
    assert (await desk.told(session))[-1] == ("result", "off to Rome")


async def test_c1_an_autonomous_session_still_stops_at_a_risk_gate_and_a_message_is_never_an_approval(
    desk: Office,
) -> None:
    session = await desk.begin(mode="autonomous", message="deploy")
    waiting = await desk.settled(session, "waiting")
    (asked,) = waiting["pending"]
    assert (asked["kind"], asked["risk_level"]) == ("approval", "high")
    for body in ({"content": "yes"}, {"content": "yes", "approval_id": asked["approval_id"]}):
        refused = await desk.post(f"/sessions/{session}/messages", "tara", **body)
        assert refusal(refused) == (409, "approval_pending")
        assert refused.json()["approvals"][0]["approval_id"] == asked["approval_id"]
    voted = await desk.post(f"/approvals/{asked['approval_id']}/votes", "tara", verdict="approve", justification="ok")
    assert voted.status_code == 200
    await desk.settled(session)
    entries = await desk.history(session)
    assert [one["type"] for one in entries] == ["message", "approval", "decision", "result"]
    assert (entries[2]["by"], entries[2]["content"], entries[2]["facts"]["by"]) == ("tara", "approved", ["tara"])
    assert entries[3]["content"] == "deployed, as tara allowed"
    late = await desk.say(session, "yes", "tara", approval_id=asked["approval_id"])
    assert refusal(late) == (409, "already_resolved")


async def test_c1_several_questions_are_answered_by_their_id_and_by_no_other(desk: Office) -> None:
    session = await desk.begin(message="both")
    waiting = await desk.settled(session, "waiting")
    which = await desk.say(session, "up")
    assert refusal(which) == (409, "approval_id_needed")
    assert {one["description"] for one in which.json()["approvals"]} == {"Left?", "Right?"}
    named = {one["description"]: one["approval_id"] for one in waiting["pending"]}
    other = await desk.begin(message="travel")
    (elsewhere,) = (await desk.settled(other, "waiting"))["pending"]
    for unknown in ("ap-none", elsewhere["approval_id"]):
        assert refusal(await desk.say(session, "up", approval_id=unknown)) == (404, "not_found")
    await desk.say(session, "up", approval_id=named["Left?"])
    again = await desk.say(session, "down", approval_id=named["Left?"])
    assert refusal(again) == (409, "already_resolved")
    assert again.json()["resolved_by"] == "rita"
    await desk.talk(session, "down")
    assert (await desk.told(session))[-1] == ("result", "up and down")


async def test_c1_what_a_graph_takes_is_what_may_be_said_to_it(desk: Office) -> None:
    echo = await desk.begin("echo", message="hello")
    await desk.settled(echo)
    assert await desk.told(echo) == [("message", "hello"), ("result", {"text": "HELLO"})]
    order = await desk.begin("order", input={"item": "pen", "number": 2})
    await desk.settled(order)
    assert await desk.told(order) == [
        ("message", {"item": "pen", "number": 2}), ("result", {"item": "pen", "number": 4})
    ]  # fmt: skip
    spoken = await desk.say(order, "three pens")
    assert refusal(spoken) == (422, "invalid_input")
    assert "send `input`" in spoken.json()["detail"]
    assert refusal(await desk.say(echo, {"not": "text"})) == (422, "invalid_input")
    assert refusal(await desk.say(echo, "  ")) == (422, "invalid_input")


async def test_c2_the_history_is_whole_in_order_and_comes_in_pages_that_miss_nothing(desk: Office) -> None:
    session = await desk.begin()
    assert await desk.history(session) == []
    for said in ("one", "recall"):
        await desk.talk(session, said)
    await desk.say(session, "fail")
    failed = await desk.settled(session)
    assert failed["error"]["detail"] == "RuntimeError: the boiler is cold"
    await desk.talk(session, "recall")
    whole = await desk.history(session)
    assert [(one["role"], one["type"], one["content"]) for one in whole] == [
        ("user", "message", "one"), ("assistant", "result", "heard one"),
        ("user", "message", "recall"), ("assistant", "result", "one / recall"),
        ("user", "message", "fail"), ("system", "ended", "RuntimeError: the boiler is cold"),
        ("user", "message", "recall"), ("assistant", "result", "one / recall / fail / recall"),
    ]  # fmt: skip
    assert [len(one["messages"]) for one in whole] == [0, 1, 0, 1, 0, 0, 0, 1]
    paged: list[dict[str, Any]] = []
    while True:
        query = {"after": paged[-1]["id"]} if paged else {}
        answer = await desk.people["rita"].get(f"/sessions/{session}/messages", params={**query, "limit": 3})
        paged += answer.json()["messages"]
        if not answer.json()["more"]:
            break
    assert paged == whole
    for wrong in ("nonsense", "wf-0123.1", "wf-\x00.1"):
        answer = await desk.people["rita"].get(f"/sessions/{session}/messages", params={"after": wrong})
        assert refusal(answer) == (422, "invalid_input")


async def test_c2_secrets_in_what_was_said_are_masked_in_the_history(desk: Office) -> None:
    session = await desk.begin("order", input={"item": "pen", "number": 2, "api_key": "hunter22"})
    await desk.settled(session)
    answer = await desk.people["tom"].get(f"/sessions/{session}/messages")
    assert "hunter22" not in answer.text
    assert answer.json()["messages"][0]["content"]["item"] == "pen"


async def test_c4_another_tab_finds_the_session_and_another_person_answers_in_it(desk: Office) -> None:
    session = await desk.begin(message="travel", title="Holidays", case_id="case-7")
    await desk.settled(session, "waiting")
    async with desk.edge.http(await desk.edge.key("rita")) as tab:
        (found,) = (await tab.get("/sessions")).json()["sessions"]
    assert (found["session_id"], found["state"], found["title"]) == (session, "waiting", "Holidays")
    handed = await desk.say(session, "Oslo", "tom")
    assert handed.json()["did"] == "answered"
    await desk.settled(session)
    (answer,) = [one for one in await desk.history(session) if one["type"] == "answer"]
    assert (answer["by"], answer["facts"]["by"]) == ("tom", ["tom"])
    # What is begun in it has its owner for a requester, who may not approve it: nobody else begins anything.
    foreign = await desk.say(session, "deploy", "tom")
    assert refusal(foreign) == (403, "not_owner")
    assert foreign.json()["owner"] == "rita"
    thread = await threads.find(desk.keyturn.ctx, caller("tom"), session)
    with pytest.raises(NotOwner):
        await threads.begin(desk.keyturn.ctx, caller("tom"), thread, graph="clerk", input={})


async def test_c4_the_same_request_again_changes_nothing_and_says_what_it_led_to(desk: Office) -> None:
    body = {"graph": "clerk", "message": "travel"}
    first = await desk.post("/sessions", key="k1", **body)
    session = first.json()["session_id"]
    await desk.settled(session, "waiting")
    again = await desk.post("/sessions", key="k1", **body)
    assert (again.status_code, again.json()["session_id"], again.json()["replayed"]) == (200, session, True)
    assert refusal(await desk.post("/sessions", key="k1", graph="echo")) == (409, "idempotency_conflict")
    path = f"/sessions/{session}/messages"
    answers = await asyncio.gather(*(desk.post(path, key="k2", content="Rome") for _ in range(4)))
    assert {one.status_code for one in answers} == {200}
    assert sum(not one.json()["replayed"] for one in answers) == 1
    await desk.settled(session)
    # Sent late, an answer does not become a message.
    late = await desk.post(path, key="k2", content="Rome")
    assert (late.json()["did"], late.json()["replayed"]) == ("answered", True)
    spoken = await asyncio.gather(*(desk.post(path, key="k3", content="hello") for _ in range(4)))
    assert sorted(one.status_code for one in spoken) == [200, 200, 200, 201]
    assert len({one.json()["workflow_id"] for one in spoken}) == 1
    await desk.settled(session)
    assert [one for one, _ in await desk.told(session)] == [
        "message", "question", "answer", "result", "message", "result"
    ]  # fmt: skip


async def test_c4_ending_a_session_cancels_what_it_runs_and_asks(desk: Office, tmp_path: Path) -> None:
    asking = await desk.begin(message="travel")
    (asked,) = (await desk.settled(asking, "waiting"))["pending"]
    running_one = await desk.begin(message=f"wait {tmp_path / 'never'}")
    await desk.keyturn.until((await desk.record(running_one))["workflow_id"], "running")
    foreign = await desk.people["tom"].delete(f"/sessions/{asking}")
    assert refusal(foreign) == (403, "not_owner")
    for session in (asking, running_one):
        ended = await desk.people["rita"].request("DELETE", f"/sessions/{session}", json={"reason": "enough"})
        assert (ended.json()["state"], ended.json()["workflow_status"]) == ("ended", "cancelled")
        again = await desk.people["rita"].delete(f"/sessions/{session}")
        assert (again.status_code, again.json()["ended_at"]) == (200, ended.json()["ended_at"])
        assert (await desk.told(session))[-1] == ("ended", "enough")
        page = (
            await desk.people["rita"].get(f"/sessions/{session}/events", headers={"Accept": "application/json"})
        ).json()
        assert (page["events"][-1]["type"], page["events"][-1]["actor"]) == ("session-ended", "rita")
        assert refusal(await desk.say(session, "hello")) == (410, "session_ended")
    gone = await desk.post(f"/approvals/{asked['approval_id']}/answer", "tom", answer="Oslo")
    assert refusal(gone) == (409, "already_resolved")
    everything = await desk.people["rita"].get("/sessions", params={"all": True, "limit": 1})
    page = everything.json()
    assert [one["session_id"] for one in page["sessions"]] == [running_one]
    rest = await desk.people["rita"].get("/sessions", params={"all": True, "limit": 1, "cursor": page["next_cursor"]})
    assert [one["session_id"] for one in rest.json()["sessions"]] == [asking]


async def test_c4_what_is_wrong_or_not_ones_own_is_refused_and_leaves_nothing(closed: Office) -> None:
    session = await closed.begin()
    wrong: list[tuple[dict[str, Any], int, str]] = [
        ({"graph": "none"}, 404, "not_found"),
        ({"graph": "clerk", "mode": "rogue"}, 422, "invalid_input"),
        ({"graph": "clerk", "message": "a", "input": {}}, 422, "invalid_input"),
        ({"graph": "clerk", "message": "   "}, 422, "invalid_input"),
        ({"graph": "clerk", "idle_seconds": 0}, 422, "invalid_input"),
        ({"graph": "clerk", "cap": 9}, 422, "invalid_input"),
        ({"graph": "clerk", "message": "a\x00b"}, 422, "invalid_input"),
        ({"graph": "order", "message": "two pens"}, 422, "invalid_input"),
    ]
    for body, status, code in wrong:
        assert refusal(await closed.post("/sessions", **body)) == (status, code), body
    path = f"/sessions/{session}/messages"
    malformed: list[dict[str, Any]] = [
        {}, {"content": "a", "input": {}}, {"input": {}, "approval_id": "ap-1"}, {"text": "a"}
    ]  # fmt: skip
    for body in malformed:
        assert refusal(await closed.post(path, **body)) == (422, "invalid_input"), body
    listed = await closed.people["rita"].get("/sessions", params={"all": True})
    assert [one["session_id"] for one in listed.json()["sessions"]] == [session]
    assert await closed.history(session) == []
    async with closed.edge.http(await closed.edge.key("eve", namespace="elsewhere")) as eve:
        answers = [
            await eve.get(f"/sessions/{session}"), await eve.get(path), await eve.delete(f"/sessions/{session}"),
            await eve.post(path, json={"content": "hello"}), await eve.get(f"/sessions/{session}/events"),
        ]  # fmt: skip
    assert [refusal(one) for one in answers] == [(404, "not_found")] * 5
    async with closed.edge.http(await closed.edge.key("ron", ("read",))) as ron:
        assert (await ron.get(f"/sessions/{session}")).status_code == 200
        assert refusal(await ron.post(path, json={"content": "hello"})) == (403, "forbidden")
        assert refusal(await ron.post("/sessions", json={"graph": "clerk"})) == (403, "forbidden")
    async with closed.edge.http(await closed.edge.key("sue", ("submit",))) as sue:
        begun = await sue.post("/sessions", json={"graph": "clerk"})
        assert begun.status_code == 201
        assert (await sue.delete(f"/sessions/{begun.json()['session_id']}")).status_code == 200
    async with closed.edge.http(await closed.edge.key("cleo", ("submit", "read", "admin"))) as cleo:
        ended = await cleo.delete(f"/sessions/{session}")
    assert (ended.status_code, ended.json()["ended_reason"]) == (200, "closed by cleo")


async def test_c5_a_change_of_a_session_is_heard_in_under_a_second(desk: Office) -> None:
    session = await desk.begin()
    headers = {"Accept": "text/event-stream"}
    async with desk.people["tom"].stream("GET", f"/sessions/{session}/events", headers=headers) as response:
        assert response.status_code == 200
        chunks = response.aiter_bytes()
        assert isinstance(chunks, AsyncGenerator)
        stream = Stream(response, chunks)
        for said, until in (("travel", "confirmation-required"), ("Rome", "workflow-completed")):
            began = time.monotonic()
            await desk.say(session, said)
            heard: list[str] = []
            while until not in heard:
                heard.append((await stream.next())["event"])
            assert time.monotonic() - began < 1.0
