"""What time and published policies do to a request that waits: never looser, never later, and never left lying."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.model import Requirement, Status
from orchestrator.service import acting, approvals, breaking, explain, policies, timers, workflows
from orchestrator.store import events
from orchestrator.store.db import Connection
from orchestrator.store.events import Event
from orchestrator.wire import ApprovalRecord, BreakGlassRequest, EditRequest, PolicyText, SubmitRequest
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

    async def run_at(self, one: ApprovalRecord) -> datetime:
        async with self.keyturn.ctx.db.connection() as conn:
            found = await conn.execute("SELECT run_at FROM keyturn.workflows WHERE workflow_id = %s", [one.workflow_id])
            at: datetime = (await found.fetchall())[0]["run_at"]
            return at

    async def sweep(self, hours: float) -> int:
        self.clock.ahead = timedelta(hours=hours)
        return await timers.sweep(self.keyturn.ctx)


@pytest.fixture
async def waiting(keyturn: Keyturn) -> Waiting:
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
    requirement = Requirement.from_json(await waiting.column(one, "requirement"))
    assert sorted(min(slot.roles) for slot in requirement.stages[0]) == ["cto", "team_lead"]
    assert requirement.deny_threshold == 1


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


# --- what nobody looks at ---


async def test_those_who_decide_since_a_publication_are_asked_without_anybodys_looking(waiting: Waiting) -> None:
    await waiting.publish("{name: p, stages: [[{role: team_lead}]]}")
    one = await waiting.asked(DEPLOY)
    await waiting.publish("{name: p, stages: [[{role: team_lead}, {role: cto}]]}")
    assert await waiting.sweep(0) == 1
    mine = await approvals.pending(waiting.keyturn.ctx, caller("cleo"), mine=True)
    assert [row.approval_id for row in mine.workflows] == [one.approval_id]
    assert await waiting.sweep(0) == 0
    assert (await waiting.keyturn.types(one.workflow_id)).count("approval-policy-changed") == 1


async def test_a_publication_that_changes_nothing_of_a_request_is_not_told_of_it(waiting: Waiting) -> None:
    one = await waiting.asked(DEPLOY)
    await waiting.publish("{name: other, match: action.operation == 'never'}")
    assert await waiting.sweep(0) == 1
    assert await waiting.sweep(0) == 0
    assert "approval-policy-changed" not in await waiting.keyturn.types(one.workflow_id)


async def test_a_freeze_that_is_taken_back_holds_no_longer(waiting: Waiting) -> None:
    keyturn, now = waiting.keyturn, datetime.now(UTC)
    span = f"{{from: {now - timedelta(days=1):%Y-%m-%dT%H:%M}, to: {now + timedelta(days=1):%Y-%m-%dT%H:%M}}}"
    await waiting.publish(f"{{name: p, freeze: [{span}]}}")
    one = await waiting.asked(DEPLOY)
    other = await waiting.asked(DEPLOY)
    # Only what asks for it afterwards is free of it: a request keeps what it was judged by.
    await keyturn.approve(one.workflow_id, "tara")
    async with asyncio.timeout(20), keyturn.ctx.db.listener("keyturn_events") as conn, keyturn.working():
        while (await keyturn.get(one.workflow_id)).reason != "frozen":
            async for _ in conn.notifies(timeout=0.5, stop_after=1):
                pass
    assert await waiting.run_at(one) > now + timedelta(hours=1)
    await waiting.publish("{name: p}")
    assert await waiting.run_at(one) < now + timedelta(hours=1)
    assert (await waiting.record(other)).state == "pending"


@pytest.mark.parametrize("status", [one.value for one in Status if one.value not in ("running", "waiting")])
async def test_an_approval_that_nothing_uses_lapses_whatever_became_of_its_workflow(
    waiting: Waiting, status: str
) -> None:
    one = await waiting.asked(DEPLOY)
    await waiting.keyturn.approve(one.workflow_id, "tara")
    async with waiting.keyturn.ctx.db.connection() as conn:
        await conn.execute("UPDATE keyturn.workflows SET status = %s", [status])
    assert await waiting.sweep(5) == 1
    assert await waiting.column(one, "state") == "lapsed"
    assert (await waiting.keyturn.get(one.workflow_id)).status == ("failed" if status == "ready" else status)
    async with waiting.keyturn.ctx.db.connection() as conn:
        found = await conn.execute("SELECT FROM keyturn.approvals WHERE wake_at IS NOT NULL")
        assert await found.fetchall() == []


async def test_what_waits_ends_whatever_became_of_its_workflow(waiting: Waiting) -> None:
    """A pending request wakes at its expiry at the latest, which ends it: in every status."""
    for status in Status:
        one = await waiting.asked(DEPLOY)
        async with waiting.keyturn.ctx.db.connection() as conn:
            await conn.execute("UPDATE keyturn.workflows SET status = %s WHERE workflow_id = %s",
                               [status.value, one.workflow_id])  # fmt: skip
    await waiting.sweep(50)
    async with waiting.keyturn.ctx.db.connection() as conn:
        found = await conn.execute("SELECT state, wake_at FROM keyturn.approvals WHERE wake_at IS NOT NULL")
        assert await found.fetchall() == []


async def test_a_review_that_cannot_be_told_of_stops_nothing(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    await waiting.publish("{name: p, stages: [[{role: team_lead}]], break_glass: {role: cto, review_within: 1h}}")
    ctx = waiting.keyturn.ctx
    one, other = await waiting.asked(DEPLOY), await waiting.asked(DEPLOY)
    for broken in (one, other):
        await breaking.break_glass(ctx, caller("cleo"), broken.approval_id, BreakGlassRequest(justification="it burns"))
    expired = await waiting.asked(DEPLOY)
    append, failed = events.append, list[str]()

    async def failing(conn: Connection, workflow_id: str, told: Sequence[Event], now: datetime | None) -> None:
        if told[0].type == "review-due" and not failed:
            failed.append(workflow_id)
            message = "this one cannot be told"
            raise RuntimeError(message)
        await append(conn, workflow_id, told, now)

    monkeypatch.setattr(events, "append", failing)
    await waiting.sweep(30)
    assert (await waiting.record(expired)).state == "expired"
    (well,) = {one.workflow_id, other.workflow_id} - set(failed)
    assert "review-due" in await waiting.keyturn.types(well)
    await waiting.sweep(30)
    assert "review-due" in await waiting.keyturn.types(failed[0])
