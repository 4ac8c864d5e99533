"""What confidence.yaml does to what agents ask for, in whatever dialect they ask."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.service import explain, identity
from orchestrator.wire import ApprovalRecord, ExplainRequest, PersonRequest
from tests.harness import APPS, Keyturn, caller, running

SHIPPED = Path(__file__).parents[2] / "config"
KEYTURN = {"type": "approval", "action": {"operation": "count"}, "on_reject": "resume"}


@pytest.fixture
async def keyturn(database_url: str) -> AsyncIterator[Keyturn]:
    async with running(database_url, app=APPS / "dialects.json") as found, found.working():
        yield found


async def asked(keyturn: Keyturn, payload: Any) -> ApprovalRecord:
    """The first request that a graph makes with this payload, decided or not."""
    workflow = await keyturn.submit("anything", payload=payload)
    found = await keyturn.until(workflow, "waiting", "completed", "failed")
    assert found.approvals, found.error
    return found.approvals[0]


def langchain(name: str, **more: Any) -> dict[str, Any]:
    request = {"name": name, "args": {}, **more}
    return {"action_requests": [request], "review_configs": [{"action_name": name, "allowed_decisions": ["approve"]}]}


INBOX = [{"action_request": {"action": "bulk_mail", "args": {}}, "config": {"allow_accept": True}}]


@pytest.mark.parametrize(
    ("payload", "score", "route"),
    [
        ({**KEYTURN, "confidence": 90}, 90, "AUTO"),
        ({**KEYTURN, "confidence": 90, "action": {"operation": "bulk_mail"}}, 80, "QUICK"),
        ({**KEYTURN, "confidence": 90, "action": {"operation": "bulk_mail"}, "adjustments": []}, 90, "AUTO"),
        ({**KEYTURN, "confidence": 90, "adjustments": [{"name": "new", "points": -31}]}, 59, "FULL"),
        ({**KEYTURN, "confidence": 50, "thresholds": {"auto": 50}}, 50, "AUTO"),
        ({**KEYTURN, "confidence": 50, "thresholds": {"quick": 50}}, 50, "QUICK"),
        ({**KEYTURN, "confidence": 90, "thresholds": {"auto": 95}}, 90, "QUICK"),
        ({**KEYTURN, "confidence": None}, 0, "FULL"),
        (KEYTURN, None, "AUTO"),
        (langchain("mail", confidence=90), 90, "AUTO"),
        (langchain("bulk_mail", confidence=90), 80, "QUICK"),
        (langchain("mail"), 0, "FULL"),
        (INBOX, 0, "FULL"),
    ],
)
async def test_the_adjusted_score_decides_the_route_and_is_kept(
    keyturn: Keyturn, payload: Any, score: float | None, route: str
) -> None:
    one = await asked(keyturn, payload)
    assert (one.confidence, one.route) == (score, route)


async def test_who_asks_counts(keyturn: Keyturn) -> None:
    await identity.put_person(keyturn.ctx, caller("root"), PersonRequest(person="rita", roles=["admin"]))
    one = await asked(keyturn, {**KEYTURN, "confidence": 80})
    assert (one.confidence, one.route) == (90, "AUTO")


async def test_a_dry_run_says_the_same(keyturn: Keyturn) -> None:
    def request(operation: str, confidence: float | None) -> ExplainRequest:
        return ExplainRequest(action={"operation": operation}, confidence=confidence)

    routes = [
        (await explain.action(keyturn.ctx, keyturn.me, request(*given))).route
        for given in (("mail", 90), ("bulk_mail", 90), ("bulk_mail", 65), ("bulk_mail", None))
    ]
    assert routes == ["AUTO", "QUICK", "FULL", "AUTO"]


async def test_thresholds_that_cross_fail_the_workflow_and_say_so(keyturn: Keyturn) -> None:
    workflow = await keyturn.submit(
        "anything", payload={**KEYTURN, "confidence": 90, "thresholds": {"auto": 50, "quick": 60}}
    )
    failed = await keyturn.until(workflow, "waiting", "completed", "failed")
    assert failed.error is not None
    assert failed.error["code"] == "graph_fault"
    assert "threshold quick (60) is above auto (50)" in str(failed.error["detail"])


async def test_a_rule_sees_the_adjusted_score(database_url: str, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "config")
    file = tmp_path / "config" / "hitl" / "risk-assessment-rules.yaml"
    rule = "  - {name: unsure, when: has_confidence && confidence < 85.0, level: high}\n"
    file.write_text(file.read_text().replace("rules:\n", f"rules:\n{rule}", 1))
    config = tmp_path / "config"
    async with running(database_url, app=APPS / "dialects.json", config=config) as keyturn, keyturn.working():
        sure = await asked(keyturn, {**KEYTURN, "confidence": 90})
        adjusted = await asked(keyturn, {**KEYTURN, "confidence": 90, "action": {"operation": "bulk_mail"}})
    assert (sure.risk_level, adjusted.risk_level) == ("low", "high")
