"""Who may decide what, and when: each refusal has its code, changes nothing, and is audited."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.core.errors import (
    AlreadyResolved,
    DigestMismatch,
    Expired,
    Forbidden,
    IdentityMismatch,
    InvalidInput,
    JustificationRequired,
    NotEligible,
    NotFound,
    Refusal,
    SelfApproval,
    StaleRevision,
)
from orchestrator.service import approvals, identity, workflows
from orchestrator.service.context import Caller
from orchestrator.store import decisions
from orchestrator.store.db import Connection
from orchestrator.store.decisions import Asked, Question
from orchestrator.wire import ApproveRequest, PersonRequest, SubmitRequest, VoteRequest
from tests.harness import Keyturn, caller, running

HIGH: dict[str, Any] = {"operation": "deploy", "environment": "production"}
CRITICAL: dict[str, Any] = {"operation": "delete_project", "environment": "production"}


async def waiting(keyturn: Keyturn, content: dict[str, Any] | None = None, **more: Any) -> str:
    """A workflow that waits for a decision."""
    request = SubmitRequest(graph="governed", input=content or HIGH, **more)
    workflow = (await workflows.submit(keyturn.ctx, keyturn.me, request)).workflow_id
    async with keyturn.working():
        await keyturn.asked(workflow)
    return workflow


async def refused(keyturn: Keyturn, workflow: str, kind: type[Refusal], who: str = "tara", **body: Any) -> Refusal:
    """The refusal of an approval; nothing has changed but the trail."""
    before = await keyturn.get(workflow)
    with pytest.raises(kind) as found:
        await keyturn.approve(workflow, who=who, **body)
    assert await keyturn.get(workflow) == before
    page = await workflows.events_page(keyturn.ctx, keyturn.me, workflow, 0, 1000)
    last = page.events[-1]
    assert (last.type, last.actor, last.data["code"]) == ("refused", who, kind.code)
    return found.value


async def test_somebody_without_the_role_cannot_decide(keyturn: Keyturn) -> None:
    workflow = await waiting(keyturn)
    told = await refused(keyturn, workflow, NotEligible, who="cleo")
    assert told.facts["roles"] == ["team_lead", "tech_lead"]
    await refused(keyturn, workflow, NotEligible, who="nobody-known")


@pytest.mark.parametrize("role", ["submits", "on_behalf_of", "launched_by"])
async def test_nobody_decides_on_their_own_request_in_whatever_part(keyturn: Keyturn, role: str) -> None:
    if role == "submits":
        keyturn.me = caller("tara")
        workflow = await waiting(keyturn)
    else:
        more: dict[str, Any] = {role: "tara"}
        workflow = await waiting(keyturn, **more)
    await refused(keyturn, workflow, SelfApproval)
    with pytest.raises(SelfApproval):
        await keyturn.reject(workflow)
    assert await keyturn.approve(workflow, who="theo") == "resolved"


async def test_critical_needs_a_reason_and_a_rejection_always_does(keyturn: Keyturn) -> None:
    workflow = await waiting(keyturn, CRITICAL)
    for blank in ("", "  \n"):
        await refused(keyturn, workflow, JustificationRequired, who="cleo", justification=blank)
        with pytest.raises(JustificationRequired):
            await keyturn.reject(workflow, who="cleo", reason=blank)
    await refused(keyturn, workflow, NotEligible, who="tom")
    assert await keyturn.approve(workflow, who="cleo", justification="agreed in the meeting") == "resolved"


async def test_the_same_vote_again_is_a_replay_and_another_one_is_told_who_was_first(keyturn: Keyturn) -> None:
    workflow = await waiting(keyturn)
    assert await keyturn.approve(workflow) == "resolved"
    assert await keyturn.approve(workflow) == "replayed"
    told = await refused(keyturn, workflow, AlreadyResolved, who="theo")
    assert told.facts["resolved_by"] == "tara"
    assert told.facts["resolved_at"]
    with pytest.raises(AlreadyResolved):
        await keyturn.reject(workflow)
    (one,) = (await keyturn.get(workflow)).approvals
    assert [vote.voter for vote in one.votes] == ["tara"]


async def test_a_vote_that_comes_too_late_is_not_counted(keyturn: Keyturn) -> None:
    workflow = await waiting(keyturn)
    async with keyturn.ctx.db.connection() as conn:
        await conn.execute("UPDATE keyturn.approvals SET expires_at = now()")
    await refused(keyturn, workflow, Expired)
    with pytest.raises(Expired):
        await keyturn.reject(workflow)


async def test_a_vote_names_the_revision_and_action_that_its_voter_saw(keyturn: Keyturn) -> None:
    workflow = await waiting(keyturn)
    await refused(keyturn, workflow, StaleRevision, revision=2)
    told = await refused(keyturn, workflow, DigestMismatch, digest="0" * 64)
    (one,) = (await keyturn.get(workflow)).approvals
    assert told.facts["digest"] == one.digest
    assert await keyturn.approve(workflow, revision=1, digest=one.digest) == "resolved"


async def test_a_body_names_nobody_but_its_caller(keyturn: Keyturn) -> None:
    workflow = await waiting(keyturn)
    told = await refused(keyturn, workflow, IdentityMismatch, who="rita", approved_by="tara")
    assert told.facts["caller"] == "rita"
    with pytest.raises(IdentityMismatch):
        await keyturn.reject(workflow, who="rita", rejected_by="tara")
    assert await keyturn.approve(workflow, approved_by="tara") == "resolved"


async def test_a_bridge_may_speak_for_a_person_and_is_recorded(keyturn: Keyturn) -> None:
    workflow = await waiting(keyturn)
    bridge = caller("chatbot", "default", "act_as")
    for name, kind in (("rita", SelfApproval), ("cleo", NotEligible)):
        with pytest.raises(kind):
            await approvals.approve(keyturn.ctx, bridge, workflow, ApproveRequest(approved_by=name))
    told = await approvals.approve(keyturn.ctx, bridge, workflow, ApproveRequest(approved_by="tara"))
    assert told.resolved_by == "tara"
    (one,) = (await keyturn.get(workflow)).approvals
    assert [(vote.voter, vote.via) for vote in one.votes] == [("tara", "chatbot")]


async def test_roles_are_read_when_the_vote_is_counted(keyturn: Keyturn) -> None:
    workflow = await waiting(keyturn)
    await identity.put_person(keyturn.ctx, caller("root"), PersonRequest(person="tara", roles=[]))
    await refused(keyturn, workflow, NotEligible)


@pytest.mark.parametrize("missing", ["decide", "read", "submit"])
async def test_a_credential_without_the_permission_does_nothing(keyturn: Keyturn, missing: str) -> None:
    workflow = await waiting(keyturn)
    weak = Caller("default", "tara", frozenset({"decide", "read", "submit"}) - {missing}, "weak")
    calls = {
        "decide": lambda: approvals.approve(keyturn.ctx, weak, workflow, ApproveRequest()),
        "read": lambda: workflows.get(keyturn.ctx, weak, workflow),
        "submit": lambda: workflows.cancel(keyturn.ctx, weak, workflow),
    }
    with pytest.raises(Forbidden) as told:
        await calls[missing]()
    assert told.value.facts["needed"] == missing


async def test_an_unknown_workflow_approval_or_filter_is_told_as_such(keyturn: Keyturn) -> None:
    tara = caller("tara")
    with pytest.raises(NotFound):
        await keyturn.approve("wf-none")
    with pytest.raises(NotFound):
        await approvals.vote(keyturn.ctx, tara, "ap-none", VoteRequest(verdict="approve"))
    workflow = await waiting(keyturn)
    await refused(keyturn, workflow, NotFound, approval_id="ap-none")
    with pytest.raises(InvalidInput) as told:
        await approvals.pending(keyturn.ctx, tara, risk="huge")
    assert told.value.facts["allowed"] == ["low", "medium", "high", "critical"]


async def test_the_queue_shows_what_a_person_may_decide(keyturn: Keyturn) -> None:
    high, critical = await waiting(keyturn), await waiting(keyturn, CRITICAL)

    async def shown(who: str, **filters: Any) -> set[str]:
        found = await approvals.pending(keyturn.ctx, caller(who), **filters)
        return {one.workflow_id for one in found.workflows}

    assert await shown("rita") == {high, critical}
    assert await shown("rita", mine=True) == set()
    assert await shown("tom", mine=True) == {high}
    assert await shown("cleo", mine=True) == {critical}
    assert await shown("theo", mine=True) == {high, critical}
    assert await shown("theo", mine=True, risk="critical") == {critical}
    assert await shown("rita", role="cto") == {critical}


async def test_a_decision_that_was_overtaken_is_judged_anew(
    keyturn: Keyturn, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = await waiting(keyturn)
    read, overtaken = decisions.read, False

    async def late(conn: Connection, questions: Sequence[Question], *, wait: bool = True) -> list[Asked | None]:
        nonlocal overtaken
        found = await read(conn, questions, wait=wait)
        if not overtaken:
            overtaken = True
            async with running(database_url) as elsewhere:
                assert await elsewhere.reject(workflow, who="theo") == "resolved"
        return found

    monkeypatch.setattr(decisions, "read", late)
    async with asyncio.timeout(20):
        with pytest.raises(AlreadyResolved) as told:
            await keyturn.approve(workflow)
    assert told.value.facts["resolved_by"] == "theo"
    found = await keyturn.get(workflow)
    assert found.status == "rejected"
    assert [vote.voter for one in found.approvals for vote in one.votes] == ["theo"]


async def test_a_change_that_left_no_event_is_seen_as_well(keyturn: Keyturn, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = await waiting(keyturn)
    async with keyturn.ctx.db.connection() as conn:
        await conn.execute("UPDATE keyturn.workflows SET status = 'running'")
    read, times = decisions.read, 0

    async def late(conn: Connection, questions: Sequence[Question], *, wait: bool = True) -> list[Asked | None]:
        nonlocal times
        times += 1
        found = await read(conn, questions, wait=wait)
        if times == 1:
            # As a segment that has nothing new to ask hands the row back.
            async with keyturn.ctx.db.connection() as other:
                await other.execute("UPDATE keyturn.workflows SET status = 'waiting'")
        return found

    monkeypatch.setattr(decisions, "read", late)
    assert await keyturn.approve(workflow) == "resolved"
    assert times == 2
    assert (await keyturn.get(workflow)).status == "ready"


async def test_a_decision_waits_for_whoever_holds_the_workflow(keyturn: Keyturn) -> None:
    workflow = await waiting(keyturn)
    async with keyturn.ctx.db.transaction() as conn:
        await conn.execute("SELECT FROM keyturn.workflows WHERE workflow_id = %s FOR UPDATE", [workflow])
        deciding = asyncio.create_task(keyturn.approve(workflow))
        other = await keyturn.submit("steps")
        async with keyturn.working():
            await keyturn.until(other, "completed")
        assert not deciding.done()
    assert await deciding == "resolved"
