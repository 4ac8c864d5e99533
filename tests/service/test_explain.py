"""What is told of a request that waits: who can still decide it, and which votes count no more."""

from __future__ import annotations

from orchestrator.service import explain, identity, policies
from orchestrator.wire import PersonRequest, PolicyText
from tests.harness import Keyturn, caller

ROOT = caller("root")
TWO = "policies: [{name: deploys, match: action.operation == 'deploy', stages: [[{role: tech_lead}, {role: cto}]]}]"


async def asked_of_two(keyturn: Keyturn) -> tuple[str, str]:
    """A deployment that waits for a tech lead and the CTO: its workflow and its approval."""
    await policies.publish(keyturn.ctx, ROOT, PolicyText(text=TWO, file="p.yaml"))
    async with keyturn.working():
        workflow = await keyturn.submit("governed", operation="deploy", environment="production")
        return workflow, (await keyturn.asked(workflow)).approval_id


async def test_who_has_approved_is_not_among_those_who_can_still_decide(keyturn: Keyturn) -> None:
    workflow, approval = await asked_of_two(keyturn)
    before = (await explain.approval(keyturn.ctx, keyturn.me, approval)).can_decide
    assert await keyturn.approve(workflow, "theo") == "recorded"
    after = await explain.approval(keyturn.ctx, keyturn.me, approval, "theo")
    assert set(before) - set(after.can_decide) == {"theo"}
    assert "cleo" in after.can_decide
    assert after.why_not == {"theo": "person_already_counted: theo has approved this already"}


async def test_a_vote_that_counts_no_more_says_why(keyturn: Keyturn) -> None:
    workflow, _ = await asked_of_two(keyturn)
    assert await keyturn.approve(workflow, "theo") == "recorded"
    await identity.put_person(keyturn.ctx, ROOT, PersonRequest(person="theo"))
    assert await keyturn.approve(workflow, "tara") == "recorded"
    (asked,) = (await keyturn.get(workflow)).approvals
    assert {one.voter: one.void_reason for one in asked.votes} == {"theo": "role_lost", "tara": None}
