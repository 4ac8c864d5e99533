"""Whatever a client sends, it gets a problem document that says what was wrong, and never a 500."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from orchestrator.core import errors
from orchestrator.core.errors import InvalidInput, KeyturnError
from orchestrator.web.limits import MAX_BODY, check_body
from orchestrator.web.problems import STATUS, Malformed
from tests.web.edge import Edge

NESTED = 64


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


TAKEN = [
    b"{}",
    b'{"a": "\\ud83d\\ude00 and \\u0041"}',
    b'{"a": 9223372036854775807, "b": -9223372036854775808, "c": 1.5e300}',
    deep(NESTED),
    b"[" + b",".join([b"[]"] * 500) + b"]",
    b'{"a": "[[[[[[' + b"[" * 200 + b'"}',
]

REFUSED = [
    (b"{", Malformed),
    (b'{"a": 1,}', Malformed),
    (b"\xff\xfe", Malformed),
    (b'{"a": "\x00"}', InvalidInput),
    (b'{"a": "\\u0000"}', InvalidInput),
    (b'{"\\u0000": 1}', InvalidInput),
    (b'{"a": ["\\ud800"]}', InvalidInput),
    (b'{"a": "\\udc00\\ud800"}', InvalidInput),
    (b'{"\\udfff": 1}', InvalidInput),
    (b'{"a": "\xed\xa0\x80"}', InvalidInput),
    (b'{"a": 9223372036854775808}', InvalidInput),
    (b'{"a": -9223372036854775809}', InvalidInput),
    (b'{"a": 1' + b"0" * 100_000 + b"}", InvalidInput),
    (b'{"a": 1e999}', InvalidInput),
    (b'{"a": NaN}', InvalidInput),
    (b'{"a": -Infinity}', InvalidInput),
    (deep(NESTED + 1), InvalidInput),
    (deep(100_000), InvalidInput),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, InvalidInput),
]


@pytest.mark.parametrize("body", TAKEN)
def test_ordinary_json_is_taken(body: bytes) -> None:
    check_body(body)


@pytest.mark.parametrize(("body", "error"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_json_that_could_not_be_kept_is_refused_before_it_is_used(body: bytes, error: type[KeyturnError]) -> None:
    with pytest.raises(error):
        check_body(body)


def test_every_refusal_has_its_status() -> None:
    def below(kind: type[KeyturnError]) -> list[type[KeyturnError]]:
        return [kind, *(one for sub in kind.__subclasses__() for one in below(sub))]

    refusals = {
        one.code for one in below(errors.Refusal) if one is not errors.Refusal and one.__module__ == errors.__name__
    }
    # Only a worker raises these; they are shown as the reason of a workflow.
    refusals -= {"step_failed", "rolled_back", "tool_missing"}
    assert refusals <= set(STATUS)
    assert all(400 <= status < 500 for code, status in STATUS.items() if code != "unavailable")
    assert STATUS["unavailable"] == 503


async def test_bad_bodies_are_answered_with_a_problem(edge: Edge) -> None:
    async with edge.http(await edge.key()) as http:
        for body, error in REFUSED:
            answer = await http.post("/workflows", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == STATUS[error.code], body[:40]
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            assert problem["code"] == error.code
            assert problem["status"] == answer.status_code
            assert problem["type"] == f"urn:keyturn:problem:{error.code}"
            assert problem["title"]
            assert problem["detail"]


async def test_a_large_body_is_refused_whether_its_length_is_told_or_not(edge: Edge) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000

    async with edge.http(await edge.key()) as http:
        for content in (b"x" * 10_000_000, b'{"graph": "' + b"x" * MAX_BODY, chunks()):
            answer = await http.post("/workflows", content=content)
            assert answer.status_code == 413
            assert answer.json()["code"] == "too_large"
            assert answer.json()["limit"] == MAX_BODY
        as_json = {"Content-Type": "application/json"}
        just_fits = json.dumps({"graph": "steps", "input": {"text": "x" * (MAX_BODY - 100)}})
        assert (await http.post("/workflows", content=just_fits, headers=as_json)).status_code == 201


async def test_wrong_fields_are_named_and_what_was_sent_is_not_repeated(edge: Edge) -> None:
    async with edge.http(await edge.key()) as http:
        answer = await http.post("/workflows", json={"graph": "", "priority": "s3cret", "colour": "red"})
        assert answer.status_code == 422
        problem = answer.json()
        assert {one["where"] for one in problem["errors"]} == {"body.graph", "body.priority", "body.colour"}
        assert "s3cret" not in answer.text
        for path, body in (
            ("/workflows", None),
            ("/workflows", []),
            ("/workflows", {"graph": "steps", "input": []}),
            ("/workflows", {"graph": "steps", "deadline": -1}),
            ("/workflows", {"graph": "steps", "mode": "reckless"}),
            ("/workflows/wf-1/approve", {"revision": "one"}),
            ("/workflows/wf-1/approve", {"justification": "x" * 5000}),
            ("/workflows/wf-1/approve", {"approve": True}),
            ("/approvals/ap-1/votes", {"verdict": "maybe"}),
            ("/approvals/ap-1/answer", {}),
            ("/policy/explain", {"action": {}}),
            ("/policy/explain", {"action": {"operation": 5}}),
        ):
            answer = await http.post(path, json=body)
            assert answer.status_code == 422, (path, body, answer.text)
            assert answer.json()["code"] == "invalid_input"


async def test_addresses_that_cannot_be_meant_are_refused(edge: Edge) -> None:
    async with edge.http(await edge.key()) as http:
        for target, status in (
            ("/workflows/a%00b", 422),
            ("/workflows?q=%00", 422),
            ("/workflows?status=asleep", 422),
            ("/workflows?limit=99999999999999999999", 422),
            ("/workflows?limit=0", 422),
            ("/workflows?cursor=nonsense", 422),
            ("/workflows?cursor=%F0%9F%98%80", 422),
            (f"/workflows?q={'x' * 9000}", 422),
            ("/workflows/pending?risk=mild", 422),
            ("/workflows/wf-1/events?after=-1", 422),
            ("/workflows/wf-1/events?after=9223372036854775808", 422),
            ("/workflows/wf-1/graph?format=gif", 422),
            ("/workflows/%ff%fe", 404),
            ("/workflows/..%2f..%2fetc", 404),
            ("/workflows/" + "x" * 5000, 404),
            ("/workflows/wf-\u202e", 404),
            ("/nothing/here", 404),
        ):
            answer = await http.get(target)
            assert answer.status_code == status, (target, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
        wrong_cursors = {"Last-Event-ID": "seven"}
        assert (await http.get("/workflows/wf-1/events", headers=wrong_cursors)).status_code == 422
        assert (await http.get("/workflows/wf-1/events", headers={"Last-Event-ID": "9" * 40})).status_code == 422
        not_taken = await http.put("/workflows")
        assert not_taken.status_code == 405
        assert not_taken.headers["allow"]
        assert not_taken.json()["code"] == "method_not_allowed"
        long_key = {"Idempotency-Key": "k" * 300}
        assert (await http.post("/workflows", json={"graph": "steps"}, headers=long_key)).status_code == 422


async def test_a_client_that_leaves_in_the_middle_disturbs_nobody(edge: Edge) -> None:
    key = await edge.key()
    where = urlsplit(edge.url)
    for sent in (
        "POST /workflows HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
        f"GET /workflows HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n",
        "GARBAGE\r\n\r\n",
    ):
        _, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(sent.encode())
        await writer.drain()
        writer.transport.abort()
    async with edge.http(key) as http:
        assert (await http.get("/workflows")).status_code == 200


async def test_the_interface_is_described(edge: Edge) -> None:
    async with edge.http() as http:
        described = (await http.get("/openapi.json")).json()
    assert described["openapi"].startswith("3.")
    submitting = described["paths"]["/workflows"]["post"]
    assert submitting["security"]
    assert submitting["responses"]["4XX"] == {"$ref": "#/components/responses/Problem"}
    assert "application/problem+json" in described["components"]["responses"]["Problem"]["content"]
    assert described["components"]["schemas"]["Problem"]["required"]
    assert "HTTPValidationError" not in described["components"]["schemas"]


async def test_a_fault_of_ours_tells_nothing_of_the_inside(edge: Edge) -> None:
    async def broken() -> None:
        raise RuntimeError("password=hunter2")

    edge.app.add_api_route("/broken", broken)
    async with edge.http() as http:
        answer = await http.get("/broken")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "hunter2" not in answer.text


async def test_a_body_that_was_not_sent_as_json_is_told_apart_from_a_wrong_one(edge: Edge) -> None:
    async with edge.http(await edge.key("rita", ("submit",))) as http:
        form = await http.post("/inbox", content='{"text": "x"}', headers={"Content-Type": "text/plain"})
        assert (form.status_code, form.json()["code"]) == (400, "malformed")
        assert "send `Content-Type: application/json`" in form.json()["detail"]
        for sent, told in [([1], "body: must be a JSON object"), ({"text": " "}, "body.text: must not be blank")]:
            wrong = await http.post("/inbox", json=sent)
            assert (wrong.status_code, wrong.json()["detail"]) == (422, told)
