"""The verbs of workflows and approvals over HTTP: what they answer, and how a refusal names what helps."""

from __future__ import annotations

import asyncio

from tests.harness import Keyturn
from tests.web.edge import Edge


async def deploy(keyturn: Keyturn) -> str:
    """A workflow that waits for a decision of a team lead or tech lead."""
    workflow_id = await keyturn.submit("governed", operation="deploy", environment="production")
    await keyturn.asked(workflow_id)
    return workflow_id


async def test_a_submission_is_durable_when_it_is_answered_and_not_doubled(edge: Edge) -> None:
    body = {"graph": "steps", "input": {"text": "x"}, "title": "Steps", "case_id": "c-1", "priority": 3}
    async with edge.http(await edge.key()) as http:
        first = await http.post("/workflows", json=body, headers={"Idempotency-Key": "k"})
        assert first.status_code == 201
        assert first.json()["success"] is True
        assert first.json()["status"] == "ready"
        assert first.headers["location"] == f"/workflows/{first.json()['workflow_id']}"
        again = await http.post("/workflows", json=body, headers={"Idempotency-Key": "k"})
        assert again.status_code == 200
        assert again.json()["replayed"] is True
        assert again.json()["workflow_id"] == first.json()["workflow_id"]
        other = await http.post("/workflows", json={**body, "title": "Other"}, headers={"Idempotency-Key": "k"})
        assert other.status_code == 409
        assert other.json()["code"] == "idempotency_conflict"
        unknown = await http.post("/workflows", json={"graph": "nope"})
        assert unknown.status_code == 404
        assert "steps" in unknown.json()["allowed"]
        found = (await http.get(first.headers["location"])).json()
        assert found["success"] is True
        assert (found["title"], found["case_id"], found["priority"], found["requester"]) == ("Steps", "c-1", 3, "rita")


