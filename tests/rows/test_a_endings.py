"""Row A3: what was required is told to be resolved, once, however its workflow ends."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from orchestrator.service import acting, approvals, workflows
from orchestrator.wire import VoteRequest, WithdrawRequest
from tests.conftest import REPOSITORY
from tests.harness import Keyturn, caller, running

REQUIRED, RESOLVED = "confirmation-required", "confirmation-resolved"


async def _one_rejected(keyturn: Keyturn, _: str, first: str) -> None:
    await approvals.vote(keyturn.ctx, caller("tara"), first, VoteRequest(verdict="reject", justification="no"))


async def _one_withdrawn(keyturn: Keyturn, _: str, first: str) -> None:
    await acting.withdraw(keyturn.ctx, keyturn.me, first, WithdrawRequest())


async def _all_withdrawn(keyturn: Keyturn, workflow_id: str, _: str) -> None:
    await acting.withdraw_workflow(keyturn.ctx, keyturn.me, workflow_id, WithdrawRequest())


async def _cancelled(keyturn: Keyturn, workflow_id: str, _: str) -> None:
    await workflows.cancel(keyturn.ctx, keyturn.me, workflow_id)


@pytest.mark.parametrize("end", [_one_rejected, _one_withdrawn, _all_withdrawn, _cancelled])
async def test_a3_what_was_required_is_resolved_exactly_once_however_its_workflow_ends(
    database_url: str, end: Callable[[Keyturn, str, str], Awaitable[None]]
) -> None:
    async with running(database_url) as keyturn, keyturn.working():
        workflow_id = await keyturn.submit("gates")
        asked = (await keyturn.until(workflow_id, "waiting")).approvals
        await end(keyturn, workflow_id, asked[0].approval_id)
        await keyturn.until(workflow_id, "rejected", "cancelled")
        assert len(asked) == 2
        assert await told_of(keyturn, workflow_id) == {one.approval_id: [REQUIRED, RESOLVED] for one in asked}


async def test_a3_what_a_forbidden_action_beside_it_ends_is_resolved_too(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, config=forbidding(tmp_path, "right")) as keyturn, keyturn.working():
        workflow_id = await keyturn.submit("gates")
        found = await keyturn.until(workflow_id, "rejected")
        states = {one.approval_id: one.state for one in found.approvals}
        assert sorted(states.values()) == ["cancelled", "rejected"]
        assert all(one.resolved_by for one in found.approvals)
        # What a rule has refused by itself was never required.
        whole = {"cancelled": [REQUIRED, RESOLVED], "rejected": [RESOLVED]}
        assert await told_of(keyturn, workflow_id) == {one: whole[state] for one, state in states.items()}


def forbidding(folder: Path, target: str) -> Path:
    """The shipped configuration, and a rule that forbids whatever is done to `target`."""
    config = folder / "config"
    shutil.copytree(REPOSITORY / "config", config)
    rules = config / "hitl" / "risk-assessment-rules.yaml"
    more = f"\n  - {{name: hands-off, when: action.target == '{target}', forbid: true, reason: Nobody touches it.}}\n"
    rules.write_text(rules.read_text() + more)
    return config


async def told_of(keyturn: Keyturn, workflow_id: str) -> dict[str, list[str]]:
    """What the events tell of each request, in order."""
    page = await workflows.events_page(keyturn.ctx, keyturn.me, workflow_id, 0, 1000)
    found: dict[str, list[str]] = {}
    for event in page.events:
        if event.type in (REQUIRED, RESOLVED):
            found.setdefault(str(event.data["request_id"]), []).append(event.type)
    return found
