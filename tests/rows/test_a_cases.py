"""Rows A1 to A3: confirmations inside a pipeline, by case, and live."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

import httpx

from orchestrator.service import workflows
from orchestrator.wire import SubmitRequest
from tests.harness import Keyturn
from tests.web.edge import Edge
from tests.web.sse import Stream, stream_at

_WAITING = 200
RISKY = {"operation": "deploy", "environment": "production"}


async def submit(keyturn: Keyturn, graph: str, case_id: str, **content: object) -> str:
    request = SubmitRequest(graph=graph, input=content, case_id=case_id)
    return (await workflows.submit(keyturn.ctx, keyturn.me, request)).workflow_id


async def pending(http: httpx.AsyncClient, case_id: str) -> list[dict[str, Any]]:
    answer = await http.get(f"/cases/{case_id}/confirmations/pending")
    assert answer.status_code == 200, answer.text
    return answer.json()["confirmations"]


async def confirm(http: httpx.AsyncClient, case_id: str, request_id: str, **body: object) -> httpx.Response:
    return await http.post(f"/cases/{case_id}/confirmations/{request_id}", json=body)


async def one_of(live: Stream, *kinds: str) -> dict[str, Any]:
    while (event := await live.next())["event"] not in kinds:
        pass
    return event


async def _held(keyturn: Keyturn) -> int:
    """How many workflows some worker holds."""
    async with keyturn.ctx.db.connection() as conn:
        found = await conn.execute("SELECT count(*) AS held FROM keyturn.workflows WHERE owner IS NOT NULL")
        row = await found.fetchone()
    return -1 if row is None else row["held"]


@contextlib.asynccontextmanager
async def longest_block() -> AsyncGenerator[list[float]]:
    """For how long the event loop was not free at most while the block ran."""
    found = [0.0]

    async def look() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            found[0] = max(found[0], time.monotonic() - began - 0.01)

    task = asyncio.create_task(look())
    try:
        yield found
    finally:
        task.cancel()


async def test_a1_a_node_waits_for_a_confirmation_and_holds_nothing_meanwhile(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.http(await edge.key("tom")) as http:
        async with keyturn.working():
            ids = [await submit(keyturn, "yes_or_no", "many") for _ in range(_WAITING)]
            for workflow_id in ids:
                await keyturn.until(workflow_id, "waiting", seconds=60)
            assert await _held(keyturn) == 0
            # A worker with 200 questions open does nothing, and its loop is free for others.
            spent = time.process_time()
            async with longest_block() as block:
                await asyncio.sleep(1)
                done = await submit(keyturn, "steps", "another")
                await keyturn.until(done, "completed")
            assert time.process_time() - spent < 1.0
            assert block[0] < 0.5
        # No worker is there any more: what waits does not need one, and an answer is kept until one comes.
        asked = await pending(http, "many")
        assert {one["workflow_id"] for one in asked} == set(ids)
        for one in asked[:3]:
            assert (await confirm(http, "many", one["request_id"], approved=True)).json()["code"] == "resolved"
        async with keyturn.working():
            for one in asked[:3]:
                found = await keyturn.until(one["workflow_id"], "completed")
                assert found.result == {"log": ["sure=True"]}
        assert len(await pending(http, "many")) == _WAITING - 3


async def test_a2_the_confirmations_of_a_case_are_listed_and_decided_by_their_ids(edge: Edge, keyturn: Keyturn) -> None:
    async with (
        keyturn.working(),
        edge.http(await edge.key("tara")) as tara,
        edge.http(await edge.key("rita")) as rita,
        edge.http(await edge.key("tom", ("read",))) as reader,
    ):
        runs = [await submit(keyturn, "governed", "c 1/2", **RISKY) for _ in range(2)]
        sure = await submit(keyturn, "yes_or_no", "c 1/2")
        open_question = await submit(keyturn, "two_questions", "c 1/2")
        elsewhere = await submit(keyturn, "governed", "other", **RISKY)
        for workflow_id in (*runs, sure, open_question, elsewhere):
            await keyturn.until(workflow_id, "waiting")
        case = "c%201%2F2"
        asked = {one["workflow_id"]: one for one in await pending(reader, case)}
        assert set(asked) == {*runs, sure, open_question}
        first = asked[runs[0]]
        assert first["request_id"] == first["approval_id"]
        assert (first["case_id"], first["kind"], first["risk_level"]) == ("c 1/2", "approval", "high")
        assert [asked[one]["yes_or_no"] for one in (runs[0], sure, open_question)] == [True, True, False]
        assert asked[sure]["question"]["prompt"] == "Sure?"
        assert await pending(reader, "nothing-is-in-here") == []

        # Governed like any decision: who asked cannot approve it, who may only read cannot decide.
        refused = await confirm(rita, case, first["request_id"], approved=True)
        assert (refused.status_code, refused.json()["code"]) == (403, "self_approval")
        assert (await confirm(reader, case, first["request_id"], approved=True)).status_code == 403
        # The request of another case is none of this one.
        other = (await pending(tara, "other"))[0]["request_id"]
        for request_id in (other, "ap-none"):
            unknown = await confirm(tara, case, request_id, approved=True, note="go")
            assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
        wrong = await confirm(tara, case, asked[open_question]["request_id"], approved=True)
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_answer")
        assert f"/approvals/{asked[open_question]['request_id']}/answer" in wrong.json()["detail"]
        assert (await confirm(tara, case, first["request_id"], note="go")).status_code == 422
        assert (await confirm(tara, case, first["request_id"], approved="sure")).status_code == 422

        assert (await confirm(tara, case, first["request_id"], approved=True, note="go")).json()["code"] == "resolved"
        no = await confirm(tara, case, asked[runs[1]]["request_id"], approved=False, note="not today")
        assert (no.json()["state"], no.json()["status"]) == ("rejected", "rejected")
        answered = await confirm(tara, case, asked[sure]["request_id"], approved=False, note="not sure at all")
        assert answered.json()["state"] == "answered"
        again = await confirm(tara, case, asked[sure]["request_id"], approved=True)
        assert (again.status_code, again.json()["code"]) == (409, "already_resolved")
        assert (await keyturn.until(runs[0], "completed")).approvals[0].votes[0].justification == "go"
        assert (await keyturn.until(runs[1], "rejected")).reason == "not today"
        said = await keyturn.until(sure, "completed")
        assert said.result == {"log": ["sure=False"]}
        assert (said.approvals[0].decision or {})["note"] == "not sure at all"
        assert {one["workflow_id"] for one in await pending(reader, case)} == {open_question}


async def test_a2_a_case_that_can_be_named_can_be_asked_for(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.http(await edge.key("tara")) as http:
        for case_id in ("a b", "é漢", "a/b/events", "../x", "a/", "?#%", "a.", "a\u2028b", "..a"):
            await submit(keyturn, "steps", case_id)
            path = f"/cases/{quote(case_id, safe='')}"
            found = await http.get(f"{path}/events", headers={"Accept": "application/json"})
            assert [one["case_id"] for one in found.json()["events"]] == [case_id]
            assert await pending(http, quote(case_id, safe="")) == []
        for case_id in ("a\nb", ".", "..", "\x7f", ""):
            refused = await http.post("/workflows", json={"graph": "steps", "input": {}, "case_id": case_id})
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input"), case_id


async def test_a3_confirmations_of_a_case_are_told_live_and_matched_by_the_request(
    edge: Edge, keyturn: Keyturn
) -> None:
    async with keyturn.working(), edge.http(await edge.key("tara")) as http:
        async with stream_at(http, "/cases/c/events") as live:
            run = await submit(keyturn, "governed", "c", **RISKY)
            required = await one_of(live, "confirmation-required", "confirmation-resolved")
            assert required["event"] == "confirmation-required"
            assert (required["data"]["workflow_id"], required["data"]["case_id"]) == (run, "c")
            request_id = required["data"]["request_id"]
            assert request_id == required["data"]["data"]["request_id"]
            assert [one["request_id"] for one in await pending(http, "c")] == [request_id]
            began = time.monotonic()
            await confirm(http, "c", request_id, approved=True, note="go")
            resolved = await one_of(live, "confirmation-resolved")
            assert time.monotonic() - began < 1.0
            assert (resolved["data"]["request_id"], resolved["data"]["data"]["state"]) == (request_id, "approved")
            await one_of(live, "workflow-completed")
        # Whoever was away meanwhile is told of the rest, and in particular of what was never decided.
        sure, pair = await submit(keyturn, "yes_or_no", "c"), await submit(keyturn, "parallel", "c")
        for workflow_id in (sure, pair):
            await keyturn.until(workflow_id, "waiting")
            await http.post(f"/workflows/{workflow_id}/cancel", json={"reason": "over"})
        path = "/cases/c/events?types=confirmation-required,confirmation-resolved"
        found: dict[str, list[tuple[str, str]]] = {}
        async with stream_at(http, path, **{"Last-Event-ID": resolved["id"]}) as live:
            for _ in range(6):
                event = await live.next()
                state = event["data"]["data"].get("state", "pending")
                found.setdefault(event["data"]["request_id"], []).append((event["event"], state))
        assert len(found) == 3
        for told in found.values():
            assert told == [("confirmation-required", "pending"), ("confirmation-resolved", "cancelled")]