async def test_workflows_are_listed_newest_first_in_pages_that_neither_skip_nor_repeat(edge: Edge) -> None:
    async with edge.http(await edge.key()) as http:
        made = [
            (await http.post("/workflows", json={"graph": "steps", "title": f"n{number}"})).json()["workflow_id"]
            for number in range(5)
        ]
        seen: list[str] = []
        cursor: str | None = None
        while True:
            params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await http.get("/workflows", params=params)).json()
            seen += [one["workflow_id"] for one in page["workflows"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == made[::-1]
        assert [one["title"] for one in (await http.get("/workflows?q=n3")).json()["workflows"]] == ["n3"]
        assert (await http.get("/workflows?status=completed")).json()["workflows"] == []


async def test_a_waiting_workflow_is_shown_approved_and_run(edge: Edge, keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow_id = await deploy(keyturn)
        async with edge.http(await edge.key("tara")) as tara:
            (line,) = (await tara.get("/workflows/pending")).json()["workflows"]
            assert line["workflow_id"] == workflow_id
            assert line["risk_level"] == "high"
            assert line["requested_by"] == "rita"
            assert line["approvers"] == ["team_lead", "tech_lead"]
            assert len((await tara.get("/workflows/pending?mine=true")).json()["workflows"]) == 1
            assert (await tara.get("/workflows/pending?role=cto")).json()["workflows"] == []
            why = (await tara.get(f"/approvals/{line['approval_id']}/explain?person=rita")).json()
            assert why["risk_level"] == "high"
            assert "self_approval" in why["why_not"]["rita"]
            decided = await tara.post(f"/workflows/{workflow_id}/approve", json={"justification": "go"})
            assert decided.status_code == 200
            assert decided.json()["success"] is True
            assert decided.json()["code"] == "resolved"
            assert decided.json()["resolved_by"] == "tara"
            await keyturn.until(workflow_id, "completed")
            replayed = await tara.post(f"/workflows/{workflow_id}/approve", json={"justification": "go"})
            assert (replayed.status_code, replayed.json()["code"]) == (200, "replayed")
            status = (await tara.get(f"/workflows/{workflow_id}/status")).json()
            assert status["status"] == "completed"
            assert status["approvals"][0]["votes"][0]["voter"] == "tara"
            assert "workflow-completed" in [event["type"] for event in status["history"]]


async def test_refused_decisions_say_why_and_change_nothing(edge: Edge, keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow_id = await deploy(keyturn)
    path = f"/workflows/{workflow_id}/approve"
    cases = [
        ("rita", {}, 403, "self_approval"),
        ("cleo", {}, 403, "not_eligible"),
        ("tara", {"approved_by": "tom"}, 403, "identity_mismatch"),
        ("tara", {"revision": 2**40}, 409, "stale_revision"),
        ("tara", {"revision": -(2**62)}, 409, "stale_revision"),
        ("tara", {"digest": "0" * 64}, 409, "hash_mismatch"),
        ("tara", {"approval_id": "ap-none"}, 404, "not_found"),
    ]
    for person, body, status, code in cases:
        async with edge.http(await edge.key(person)) as http:
            answer = await http.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert (await keyturn.get(workflow_id)).status == "waiting"
    async with edge.http(await edge.key("tom")) as tom, edge.http(await edge.key("theo")) as theo:
        assert (await tom.post(path, json={})).status_code == 200
        late = await theo.post(f"/workflows/{workflow_id}/reject", json={"reason": "no"})
        assert late.status_code == 409
        assert late.json()["code"] == "already_resolved"
        assert late.json()["resolved_by"] == "tom"
        assert late.json()["resolved_at"]
    assert (await keyturn.types(workflow_id)).count("refused") == len(cases) + 1


async def test_racing_decisions_have_one_winner_whom_the_others_are_told(edge: Edge, keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow_id = await deploy(keyturn)
    async with edge.http() as http:
        calls = [
            http.post(
                f"/workflows/{workflow_id}/{'approve' if number % 2 else 'reject'}",
                json={"reason": "no"} if number % 2 == 0 else {},
                headers={"X-API-Key": await edge.key(person)},
            )
            for number, person in enumerate(["tom", "tara", "theo"])
        ]
        answers = await asyncio.gather(*calls)
    won = [answer for answer in answers if answer.status_code == 200]
    lost = [answer for answer in answers if answer.status_code == 409]
    assert len(won) == 1
    assert len(lost) == 2
    assert {answer.json()["resolved_by"] for answer in lost} == {won[0].json()["resolved_by"]}


async def test_several_pending_approvals_are_listed_and_one_must_be_named(edge: Edge, keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow_id = await keyturn.submit("parallel")
        await keyturn.until(workflow_id, "waiting")
        async with edge.http(await edge.key("tom")) as http:
            vague = await http.post(f"/workflows/{workflow_id}/approve", json={})
            assert vague.status_code == 409
            assert vague.json()["code"] == "approval_id_needed"
            listed = vague.json()["approvals"]
            assert len(listed) == 2
            for one in listed:
                answer = await http.post(f"/approvals/{one['approval_id']}/answer", json={"answer": "yes"})
                assert answer.status_code == 200, answer.text
        done = await keyturn.until(workflow_id, "completed", "failed")
    assert done.status == "completed"


async def test_cancel_and_retry_are_refused_where_they_make_no_sense(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.http(await edge.key()) as http:
        workflow_id = await keyturn.submit("steps")
        refused = await http.post(f"/workflows/{workflow_id}/retry")
        assert refused.status_code == 409
        assert refused.json()["allowed"] == ["failed"]
        assert (await http.post(f"/workflows/{workflow_id}/cancel")).json()["status"] == "cancelled"
        again = await http.post(f"/workflows/{workflow_id}/cancel", json={"reason": "again"})
        assert again.status_code == 409
        assert again.json()["workflow_status"] == "cancelled"
        nothing = await http.post(f"/workflows/{workflow_id}/approve", json={})
        assert nothing.json()["code"] == "nothing_pending"


async def test_the_graph_is_drawn_with_where_it_stands(edge: Edge, keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow_id = await deploy(keyturn)
    async with edge.http(await edge.key()) as http:
        view = (await http.get(f"/workflows/{workflow_id}/graph")).json()
        states = {node["id"]: node["state"] for node in view["nodes"]}
        assert (states["assess"], states["gate"], states["act"]) == ("done", "pending-gate", "todo")
        drawn = await http.get(f"/workflows/{workflow_id}/graph?format=mermaid")
        assert drawn.headers["content-type"].startswith("text/plain")
        assert '["gate"]:::pending' in drawn.text
        picture = await http.get(f"/workflows/{workflow_id}/graph?format=svg")
        assert picture.headers["content-type"] == "image/svg+xml"
        assert "default-src 'none'" in picture.headers["content-security-policy"]
        assert '<g class="pending-gate">' in picture.text


async def test_an_action_is_explained_without_writing_anything(edge: Edge) -> None:
    async with edge.http(await edge.key()) as http:
        body = {"action": {"operation": "deploy", "environment": "production"}, "person": "cleo"}
        found = (await http.post("/policy/explain", json=body)).json()
        assert found["risk_level"] == "high"
        assert found["reasons"]
        assert "tara" in found["can_decide"]
        assert found["why_not"]["cleo"].startswith("not_eligible")
        assert (await http.get("/workflows")).json()["workflows"] == []
