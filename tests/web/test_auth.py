"""Every route needs a credential with the right permission, and shows nothing of another namespace."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from tests.harness import Keyturn
from tests.web.edge import ALL, Edge

# A link is its own credential.
OPEN = {"/healthz", "/readyz", "/metrics", "/links/{token}"}

# Method and path of every route, the permission it needs, and a body that it takes.
ROUTES: list[tuple[str, str, str, dict[str, Any] | None]] = [
    ("POST", "/workflows", "submit", {"graph": "steps"}),
    ("GET", "/workflows", "read", None),
    ("GET", "/workflows/pending", "read", None),
    ("GET", "/workflows/{workflow_id}", "read", None),
    ("GET", "/workflows/{workflow_id}/status", "read", None),
    ("GET", "/workflows/{workflow_id}/events", "read", None),
    ("GET", "/workflows/{workflow_id}/graph", "read", None),
    ("POST", "/workflows/{workflow_id}/cancel", "submit", {"reason": "enough"}),
    ("POST", "/workflows/{workflow_id}/retry", "submit", None),
    ("POST", "/workflows/{workflow_id}/approve", "decide", {}),
    ("POST", "/workflows/{workflow_id}/reject", "decide", {"reason": "no"}),
    ("GET", "/approvals/{approval_id}", "read", None),
    ("GET", "/approvals/{approval_id}/explain", "read", None),
    ("POST", "/approvals/{approval_id}/votes", "decide", {"verdict": "approve"}),
    ("POST", "/approvals/{approval_id}/answer", "decide", {"answer": 1}),
    ("POST", "/approvals/batch", "decide", {"decisions": [{"approval_id": "ap-none", "verdict": "approve"}]}),
    ("POST", "/approvals/{approval_id}/edit", "submit or decide", {"action": {"operation": "vacuum"}}),
    ("POST", "/approvals/{approval_id}/withdraw", "submit", {"reason": "enough"}),
    ("POST", "/workflows/{workflow_id}/withdraw", "submit", {"reason": "enough"}),
    ("POST", "/approvals/{approval_id}/break-glass", "decide", {"justification": "it burns"}),
    ("POST", "/approvals/{approval_id}/review", "decide", {"note": "it was right"}),
    ("POST", "/approvals/{approval_id}/links", "decide", {"person": "rita", "verdict": "approve"}),
    ("GET", "/delegations", "read", None),
    ("POST", "/delegations", "decide", {"to": "none", "ends_at": "2999-01-01T00:00:00Z"}),
    ("DELETE", "/delegations/{delegation_id}", "decide", None),
    ("POST", "/policy/explain", "read", {"action": {"operation": "vacuum"}}),
    ("GET", "/policy/versions", "read", None),
    ("GET", "/policy/versions/{version}", "read", None),
    ("POST", "/policy/publish", "admin", {"text": "policies: []"}),
    ("POST", "/policy/simulate", "admin or audit", {"text": "policies: []"}),
    ("GET", "/people", "admin", None),
    ("POST", "/people", "admin", {"person": "new"}),
    ("GET", "/keys", "admin", None),
    ("POST", "/keys", "admin", {"person": "rita", "permissions": ["read"]}),
    ("DELETE", "/keys/{key_id}", "admin", None),
    ("GET", "/audit", "audit", None),
    ("GET", "/audit/verify", "audit", None),
    ("POST", "/audit/verify", "audit", {"heads": []}),
    ("GET", "/audit/export", "audit", None),
    ("GET", "/audit/anchor", "audit", None),
    ("GET", "/workflows/{workflow_id}/wait", "read", None),
    ("GET", "/events", "read", None),
    ("GET", "/cases/{case_id}/events", "read", None),
    ("GET", "/cases/{case_id}/confirmations/pending", "read", None),
    ("POST", "/cases/{case_id}/confirmations/{request_id}", "decide", {"approved": True}),
    # To begin or to answer needs more, once it is known what there is; see the tests of row D7.
    ("POST", "/ag-ui/{graph}", "read", {"threadId": "none", "runId": "r", "messages": []}),
    ("POST", "/ag-ui/respond", "read", {"thread_id": "none", "response": 1}),
    ("GET", "/workflows/{workflow_id}/progress", "read", None),
    ("GET", "/tasks", "read", None),
    ("POST", "/sessions", "submit", {"graph": "governed"}),
    ("GET", "/sessions", "read", None),
    ("GET", "/sessions/{session_id}", "read", None),
    ("POST", "/sessions/{session_id}/messages", "submit or decide", {"content": "hello"}),
    ("GET", "/sessions/{session_id}/messages", "read", None),
    ("GET", "/sessions/{session_id}/events", "read", None),
    ("DELETE", "/sessions/{session_id}", "submit", None),
    ("POST", "/inbox", "submit", {"text": "Buy milk"}),
    ("GET", "/inbox", "read", None),
    ("GET", "/inbox/{workflow_id}", "read", None),
    ("GET", "/info", "read", None),
    ("GET", "/ok", "read", None),
    ("POST", "/assistants/search", "read", {}),
    ("POST", "/assistants/count", "read", {}),
    ("GET", "/assistants/{assistant_id}", "read", None),
    ("GET", "/assistants/{assistant_id}/schemas", "read", None),
    ("GET", "/assistants/{assistant_id}/graph", "read", None),
    ("GET", "/assistants/{assistant_id}/subgraphs", "read", None),
    ("POST", "/threads", "submit", {}),
    ("POST", "/threads/search", "read", {}),
    ("POST", "/threads/count", "read", {}),
    ("GET", "/threads/{thread_id}", "read", None),
    ("PATCH", "/threads/{thread_id}", "submit", {"metadata": {}}),
    ("DELETE", "/threads/{thread_id}", "submit", None),
    ("POST", "/threads/{thread_id}/copy", "submit", None),
    ("GET", "/threads/{thread_id}/state", "read", None),
    ("GET", "/threads/{thread_id}/state/{checkpoint_id}", "read", None),
    ("POST", "/threads/{thread_id}/state/checkpoint", "read", {"checkpoint": {}}),
    ("POST", "/threads/{thread_id}/state", "submit or decide", {"values": None, "as_node": "__end__"}),
    ("POST", "/threads/{thread_id}/history", "read", {}),
    ("GET", "/threads/{thread_id}/history", "read", None),
    ("POST", "/threads/{thread_id}/runs", "submit or decide", {"assistant_id": "none", "input": {}}),
    ("POST", "/threads/{thread_id}/runs/stream", "submit or decide", {"assistant_id": "none", "input": {}}),
    ("POST", "/threads/{thread_id}/runs/wait", "submit or decide", {"assistant_id": "none", "input": {}}),
    ("GET", "/threads/{thread_id}/runs", "read", None),
    ("GET", "/threads/{thread_id}/runs/{run_id}", "read", None),
    ("DELETE", "/threads/{thread_id}/runs/{run_id}", "submit", None),
    ("GET", "/threads/{thread_id}/runs/{run_id}/join", "read", None),
    ("GET", "/threads/{thread_id}/runs/{run_id}/stream", "read", None),
    ("POST", "/threads/{thread_id}/runs/{run_id}/cancel", "submit", None),
    ("POST", "/runs", "submit", {"assistant_id": "none", "input": {}}),
    ("POST", "/runs/stream", "submit", {"assistant_id": "none", "input": {}}),
    ("POST", "/runs/wait", "submit", {"assistant_id": "none", "input": {}}),
    ("POST", "/runs/cancel", "submit", {"thread_id": "th-none", "run_ids": ["none"]}),
]


def test_the_table_of_routes_is_complete(edge: Edge) -> None:
    served = {
        (method.upper(), path)
        for path, methods in edge.app.openapi()["paths"].items()
        for method in methods
        if path not in OPEN
    }
    assert served == {(method, path) for method, path, _, _ in ROUTES}


def _filled(path: str, **ids: str) -> str:
    return path.format(
        **{
            "workflow_id": "wf-none",
            "approval_id": "ap-none",
            "key_id": "0" * 16,
            "version": "1",
            "delegation_id": "dg-none",
            "session_id": "se-none",
            "graph": "none",
            "case_id": "none",
            "request_id": "ap-none",
            "thread_id": "th-none",
            "run_id": "none",
            "assistant_id": "steps",
            "checkpoint_id": "none",
            **ids,
        }
    )


async def test_without_a_good_credential_every_route_answers_401(edge: Edge) -> None:
    good = await edge.key()
    head, key_id, secret = good.split("_", 2)
    wrong = [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {good}"},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Bearer {head}_{key_id}_{secret[:-1]}{'A' if secret[-1] != 'A' else 'B'}"},
        {"Authorization": f"Bearer {head}_{'0' * 16}_{secret}"},
        {"X-API-Key": ""},
        {"X-API-Key": f"{good}x"},
        {"X-API-Key": "kt_\xff_\xfe"},
    ]
    async with edge.http() as http:
        for method, path, _, body in ROUTES:
            answer = await http.request(method, _filled(path), json=body)
            assert answer.status_code == 401, (method, path)
        for headers in wrong:
            raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            answer = await http.get("/workflows", headers=raw)
            assert answer.status_code == 401, headers
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["code"] == "unauthenticated"


async def test_a_key_is_taken_as_bearer_and_in_its_own_header(edge: Edge) -> None:
    key = await edge.key()
    async with edge.http() as http:
        assert (await http.get("/workflows", headers={"Authorization": f"bearer {key}"})).status_code == 200
        assert (await http.get("/workflows", headers={"X-API-Key": key})).status_code == 200


async def test_the_probes_answer_without_a_credential(edge: Edge) -> None:
    async with edge.http() as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz")).json()["database"] is True
        assert (await http.get("/metrics")).status_code == 200


async def test_each_route_needs_its_own_permission_and_no_other(edge: Edge) -> None:
    everything = (*ALL, "act_as")
    kinds = {needed for _, _, needed, _ in ROUTES}
    without = {one: await edge.key("rita", tuple(set(everything) - set(one.split(" or ")))) for one in kinds}
    only = {one: await edge.key("rita", (one,)) for one in everything}
    async with edge.http() as http:
        for method, path, needed, body in ROUTES:
            headers = {"X-API-Key": without[needed]}
            refused = await http.request(method, _filled(path), json=body, headers=headers)
            assert refused.status_code == 403, (method, path, refused.text)
            assert refused.json()["code"] == "forbidden"
            assert refused.json()["needed"] == needed
            for one in needed.split(" or "):
                # As a page: a stream of what may come has no end.
                headers = {"X-API-Key": only[one], "Accept": "application/json"}
                allowed = await http.request(method, _filled(path), json=body, headers=headers)
                # A server without a key to sign anchors with says so, to those who may ask.
                assert allowed.status_code in (200, 201, 404, 409), (method, path, allowed.text)
                assert allowed.status_code != 409 or path == "/audit/anchor"


async def test_the_ids_of_another_namespace_are_not_found(edge: Edge, keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow_id = await keyturn.submit("governed", operation="deploy", environment="production")
        approval = await keyturn.asked(workflow_id)
    key_id = (await edge.key()).split("_")[1]
    stranger = await edge.key("eve", (*ALL, "act_as"), namespace="elsewhere")
    async with edge.http(stranger) as http:
        for method, path, _, body in ROUTES:
            # Graphs are on offer to all namespaces, and a case is whatever workflows name it.
            if "{" in path and "{assistant_id}" not in path and (method, path[:7]) != ("GET", "/cases/"):
                ids = {"workflow_id": workflow_id, "thread_id": workflow_id, "run_id": workflow_id, "key_id": key_id}
                target = _filled(path, approval_id=approval.approval_id, **ids)
                answer = await http.request(method, target, json=body)
                assert answer.status_code == 404, (method, path, answer.text)
                assert answer.json()["code"] == "not_found"
        assert (await http.get("/workflows")).json()["workflows"] == []
        assert (await http.get("/workflows/pending")).json()["workflows"] == []
        assert [one["person"] for one in (await http.get("/people")).json()["people"]] == ["eve"]
        assert len((await http.get("/keys")).json()["keys"]) == 1
    assert (await keyturn.get(workflow_id)).status == "waiting"
    assert "refused" not in await keyturn.types(workflow_id)


async def test_an_expired_key_is_refused(edge: Edge) -> None:
    key = await edge.key(expires_in=timedelta(microseconds=1))
    async with edge.http(key) as http:
        assert (await http.get("/workflows")).status_code == 401


async def test_a_revoked_key_is_refused_within_a_second(edge: Edge) -> None:
    key = await edge.key("tom", ("read",))
    async with edge.http(key) as tom, edge.http(await edge.key()) as admin:
        assert (await tom.get("/workflows")).status_code == 200
        revoked = await admin.delete(f"/keys/{key.split('_')[1]}")
        assert revoked.json()["revoked_at"] is not None
        until = time.monotonic() + 1.2
        while (await tom.get("/workflows")).status_code == 200:
            assert time.monotonic() < until
        again = await admin.delete(f"/keys/{key.split('_')[1]}")
        assert again.json()["revoked_at"] == revoked.json()["revoked_at"]


async def test_a_secret_is_shown_once_and_kept_as_a_hash(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.http(await edge.key()) as http:
        made = await http.post("/keys", json={"person": "tom", "permissions": ["read", "read"], "label": "ci"})
        assert made.status_code == 201
        assert made.json()["permissions"] == ["read"]
        secret = made.json()["key"].split("_", 2)[2]
        assert secret not in (await http.get("/keys")).text
    async with keyturn.ctx.db.connection() as conn:
        rows = await (await conn.execute("SELECT * FROM keyturn.api_keys")).fetchall()
    assert secret not in repr(rows)
    assert secret.encode().hex() not in repr(rows)


async def test_people_are_replaced_whole_and_their_names_are_checked(edge: Edge) -> None:
    async with edge.http(await edge.key()) as http:
        await http.post("/people", json={"person": "ann@example.org", "roles": ["cto", "team_lead"]})
        changed = await http.post("/people", json={"person": "ann@example.org", "name": "Ann", "roles": ["cto"]})
        assert changed.status_code == 201
        people = {one["person"]: one for one in (await http.get("/people")).json()["people"]}
        assert people["ann@example.org"] == {
            "person": "ann@example.org",
            "name": "Ann",
            "email": None,
            "roles": ["cto"],
        }
        for wrong in ("policy:default@1", "", "a b", "\u202eann", "-rf"):
            assert (await http.post("/people", json={"person": wrong})).status_code == 422, wrong
        assert (await http.post("/people", json={"person": "x", "roles": ["No Role"]})).status_code == 422
        assert (await http.post("/keys", json={"person": "nobody", "permissions": ["read"]})).status_code == 404
        assert (await http.post("/keys", json={"person": "tom", "permissions": []})).status_code == 422
        too_long = {"person": "tom", "permissions": ["read"], "expires_in": 1e300}
        assert (await http.post("/keys", json=too_long)).status_code == 422
