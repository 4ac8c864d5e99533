"""What is decided is what was seen, by whom it may be, and counted with all the others' votes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from orchestrator.core.errors import (
    AmbiguousApproval,
    DigestMismatch,
    Forbidden,
    IdempotencyConflict,
    InvalidInput,
    NotEditable,
    NotOwner,
    PersonAlreadyCounted,
    Refusal,
    SelfApproval,
    StageNotOpen,
    StaleRevision,
    Unavailable,
)
from orchestrator.service import acting, approvals, breaking, delegations, identity, policies, workflows
from orchestrator.service.context import Caller
from orchestrator.wire import (
    ApprovalRecord,
    ApproveRequest,
    BatchRequest,
    BreakGlassRequest,
    DelegationRequest,
    EditRequest,
    PersonRequest,
    PolicyText,
    ReviewRequest,
    SubmitRequest,
    VoteRequest,
    WithdrawRequest,
)
from tests.harness import APPS, Keyturn, caller, running

DUAL = "policies: [{name: deploys, stages: [[{role: team_lead}, {role: tech_lead}]]}]"
IN_TURN = "policies: [{name: calls, stages: [[{role: team_lead}], [{role: cto}]], deny_threshold: 2}]"
GLASS = "policies: [{name: deploys, stages: [[{role: team_lead}]], break_glass: {role: cto, review_within: 1h}}]"


@pytest.fixture
async def pairs(database_url: str) -> AsyncIterator[Keyturn]:
    async with running(database_url, app=APPS / "asking_pairs.json") as found:
        yield found


def deploy(target: str = "shop", **more: object) -> dict[str, Any]:
    """What a gate asks for a deployment."""
    action = {"operation": "deploy", "environment": "production", "target": target, "arguments": {}}
    return {"type": "approval", "action": action, **more}


def call(*allowed: str) -> dict[str, Any]:
    """What an agent asks for one call of a tool."""
    review = {"action_name": "send", "allowed_decisions": list(allowed)}
    return {"action_requests": [{"name": "send", "args": {"n": 1}}], "review_configs": [review]}


async def publish(keyturn: Keyturn, text: str) -> None:
    await policies.publish(keyturn.ctx, caller("root"), PolicyText(text=text))


async def put(keyturn: Keyturn, person: str, *roles: str) -> None:
    await identity.put_person(keyturn.ctx, caller("root"), PersonRequest(person=person, roles=roles))


async def edited(keyturn: Keyturn, one: ApprovalRecord, who: Caller, **fields: object) -> None:
    request = EditRequest(action={**(one.action or {}), **fields})
    assert (await acting.edit(keyturn.ctx, who, one.approval_id, request)).code == "revised"


async def gate_two(keyturn: Keyturn, workflow: str, first: ApprovalRecord) -> ApprovalRecord:
    """Wait for what is asked after the first gate."""
    found = await keyturn.until(workflow, "waiting")
    (one,) = [one for one in found.approvals if one.approval_id != first.approval_id]
    return one


# Which request is meant


async def test_a_vote_sent_again_does_not_count_for_the_next_gate(pairs: Keyturn) -> None:
    await publish(pairs, DUAL)
    async with pairs.working():
        workflow = await pairs.submit("two", payload=deploy(), payload2=deploy("second"))
        first = await pairs.asked(workflow)
        assert await pairs.approve(workflow, "tom") == "recorded"
        assert await pairs.approve(workflow, "theo") == "resolved"
        second = await gate_two(pairs, workflow, first)
        with pytest.raises(AmbiguousApproval) as refused:
            await pairs.approve(workflow, "tom")
        assert refused.value.facts["approvals"][0]["approval_id"] == second.approval_id  # type: ignore[index]
        assert (await approvals.get(pairs.ctx, pairs.me, second.approval_id)).votes == []
        # What is named is decided.
        assert await pairs.approve(workflow, "tom", approval_id=second.approval_id) == "recorded"
        assert await pairs.approve(workflow, "theo", digest=second.digest) == "resolved"
        # And with nothing pending, a repetition is one.
        assert await pairs.approve(workflow, "theo") == "replayed"


async def test_who_lost_a_race_does_not_approve_the_next_gate(pairs: Keyturn) -> None:
    async with pairs.working():
        workflow = await pairs.submit("two", payload=deploy(), payload2=deploy("second"))
        first = await pairs.asked(workflow)
        assert await pairs.approve(workflow, "tara") == "resolved"
        second = await gate_two(pairs, workflow, first)
        with pytest.raises(AmbiguousApproval):
            await pairs.approve(workflow, "theo")
        with pytest.raises(DigestMismatch):
            await pairs.approve(workflow, "theo", approval_id=second.approval_id, digest=first.digest)
        with pytest.raises(AmbiguousApproval):
            await pairs.approve(workflow, "theo", digest=first.digest)
    assert (await pairs.get(workflow)).status == "waiting"


async def test_what_a_policy_let_through_by_itself_asks_for_no_name_later(pairs: Keyturn) -> None:
    harmless = {"type": "approval", "action": {"operation": "vacuum"}}
    async with pairs.working():
        workflow = await pairs.submit("two", payload=harmless, payload2=deploy())
        await pairs.asked(workflow)
        assert await pairs.approve(workflow, "tara") == "resolved"


async def test_a_new_idempotency_key_names_no_request(pairs: Keyturn) -> None:
    body = ApproveRequest(justification="x")
    async with pairs.working():
        workflow = await pairs.submit("two", payload=deploy(), payload2=deploy())
        first = await pairs.asked(workflow)
        assert (await approvals.approve(pairs.ctx, caller("tara"), workflow, body, "k1")).code == "resolved"
        second = await gate_two(pairs, workflow, first)
        with pytest.raises(AmbiguousApproval):
            await approvals.approve(pairs.ctx, caller("tara"), workflow, body, "k2")
        # Both ask for the same action, so its digest says nothing either.
        assert first.digest == second.digest
        with pytest.raises(AmbiguousApproval):
            await pairs.approve(workflow, "tara", digest=first.digest)
        assert (await approvals.approve(pairs.ctx, caller("tara"), workflow, body, "k1")).code == "replayed"
    assert (await pairs.get(workflow)).status == "waiting"


async def test_a_vote_on_an_edited_request_names_its_revision(pairs: Keyturn) -> None:
    async with pairs.working():
        workflow = await pairs.submit("one", payload=deploy(editable=True))
        one = await pairs.asked(workflow)
        await edited(pairs, one, caller("tom"), target="everything")
        for verb in (pairs.approve, pairs.reject):
            with pytest.raises(StaleRevision, match="A vote names its revision"):
                await verb(workflow, "theo")
        now = await approvals.get(pairs.ctx, pairs.me, one.approval_id)
        with pytest.raises(DigestMismatch):
            await pairs.approve(workflow, "theo", digest=one.digest)
        assert await pairs.approve(workflow, "theo", digest=now.digest) == "resolved"


# Whose decision it is


async def test_a_bridge_decides_for_nobody_what_it_edited(pairs: Keyturn) -> None:
    bridge = caller("theo", "default", "act_as")
    async with pairs.working():
        one = await pairs.asked(await pairs.submit("one", payload=deploy(editable=True)))
        await edited(pairs, one, bridge, target="elsewhere")
        vote = VoteRequest(verdict="approve", voter="tom", revision=2)
        with pytest.raises(SelfApproval):
            await approvals.vote(pairs.ctx, bridge, one.approval_id, vote)


async def test_only_who_submitted_withdraws(pairs: Keyturn) -> None:
    request = SubmitRequest(graph="one", input={"payload": deploy()}, on_behalf_of="tom")
    async with pairs.working():
        workflow = (await workflows.submit(pairs.ctx, pairs.me, request)).workflow_id
        one = await pairs.asked(workflow)
    with pytest.raises(NotOwner):
        await acting.withdraw(pairs.ctx, caller("tom"), one.approval_id, WithdrawRequest())
    assert (await acting.withdraw(pairs.ctx, pairs.me, one.approval_id, WithdrawRequest())).code == "withdrawn"


async def test_who_asked_may_edit_without_the_permission_to_decide_and_nobody_else(pairs: Keyturn) -> None:
    submitter = Caller("default", "rita", frozenset({"submit", "read"}))
    async with pairs.working():
        one = await pairs.asked(await pairs.submit("one", payload=deploy(editable=True)))
        await edited(pairs, one, submitter, target="elsewhere")
        with pytest.raises(Forbidden):
            await edited(pairs, one, Caller("default", "tom", submitter.permissions), target="anywhere")


# How the votes add up


async def test_a_quorum_that_is_met_again_ends_the_request_when_a_vote_is_repeated(pairs: Keyturn) -> None:
    await publish(pairs, DUAL)
    async with pairs.working():
        workflow = await pairs.submit("one", payload=deploy())
        await pairs.asked(workflow)
        assert await pairs.approve(workflow, "tom") == "recorded"
        await put(pairs, "tom")
        assert await pairs.approve(workflow, "theo") == "recorded"
        assert await pairs.approve(workflow, "theo") == "replayed"
        await put(pairs, "tom", "team_lead")
        assert await pairs.approve(workflow, "tom") == "resolved"
        done = await pairs.until(workflow, "completed")
    (one,) = done.approvals
    assert (one.state, one.filled, one.void) == ("executed", {"tom": "team_lead", "theo": "tech_lead"}, [])


async def test_rejections_that_suffice_again_end_the_request_when_one_is_repeated(pairs: Keyturn) -> None:
    await publish(pairs, DUAL.replace("]]}]", "]], deny_threshold: 2}]"))
    async with pairs.working():
        workflow = await pairs.submit("one", payload=deploy())
        await pairs.asked(workflow)
        assert await pairs.reject(workflow, "tom") == "recorded"
        await put(pairs, "tom")
        assert await pairs.reject(workflow, "theo") == "recorded"
        await put(pairs, "tom", "team_lead")
        assert await pairs.reject(workflow, "theo") == "resolved"
    (one,) = (await pairs.get(workflow)).approvals
    assert (one.state, sorted(one.dissent)) == ("rejected", ["theo", "tom"])


async def test_a_response_in_place_of_a_call_is_a_rejection_among_the_others(pairs: Keyturn) -> None:
    await publish(pairs, IN_TURN)
    async with pairs.working():
        workflow = await pairs.submit("one", payload=call("approve", "respond", "reject"))
        one = await pairs.asked(workflow)
        with pytest.raises(StageNotOpen):
            await pairs.answer(one.approval_id, "no", "cleo")
        assert await pairs.answer(one.approval_id, "rather not", "tara") == "recorded"
        assert await pairs.answer(one.approval_id, "rather not", "tara") == "replayed"
        now = await approvals.get(pairs.ctx, pairs.me, one.approval_id)
        assert [(vote.voter, vote.verdict, vote.justification) for vote in now.votes] == [
            ("tara", "reject", "rather not")
        ]
        assert (now.state, now.dissent) == ("pending", ["tara"])
        assert await pairs.approve(workflow, "tom") == "recorded"
        assert await pairs.answer(one.approval_id, "ask me tomorrow", "cleo") == "resolved"
        done = await pairs.until(workflow, "completed")
    (end,) = done.approvals
    assert (end.state, end.dissent) == ("answered", ["tara", "cleo"])
    assert isinstance(done.result, dict)
    assert done.result["got"] == {"decisions": [{"type": "respond", "message": "ask me tomorrow"}]}


async def test_who_voted_for_another_does_not_respond_too(pairs: Keyturn) -> None:
    await publish(pairs, IN_TURN)
    async with pairs.working():
        workflow = await pairs.submit("one", payload=call("approve", "respond", "reject"))
        one = await pairs.asked(workflow)
        hour = DelegationRequest.model_validate({"to": "tara", "ends_at": "2999-01-01T00:00:00Z"})
        await delegations.create(pairs.ctx, caller("tom"), hour)
        assert await pairs.approve(workflow, "tara", acting_for="tom") == "recorded"
        with pytest.raises(PersonAlreadyCounted):
            await pairs.answer(one.approval_id, "no", "tara")


async def test_a_batch_tells_of_each_item_also_when_the_database_goes_away(
    pairs: Keyturn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pairs.working():
        found = [await pairs.asked(await pairs.submit("one", payload=deploy())) for _ in range(3)]
    real, seen = approvals.vote, list[str]()

    async def vote(ctx: Any, who: Any, approval_id: str, *rest: Any) -> Any:
        seen.append(approval_id)
        if approval_id == found[1].approval_id:
            raise Unavailable("the database is away")
        return await real(ctx, who, approval_id, *rest)

    monkeypatch.setattr(approvals, "vote", vote)
    items = [{"approval_id": one.approval_id, "verdict": "approve"} for one in found]
    outcomes = await approvals.batch(pairs.ctx, caller("tara"), BatchRequest.model_validate({"decisions": items}))
    assert [one.code for one in outcomes] == ["resolved", "unavailable", "resolved"]


# Editing


async def test_a_question_has_nothing_to_edit(pairs: Keyturn) -> None:
    async with pairs.working():
        one = await pairs.asked(await pairs.submit("one", payload={"type": "question", "prompt": "why?"}))
    with pytest.raises(NotEditable):
        await acting.edit(pairs.ctx, pairs.me, one.approval_id, EditRequest(action={"operation": "x"}))


async def test_a_call_that_only_runs_edited_runs_when_its_edit_is_approved(pairs: Keyturn) -> None:
    async with pairs.working():
        workflow = await pairs.submit("one", payload=call("edit", "reject"))
        one = await pairs.asked(workflow)
        with pytest.raises(Refusal, match="takes: edit, reject"):
            await pairs.approve(workflow, "tom")
        await edited(pairs, one, pairs.me, arguments={"n": 2})
        assert await pairs.approve(workflow, "tom", revision=2) == "resolved"
        done = await pairs.until(workflow, "completed")
    assert isinstance(done.result, dict)
    sent = {"type": "edit", "edited_action": {"name": "send", "args": {"n": 2}}}
    assert done.result["got"] == {"decisions": [sent]}


@pytest.mark.parametrize("fields", [{"operation": "drop"}, {"target": "all"}, {"environment": "staging"}])
async def test_of_a_functions_call_only_the_arguments_are_edited(pairs: Keyturn, fields: Mapping[str, object]) -> None:
    async with pairs.working():
        one = await pairs.asked(await pairs.submit("one", payload=deploy(editable=True, arguments_schema={})))
        with pytest.raises(InvalidInput, match="only arguments can be edited"):
            await edited(pairs, one, pairs.me, **fields)
        await edited(pairs, one, pairs.me, arguments={"n": 2})


async def test_what_tells_of_a_functions_argument_is_edited_with_it(pairs: Keyturn) -> None:
    more: dict[str, Any] = {"editable": True, "arguments_schema": {}, "arguments_told": {"target": "host"}}
    async with pairs.working():
        one = await pairs.asked(await pairs.submit("one", payload=deploy(**more)))
        for fields in ({"arguments": {"host": "b"}}, {"arguments": {"host": "b"}, "target": "c"}):
            with pytest.raises(InvalidInput, match="`target` tells of the argument `host`"):
                await edited(pairs, one, pairs.me, **fields)
        await edited(pairs, one, pairs.me, arguments={"host": "b"}, target="b")


# Once for each key


async def test_what_is_done_with_a_request_is_done_once_for_an_idempotency_key(pairs: Keyturn) -> None:
    await publish(pairs, GLASS)
    ctx, rita, cleo, tom = pairs.ctx, pairs.me, caller("cleo"), caller("tom")
    async with pairs.working():
        one = await pairs.asked(await pairs.submit("one", payload=deploy(editable=True)))
        edit = EditRequest(action={**(one.action or {}), "target": "elsewhere"})
        told = [await acting.edit(ctx, rita, one.approval_id, edit, "edit") for _ in range(2)]
        assert [(each.code, each.revision) for each in told] == [("revised", 2), ("replayed", 2)]
        with pytest.raises(IdempotencyConflict):
            await acting.edit(ctx, rita, one.approval_id, EditRequest(action={"operation": "other"}), "edit")
        fire = BreakGlassRequest(justification="fire")
        broken = [await breaking.break_glass(ctx, cleo, one.approval_id, fire, "break") for _ in range(2)]
        assert [each.code for each in broken] == ["resolved", "replayed"]
        note = ReviewRequest(note="it burned")
        seen = [await breaking.review(ctx, tom, one.approval_id, note, "review") for _ in range(2)]
        assert [each.code for each in seen] == ["reviewed", "replayed"]
        with pytest.raises(IdempotencyConflict):
            await breaking.review(ctx, tom, one.approval_id, ReviewRequest(note="did it?"), "review")
        other = await pairs.asked(await pairs.submit("one", payload=deploy()))
        gone = [await acting.withdraw(ctx, rita, other.approval_id, WithdrawRequest(), "away") for _ in range(2)]
        assert [(each.code, each.state) for each in gone] == [("withdrawn", "withdrawn"), ("replayed", "withdrawn")]
        third = await pairs.submit("one", payload=deploy())
        await pairs.asked(third)
        ended = [await acting.withdraw_workflow(ctx, rita, third, WithdrawRequest(), "whole") for _ in range(2)]
        assert [each.code for each in ended] == ["withdrawn", "replayed"]
    assert (await pairs.types(third)).count("confirmation-resolved") == 1
