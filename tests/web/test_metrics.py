"""Readiness and figures: what an operator's tools read."""

from __future__ import annotations

import json
import logging

from orchestrator.telemetry import JsonLines
from tests.harness import Keyturn
from tests.web.edge import Edge


def figures(text: str) -> dict[str, float]:
    """Every sample of an exposition by its name and labels."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_readiness_wants_database_migrations_and_a_worker(edge: Edge, keyturn: Keyturn) -> None:
    async with edge.http() as http:
        async with keyturn.ctx.db.connection() as conn:
            await conn.execute("UPDATE keyturn.workers SET seen_at = now() - interval '31 seconds'")
        lonely = await http.get("/readyz")
        assert lonely.status_code == 503
        assert lonely.json() | {"detail": ""} == {
            "ready": False, "database": True, "migrations": True, "workers": 0, "detail": "",
        }  # fmt: skip
        assert "keyturn worker" in lonely.json()["detail"]
        async with keyturn.working():
            await keyturn.until(await keyturn.submit("steps"), "completed")
            ready = await http.get("/readyz")
            assert ready.status_code == 200
            assert ready.json()["workers"] == 1
        async with keyturn.ctx.db.connection() as conn:
            await conn.execute("DELETE FROM keyturn.schema_components")
        behind = await http.get("/readyz")
        assert behind.status_code == 503
        assert behind.json()["migrations"] is False
        assert "keyturn migrate" in behind.json()["detail"]


async def test_the_figures_count_workflows_approvals_workers_and_requests(edge: Edge, keyturn: Keyturn) -> None:
    async with keyturn.working():
        await keyturn.asked(await keyturn.submit("governed", operation="deploy", environment="production"))
        await keyturn.until(await keyturn.submit("steps"), "completed")
        async with edge.http(await edge.key()) as http:
            await http.get("/workflows/wf-secret-name")
            await http.get("/nothing")
            await http.request("PROPFIND", "/workflows")
            answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = figures(answer.text)
    assert found['keyturn_workflows{status="waiting"}'] == 1
    assert found['keyturn_workflows{status="completed"}'] == 1
    assert found['keyturn_approvals_pending{risk_level="high"}'] == 1
    assert found["keyturn_workers"] >= 1
    assert found["keyturn_database_up"] == 1
    request = 'keyturn_http_requests_total{method="GET",route="/workflows/{workflow_id}",status="404"}'
    assert found[request] == 1
    assert found['keyturn_http_request_seconds_count{method="GET",route="unmatched"}'] == 1
    assert found['keyturn_http_requests_total{method="other",route="/workflows",status="405"}'] == 1
    assert "wf-secret-name" not in answer.text


def test_a_log_line_is_one_line_whatever_is_logged() -> None:
    error = ValueError("two\nlines \x1b[31m")
    info = (ValueError, error, None)
    record = logging.LogRecord("keyturn", logging.ERROR, "", 0, "name=%s", ("a\r\nb\x1b[0m\u2028",), info)
    line = JsonLines().format(record)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == "name=a\r\nb\x1b[0m\u2028"
    assert "ValueError" in json.loads(line)["trace"]
