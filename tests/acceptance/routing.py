"""Rows of pure routing, put to the API: what a request with this risk and confidence becomes."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any, cast

from tests.acceptance.reading import Body, mapping, texts
from tests.acceptance.table import Table
from tests.acceptance.translating import adjustments, dump
from tests.acceptance.world import ROOT

REQUESTER = "pat"


async def play(table: Table) -> None:
    """Submit every row and compare; a freeze is a policy's window that now is in."""
    world, scenario = table.world, table.scenario
    now = world.clock.now = scenario.t0
    if any(mapping(row["in"], "in").get("freeze") for row in scenario.routing):
        answer = await world.call("POST", "/policy/publish", ROOT, {"text": _freeze(now), "file": "routing.yaml"})
        assert answer.status < 400, f"the freeze was refused: {answer}"
    for number, row in enumerate(scenario.routing, start=1):
        given, expected = mapping(row["in"], "in"), mapping(row["out"], "out")
        place = f"row {number} {dict(given)}"
        body = {"graph": f"row_{number}", "title": "routing", "input": {"ask": _ask(given)}}
        submitted = world.must(await world.call("POST", "/workflows", REQUESTER, body))
        await world.drive(f"row_{number}", to_the_gate=True)
        workflow = await world.get(f"/workflows/{submitted['workflow_id']}")
        approvals = cast("list[dict[str, Any]]", workflow["approvals"])
        if not approvals:
            table.differences.append(f"{place}: no approval was made: {workflow['status']} {workflow['error']}")
            continue
        _compare(table, place, expected, approvals[-1])


def _ask(given: Body) -> dict[str, object]:
    metadata: dict[str, object] = {"risks": texts(given.get("risks"))}
    for name in ("rule_error", "forbid", "freeze"):
        if given.get(name):
            metadata[name] = True
    ask: dict[str, object] = {"action": {"operation": "run", "metadata": metadata}}
    if "confidence" in given:
        confidence = given["confidence"]
        # JSON cannot carry it: the graph makes it itself.
        ask["confidence"] = "nan" if isinstance(confidence, float) and math.isnan(confidence) else confidence
    if given.get("adjust"):
        ask["adjustments"] = adjustments(given["adjust"])
    return ask


def _freeze(now: datetime) -> str:
    window = {"from": (now - timedelta(hours=1)).isoformat(), "to": (now + timedelta(hours=1)).isoformat()}
    entry = {"name": "freeze", "match": "has(action.metadata.freeze)", "stages": [], "freeze": [window]}
    return dump({"policies": [entry]})


def _compare(table: Table, place: str, expected: Body, got: Body) -> None:
    due = datetime.fromisoformat(str(got["due_at"])) - table.world.clock.now
    found = {
        "route": got["route"],
        "urgent": got["priority"] == "urgent",
        "due_h": due / timedelta(hours=1),
        "score": got["confidence"],
        "risk": got["risk_level"],
    }
    for key, value in expected.items():
        table.differences.same(f"{place} {key}", value, found[key])
