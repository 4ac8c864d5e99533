"""A secret in the arguments of an action is told to nobody: not by the API, the command line, a message, an event or a
log, whatever becomes of the request. In the database it is only where docs/security.md says that originals are.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.web.canary import Whole, whole

MARK = "canary-4f1a"
OLD, NEW = f"{MARK}-old", f"{MARK}-new"
KEY, BEARER, PASS = f"{MARK}-key", f"{MARK}-bearer", f"{MARK}-pass"
PEM = f"-----BEGIN-----\n{MARK}-pem\n-----END-----"
QUOTED = f"{OLD} and {KEY} and {BEARER} and {PEM} and {PASS}"
SECURITY = Path(__file__).resolve().parents[2] / "docs" / "security.md"

POLICIES = """
roles: [nobody]
policies:
  - name: staged
    match: action.operation == 'deploy'
    stages: [[{role: team_lead}], [{role: tech_lead}]]
    require_justification: request
    reminders: [10m]
    escalation: {after: 1h, to: [cto]}
    break_glass: {role: cto, review_within: 1d}
  - name: empty
    match: action.operation == 'sweep'
    stages: [[{role: nobody}]]
    fallback_role: cto
"""


def arguments(password: str) -> dict[str, Any]:
    return {
        "host": "db1",
        "password": password,
        "options": [{"headers": [{"Authorization": f"Bearer {BEARER}"}]}],
        "service": {"api_key": {"value": KEY}, "tls": {"private_key": PEM}},
        "login": {"DB_PASSWD": PASS},
    }


def action(operation: str, password: str = OLD) -> dict[str, Any]:
    return {
        "operation": operation, "environment": "production", "target": f"db1 with {OLD}",
        "arguments": arguments(password), "metadata": {"note": f"see {KEY}"}, "estimated_cost": 2000.0,
    }  # fmt: skip


def request(operation: str, **more: object) -> dict[str, Any]:
    return {
        "title": f"Log in with {OLD}",
        "input": {
            "action": action(operation),
            "description": f"uses {QUOTED}",
            "justification": f"as {QUOTED}",
            **more,
        },
    }


async def look(it: Whole, workflow_id: str, approval_id: str) -> None:
    """Look at a workflow in every way there is."""
    for path in (
        f"/workflows/{workflow_id}", f"/workflows/{workflow_id}/status", f"/workflows/{workflow_id}/graph",
        f"/workflows/{workflow_id}/events", f"/workflows/{workflow_id}/wait?timeout=0", "/workflows",
        "/workflows/pending",
        f"/approvals/{approval_id}", f"/approvals/{approval_id}/explain?person=rita", "/metrics", "/audit",
    ):  # fmt: skip
        answer = await it.call("tara", "GET", path, Accept="application/json")
        assert answer.status_code == 200, answer.text


async def test_a_secret_in_the_arguments_is_shown_nowhere(database_url: str, tmp_path: Path) -> None:
    async with whole(database_url, tmp_path) as it:
        await it.post("rita", "/policy/publish", text=POLICIES)
        await it.post("tara", "/policy/explain", action=action("deploy"), person="rita")
        for scenario in (edited, rejected, broken, withdrawn, cancelled, expired, unroutable, called, asked):
            await scenario(it)
        await it.post("rita", "/policy/simulate", text=POLICIES.replace("cto", "tech_lead"))
        for path in ("/audit/export", "/audit/verify", "/audit/anchor", "/audit?limit=500"):
            await it.call("rita", "GET", path)
        await it.told()
        leaks = [
            (where, text[max(0, found.start() - 150) : found.end() + 20])
            for where, text in (*it.shown, *it.sent())
            for found in re.finditer(MARK, text)
        ]
        assert await it.kinds() == {
            "requested", "revised", "reminder", "escalated", "settled", "break_glass", "review_due", "unroutable",
        }  # fmt: skip
        assert leaks == []
        assert "«hidden»" in json.dumps(it.shown, ensure_ascii=False)
        assert set(await it.columns_with(MARK)) == originals()


def originals() -> set[str]:
    """The columns that the documentation says hold originals."""
    section = SECURITY.read_text(encoding="utf-8").partition("## Secrets")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*?) \|", section, re.MULTILINE)
    return {f"{table}.{column}" for table, columns in rows for column in re.findall(r"`([a-z_]+)`", columns)}


async def edited(it: Whole) -> None:
    """Asked, refused, edited, reminded of, escalated, approved in stages, and failed with the secret in its message."""
    workflow_id, approval_id = await it.submit("risky", **request("deploy", fail=True))
    await look(it, workflow_id, approval_id)
    await it.post("rita", f"/workflows/{workflow_id}/approve", 403, justification=f"it is {QUOTED}")
    for person, wrong, status in (
        ("cleo", action("deploy", NEW), 403),
        ("tom", {**action("deploy", NEW), "arguments": f"{OLD} {NEW}"}, 422),
        ("tom", {**action("deploy", NEW), "estimated_cost": NEW}, 422),
        ("tom", action("deploy"), 422),
    ):
        await it.post(person, f"/approvals/{approval_id}/edit", status, action=wrong)
    told = await it.post(
        "tom",
        f"/approvals/{approval_id}/edit",
        action=action("deploy", NEW),
        justification=f"{NEW} is right, not {OLD}",
    )
    assert [one["path"] for one in told["changes"]] == ["arguments.password"]
    await it.due(approval_id, "remind_at", "approval-reminded")
    await it.due(approval_id, "escalate_at", "approval-escalated")
    await look(it, workflow_id, approval_id)
    for verdict in ("approve", "reject"):
        link = await it.post("cleo", f"/approvals/{approval_id}/links", 201, person="cleo", verdict=verdict)
        page = await it.call("cleo", "GET", link["url"].removeprefix(it.url))
        assert "db1" in page.text
    for words in (["status"], ["explain"], ["events"], ["graph"]):
        await it.command("tara", *words, workflow_id, "--json")
        await it.command("tara", *words, workflow_id)
    for words in (["list-pending"], ["list"], ["audit", "list"], ["audit", "export"], ["audit", "verify"]):
        await it.command("tara", *words)
    seen = {"revision": told["revision"]}
    decisions = [
        {"approval_id": approval_id, "verdict": "approve", "justification": f"{NEW} and {QUOTED}", **seen},
        {"approval_id": "ap-none", "verdict": "approve"},
    ]
    await it.post("tara", "/approvals/batch", decisions=decisions)
    await it.post("theo", f"/workflows/{workflow_id}/approve", justification=f"{NEW} and {QUOTED}", **seen)
    await it.keyturn.until(workflow_id, "failed")
    await it.command("tara", "watch", workflow_id)
    await it.call("tara", "GET", f"/workflows/{workflow_id}/events", Accept="text/event-stream")
    await look(it, workflow_id, approval_id)


async def rejected(it: Whole) -> None:
    """Rejected for a reason that quotes the secrets."""
    workflow_id, approval_id = await it.submit("risky", **request("deploy"))
    await it.command("tara", "reject", workflow_id, "--reason", f"never {QUOTED}", "--json")
    await it.keyturn.until(workflow_id, "rejected")
    await look(it, workflow_id, approval_id)
    await it.command("tara", "status", workflow_id, "--json")


async def broken(it: Whole) -> None:
    """Run by break-glass, whose review is due and then done; it completes."""
    workflow_id, approval_id = await it.submit("risky", **request("deploy"))
    await it.post("cleo", f"/approvals/{approval_id}/break-glass", justification=f"needs {QUOTED}")
    await it.keyturn.until(workflow_id, "completed")
    await it.due(approval_id, "review_by", "review-due")
    await it.post("tara", f"/approvals/{approval_id}/review", note=f"saw {QUOTED}")
    await look(it, workflow_id, approval_id)


async def withdrawn(it: Whole) -> None:
    workflow_id, approval_id = await it.submit("risky", **request("deploy"))
    await it.post("rita", f"/approvals/{approval_id}/withdraw", reason=f"was {QUOTED}")
    await look(it, workflow_id, approval_id)


async def cancelled(it: Whole) -> None:
    workflow_id, approval_id = await it.submit("risky", **request("deploy"))
    await it.post("rita", f"/workflows/{workflow_id}/cancel", reason=f"was {QUOTED}")
    await look(it, workflow_id, approval_id)


async def expired(it: Whole) -> None:
    workflow_id, approval_id = await it.submit("risky", **request("deploy"))
    await it.due(approval_id, "expires_at", "confirmation-resolved")
    await look(it, workflow_id, approval_id)


async def unroutable(it: Whole) -> None:
    """Nobody holds the role, so the fallback is asked."""
    workflow_id, approval_id = await it.submit("risky", **request("sweep"))
    await look(it, workflow_id, approval_id)


async def called(it: Whole) -> None:
    """A tool that raises with its secret argument."""
    given = {"host": "db1", "password": OLD}
    workflow_id, approval_id = await it.submit("tools", input={"arguments": given})
    edit = {"operation": "log in", "arguments": {"host": "db1", "password": [OLD, NEW]}}
    told = await it.post("tom", f"/approvals/{approval_id}/edit", 422, action=edit)
    assert "password" in told["detail"]
    await it.post("tom", f"/workflows/{workflow_id}/approve", justification=f"with {OLD}")
    await it.keyturn.until(workflow_id, "failed")
    await look(it, workflow_id, approval_id)


async def asked(it: Whole) -> None:
    """A question whose default and answer are secrets."""
    question = {"prompt": f"Is it {OLD}?", "default": {"password": OLD}, "schema": {"type": "object"}}
    workflow_id, approval_id = await it.submit("asking", input={"question": question})
    await look(it, workflow_id, approval_id)
    await it.post("tom", f"/approvals/{approval_id}/answer", answer={"password": NEW})
    await it.keyturn.until(workflow_id, "completed")
    await look(it, workflow_id, approval_id)
