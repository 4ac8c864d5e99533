"""What time and published policies do to a request that waits: never looser, never later, and never left lying."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.service import acting, approvals, explain, policies, timers, workflows
from orchestrator.wire import ApprovalRecord, EditRequest, PolicyText, SubmitRequest
from tests.conftest import REPOSITORY
from tests.harness import Keyturn, caller, running

DEPLOY: dict[str, object] = {"operation": "deploy", "environment": "production"}
LOW: dict[str, object] = {"operation": "vacuum", "environment": "staging"}


@dataclass
class Clock:
    """The database's, or ahead of it."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime | None:
        return datetime.now(UTC) + self.ahead if self.ahead else None


@dataclass
class Waiting:
    """A Keyturn whose clock can be set ahead."""

    keyturn: Keyturn
    clock: Clock

    async def publish(self, text: str) -> None:
        await policies.publish(self.keyturn.ctx, caller("root"), PolicyText(text=f"policies: [{text}]"))

    async def asked(self, action: dict[str, object], **more: object) -> ApprovalRecord:
        async with self.keyturn.working():
            return await self.keyturn.asked(await self.keyturn.submit("revisable", action=action, **more))

    async def record(self, one: ApprovalRecord) -> ApprovalRecord:
        return await approvals.get(self.keyturn.ctx, self.keyturn.me, one.approval_id)

    async def column(self, one: ApprovalRecord, name: str) -> Any:
        async with self.keyturn.ctx.db.connection() as conn:
            found = await conn.execute("SELECT * FROM keyturn.approvals WHERE approval_id = %s", [one.approval_id])
            return (await found.fetchall())[0][name]

    async def sweep(self, hours: float) -> int:
        self.clock.ahead = timedelta(hours=hours)
        return await timers.sweep(self.keyturn.ctx)


@pytest.fixture
async def waiting(keyturn: Keyturn) -> AsyncIterator[Waiting]:
    clock = Clock()
    return Waiting(replace(keyturn, ctx=replace(keyturn.ctx, clock=clock)), clock)


# --- the requester does not choose who decides ---


async def test_for_whom_somebody_asks_never_brings_the_fallback(waiting: Waiting) -> None:
    keyturn = waiting.keyturn
    await waiting.publish("{name: p, stages: [[{role: cto}]], fallback_role: team_lead}")
    request = SubmitRequest(graph="revisable", input={"action": DEPLOY}, on_behalf_of="cleo")
    async with keyturn.working():
        workflow = (await workflows.submit(keyturn.ctx, keyturn.me, request)).workflow_id
        failed = await keyturn.until(workflow, "waiting", "failed")
    assert (failed.status, failed.reason) == ("failed", "unroutable")
    assert failed.error
    assert "cleo" in str(failed.error["detail"])


async def test_the_fallback_decides_where_nobody_holds_the_role(waiting: Waiting) -> None:
    await waiting.publish("{name: p, stages: [[{role: cto}]], fallback_role: team_lead}")
    keyturn = waiting.keyturn
    async with keyturn.working():
        cleo = replace(keyturn, me=caller("cleo"))
        asked = await cleo.asked(await cleo.submit("revisable", action=DEPLOY))
    assert asked.flags == ["unroutable_escalated"]


# --- published policies ---


async def test_a_policy_that_is_taken_away_leaves_what_the_level_asks_for(waiting: Waiting) -> None:
    await waiting.publish("{name: p, match: action.operation == 'deploy', stages: [[{role: cto}]], deny_threshold: 2}")
    one = await waiting.asked(DEPLOY)
    await waiting.publish("")
    now = await waiting.record(one)
    assert now.policy == "level:high"
    assert sorted(slot["any_of"][0] for slot in now.stages[0]) == ["cto", "team_lead"]
    assert (await waiting.column(one, "requirement"))["deny_threshold"] == 1


async def test_a_shorter_life_and_its_reminders_hold_for_what_waits(waiting: Waiting) -> None:
    one = await waiting.asked(DEPLOY)
    before = await waiting.column(one, "escalate_at")
    await waiting.publish("{name: p, request_ttl: 1h, reminders: [10m], escalation: {after: 20m}}")
    now = await waiting.record(one)
    assert now.expires_at == one.requested_at + timedelta(hours=1)
    assert await waiting.column(one, "escalate_at") == before
    await waiting.sweep(0.2)
    assert "approval-reminded" in await waiting.keyturn.types(one.workflow_id)
    await waiting.sweep(1.1)
    assert (await waiting.record(one)).state == "expired"
    assert (await waiting.keyturn.get(one.workflow_id)).status == "expired"


async def test_a_longer_life_published_later_changes_nothing(waiting: Waiting) -> None:
    one = await waiting.asked(DEPLOY)
    await waiting.publish("{name: p, request_ttl: 30d}")
    assert (await waiting.record(one)).expires_at == one.expires_at


async def test_reminders_of_an_edited_request_count_from_the_edit(waiting: Waiting) -> None:
    await waiting.publish("{name: p, stages: [[{role: team_lead}]], reminders: [1h, 4h]}")
    one = await waiting.asked(DEPLOY)
    await waiting.sweep(5)
    edit = EditRequest(action={**one.action, "target": "elsewhere"}) if one.action else None
    assert edit
    await acting.edit(waiting.keyturn.ctx, caller("tom"), one.approval_id, edit)
    for hours in (6.1, 7, 9.1, 9.5):
        await waiting.sweep(hours)
    types = await waiting.keyturn.types(one.workflow_id)
    behind = types[types.index("approval-revised") :]
    assert behind.count("approval-reminded") == 2


# --- nobody decided in time ---


async def test_silence_is_no_consent_where_somebody_has_rejected(waiting: Waiting) -> None:
    await waiting.publish(
        "{name: p, levels: [low], stages: [[{role: team_lead}]], deny_threshold: 2, on_timeout: approve,"
        " request_ttl: 1h}"
    )
    one, other = await waiting.asked(LOW), await waiting.asked(LOW)
    assert await waiting.keyturn.reject(one.workflow_id, "tom") == "recorded"
    await waiting.sweep(2)
    assert (await waiting.record(one)).state == "expired"
    assert (await waiting.record(other)).state == "approved"


async def test_an_explanation_names_the_rule_that_forbids(database_url: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    shutil.copytree(REPOSITORY / "config", config)
    rules = config / "hitl" / "risk-assessment-rules.yaml"
    more = "\n  - {name: hands-off, when: action.target == 'ledger', forbid: true, reason: The ledger stays.}\n"
    rules.write_text(rules.read_text() + more)
    async with running(database_url, config=config) as keyturn, keyturn.working():
        workflow = await keyturn.submit("revisable", action={"operation": "drop", "target": "ledger"})
        (denied,) = (await keyturn.until(workflow, "rejected", "waiting", "completed")).approvals
        assert denied.route == "DENIED"
        found = await explain.approval(keyturn.ctx, keyturn.me, denied.approval_id)
    assert found.forbidden_by == "hands-off"
