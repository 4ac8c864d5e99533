"""The trail: chains verify, secrets never show, and one request has one consequence."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.canonical import MASK, chain_hash
from orchestrator.core.errors import (
    IdempotencyConflict,
    InvalidInput,
    SelfApproval,
)
from orchestrator.service import (
    approvals,
    explain,
    workflows,
)
from orchestrator.store import events
from orchestrator.wire import (
    ApproveRequest,
    RejectRequest,
    SubmitRequest,
)
from tests.apps.dialect_graphs import CANARY, SECRETIVE
from tests.harness import APPS, Keyturn, caller, running

RISKY: dict[str, Any] = {"operation": "deploy", "environment": "production"}


# The chain


async def verified(keyturn: Keyturn, workflow: str) -> int:
    """The length of a workflow's chain, every hash of it recomputed."""
    async with keyturn.ctx.db.connection() as conn:
        rows = await events.chain(conn, workflow)
    previous = b""
    for number, row in enumerate(rows, start=1):
        assert row["seq"] == number
        expected = chain_hash(previous, row["seq"], row["at"], row["type"], row["actor"], row["body"])
        assert bytes(row["hash"]) == expected
        previous = expected
    return len(rows)


async def test_the_chain_of_events_verifies_with_decisions_refusals_and_odd_text_in_it(keyturn: Keyturn) -> None:
    odd = {"quotes": '"\\ \u2028 é 漢 \x07', "escaped": "\\u0000 \\\\u0000 \\ud800", "deep": [[[{}]]]}
    async with keyturn.working():
        workflow = await keyturn.submit("governed", **RISKY, arguments=odd)
        await keyturn.asked(workflow)
        with pytest.raises(SelfApproval):
            await keyturn.approve(workflow, who="rita")
        await keyturn.approve(workflow, justification=f"fine \\u0000 {odd['quotes']}")
        await keyturn.until(workflow, "completed")
    assert await verified(keyturn, workflow) == len(await keyturn.types(workflow)) > 10
    page = await workflows.events_page(keyturn.ctx, keyturn.me, workflow, 0, 100)
    asked = next(one for one in page.events if one.type == "confirmation-required")
    assert asked.data["action"]["arguments"] == odd  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]


async def test_a_changed_or_removed_event_breaks_the_chain(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("governed", operation="vacuum")
        await keyturn.until(workflow, "completed")
    async with keyturn.ctx.db.connection() as conn:
        await conn.execute("UPDATE keyturn.events SET actor = 'mallory' WHERE seq = 3")
    with pytest.raises(AssertionError):
        await verified(keyturn, workflow)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 4_001])
async def test_a_text_that_cannot_be_kept_is_refused_before_anything_happens(keyturn: Keyturn, text: str) -> None:
    with pytest.raises((InvalidInput, ValueError)):
        await keyturn.submit("governed", operation=text) if len(text) < 10 else await keyturn.approve("wf", reason=text)
    assert (await workflows.page(keyturn.ctx, keyturn.me)).workflows == []


# Secrets


async def everything_shown(keyturn: Keyturn, workflow: str) -> str:
    """All that the use cases show of a workflow, as one text."""
    ctx, me = keyturn.ctx, keyturn.me
    found: list[Any] = [
        await workflows.get(ctx, me, workflow),
        await workflows.status(ctx, me, workflow),
        await workflows.page(ctx, me),
        await workflows.events_page(ctx, me, workflow, 0, 1000),
        await workflows.view_graph(ctx, me, workflow),
        await approvals.pending(ctx, me),
    ]
    record = found[0]
    for one in record.approvals:
        found += [await approvals.get(ctx, me, one.approval_id), await explain.approval(ctx, me, one.approval_id)]
    async with ctx.db.connection() as conn:
        rows = await events.chain(conn, workflow)
    return "\n".join([*(str(one.model_dump_json()) for one in found), *(str(row["body"]) for row in rows)])


async def test_secrets_of_an_action_are_shown_nowhere_and_reach_the_graph_whole(keyturn: Keyturn) -> None:
    hidden = {"password": CANARY, "nested": [{"api_key": {"value": CANARY}}], "Authorization": f"Bearer {CANARY}"}
    async with keyturn.working():
        workflow = await keyturn.submit("governed", **RISKY, arguments={**hidden, "host": "db1"})
        asked = await keyturn.asked(workflow)
        waiting = await everything_shown(keyturn, workflow)
        await keyturn.approve(workflow)
        await keyturn.until(workflow, "completed")
    shown = waiting + await everything_shown(keyturn, workflow)
    assert CANARY not in shown
    assert MASK in shown
    assert "db1" in shown
    async with keyturn.ctx.db.connection() as conn:
        row = await (await conn.execute("SELECT action FROM keyturn.approvals")).fetchone()
    assert row is not None
    assert row["action"]["arguments"]["password"] == CANARY, "the digest and the effect are over the real values"
    assert asked.action is not None


async def test_a_description_that_repeats_a_secret_of_its_payload_is_masked_too(database_url: str) -> None:
    async with running(database_url, app=APPS / "dialects.json") as keyturn, keyturn.working():
        for name in SECRETIVE:
            workflow = await keyturn.submit("prepared", payload=name)
            await keyturn.asked(workflow)
            shown = await everything_shown(keyturn, workflow)
            assert CANARY not in shown, name
            assert "xyz" not in shown, name
            assert MASK in shown, name


# One request, one consequence


async def test_an_idempotency_key_makes_one_workflow_of_a_submission_that_is_sent_twice(keyturn: Keyturn) -> None:
    request = SubmitRequest(graph="governed", input=RISKY)
    first = await workflows.submit(keyturn.ctx, keyturn.me, request, "key-1")
    again = await workflows.submit(keyturn.ctx, keyturn.me, request, "key-1")
    assert (again.workflow_id, again.replayed, first.replayed) == (first.workflow_id, True, False)
    other = SubmitRequest(graph="governed", input={"operation": "vacuum"})
    with pytest.raises(IdempotencyConflict):
        await workflows.submit(keyturn.ctx, keyturn.me, other, "key-1")
    theirs = await workflows.submit(keyturn.ctx, caller("tom"), other, "key-1")
    assert theirs.workflow_id != first.workflow_id, "a key is its caller's own"
    assert len((await workflows.page(keyturn.ctx, keyturn.me)).workflows) == 2
    for wrong in ("", " ", "k" * 256):
        with pytest.raises(InvalidInput):
            await workflows.submit(keyturn.ctx, keyturn.me, request, wrong)


async def test_an_idempotency_key_makes_one_vote_of_a_decision_that_is_sent_twice(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("governed", **RISKY)
        await keyturn.asked(workflow)
        ctx, tara, request = keyturn.ctx, caller("tara"), ApproveRequest(justification="fine")
        first = await approvals.approve(ctx, tara, workflow, request, "vote-1")
        await keyturn.until(workflow, "completed")
        again = await approvals.approve(ctx, tara, workflow, request, "vote-1")
        assert (first.code, first.status) == ("resolved", "ready")
        assert (again.code, again.status, again.resolved_by) == ("replayed", "completed", "tara")
        with pytest.raises(IdempotencyConflict):
            await approvals.approve(ctx, tara, workflow, ApproveRequest(justification="other"), "vote-1")
        with pytest.raises(IdempotencyConflict):
            await approvals.reject(ctx, tara, workflow, RejectRequest(reason="no"), "vote-1")
    (one,) = (await keyturn.get(workflow)).approvals
    assert [vote.voter for vote in one.votes] == ["tara"]
    assert (await keyturn.types(workflow)).count("confirmation-resolved") == 1
