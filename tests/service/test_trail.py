"""The trail and who may see it: chains verify, secrets never show, one request has one consequence, namespaces hold."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest

from orchestrator.core.canonical import MASK, chain_hash
from orchestrator.core.errors import (
    IdempotencyConflict,
    InvalidInput,
    KeyturnError,
    NotFound,
    SelfApproval,
    TokenWrongUser,
)
from orchestrator.core.model import Verdict
from orchestrator.service import (
    acting,
    approvals,
    audit,
    breaking,
    cases,
    delegations,
    explain,
    feeds,
    identity,
    links,
    workflows,
)
from orchestrator.service.context import Caller, Context
from orchestrator.service.deciding import Choice
from orchestrator.service.feeds import Everything
from orchestrator.store import events
from orchestrator.wire import (
    AnswerRequest,
    ApproveRequest,
    BatchItem,
    BatchRequest,
    BreakGlassRequest,
    Decided,
    DelegationRequest,
    EditRequest,
    ExplainRequest,
    KeyRequest,
    LinkRequest,
    PersonRequest,
    RejectRequest,
    ReviewRequest,
    SubmitRequest,
    Verification,
    VoteRequest,
    WithdrawRequest,
)
from orchestrator.wire_feeds import ConfirmationList, ConfirmRequest, FeedPage
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


# Namespaces


@dataclass
class Spy:
    """A stranger who has learned the ids."""

    ctx: Context
    me: Caller
    workflow: str
    approval: str
    delegation: str


TOMORROW = datetime.now(UTC) + timedelta(days=1)


async def done(deciding: Awaitable[list[Decided | KeyturnError]]) -> list[Decided | KeyturnError]:
    """What of a stranger's batch was not simply not there."""
    return [one for one in await deciding if not isinstance(one, NotFound)]


async def findings(verifying: Awaitable[Verification]) -> list[str]:
    """The chains of workflows that a stranger's check tells of."""
    return [one.workflow_id for one in (await verifying).findings]


async def waiting_in(listing: Awaitable[ConfirmationList]) -> list[str]:
    """The requests that a stranger's list of a case shows."""
    return [one.request_id for one in (await listing).confirmations]


async def shown(reading: Awaitable[FeedPage]) -> list[str]:
    """The workflows of which a stranger's feed tells."""
    return [one.workflow_id for one in (await reading).events]


USE = Callable[[Spy], Awaitable[Any]]
NOT_FOUND: dict[str, USE] = {
    "workflows.get": lambda spy: workflows.get(spy.ctx, spy.me, spy.workflow),
    "workflows.status": lambda spy: workflows.status(spy.ctx, spy.me, spy.workflow),
    "workflows.cancel": lambda spy: workflows.cancel(spy.ctx, spy.me, spy.workflow),
    "workflows.retry": lambda spy: workflows.retry(spy.ctx, spy.me, spy.workflow),
    "workflows.events_page": lambda spy: workflows.events_page(spy.ctx, spy.me, spy.workflow, 0, 10),
    "workflows.view_graph": lambda spy: workflows.view_graph(spy.ctx, spy.me, spy.workflow),
    "approvals.get": lambda spy: approvals.get(spy.ctx, spy.me, spy.approval),
    "approvals.approve": lambda spy: approvals.approve(spy.ctx, spy.me, spy.workflow, ApproveRequest()),
    "approvals.reject": lambda spy: approvals.reject(spy.ctx, spy.me, spy.workflow, RejectRequest(reason="x")),
    "approvals.vote": lambda spy: approvals.vote(spy.ctx, spy.me, spy.approval, VoteRequest(verdict="approve")),
    "approvals.answer": lambda spy: approvals.answer(spy.ctx, spy.me, spy.approval, AnswerRequest(answer="x")),
    "approvals.current": lambda spy: approvals.current(spy.ctx, spy.me, spy.approval),
    "approvals.decide_held": lambda spy: approvals.decide_held(
        spy.ctx, spy.me, spy.workflow, Choice(Verdict.APPROVE), None
    ),
    "acting.edit": lambda spy: acting.edit(spy.ctx, spy.me, spy.approval, EditRequest(action=RISKY)),
    "acting.withdraw": lambda spy: acting.withdraw(spy.ctx, spy.me, spy.approval, WithdrawRequest()),
    "acting.withdraw_workflow": lambda spy: acting.withdraw_workflow(spy.ctx, spy.me, spy.workflow, WithdrawRequest()),
    "breaking.break_glass": lambda spy: breaking.break_glass(
        spy.ctx, spy.me, spy.approval, BreakGlassRequest(justification="now")
    ),
    "breaking.review": lambda spy: breaking.review(spy.ctx, spy.me, spy.approval, ReviewRequest(note="fine")),
    "delegations.create": lambda spy: delegations.create(
        spy.ctx, spy.me, DelegationRequest(from_="tom", to="cleo", ends_at=TOMORROW)
    ),
    "delegations.revoke": lambda spy: delegations.revoke(spy.ctx, spy.me, spy.delegation),
    "links.create": lambda spy: links.create(
        spy.ctx, spy.me, spy.approval, LinkRequest(person="tara", verdict="approve"), ""
    ),
    "explain.approval": lambda spy: explain.approval(spy.ctx, spy.me, spy.approval),
    "cases.confirm": lambda spy: cases.confirm(spy.ctx, spy.me, "c", spy.approval, ConfirmRequest(approved=True)),
    "identity.create_key": lambda spy: identity.create_key(
        spy.ctx, spy.me, KeyRequest(person="tara", permissions=["read"])
    ),
}
EMPTY: dict[str, USE] = {
    "workflows.page": lambda spy: workflows.page(spy.ctx, spy.me),
    "approvals.pending": lambda spy: approvals.pending(spy.ctx, spy.me),
    "approvals.batch": lambda spy: done(
        approvals.batch(
            spy.ctx, spy.me, BatchRequest(decisions=[BatchItem(approval_id=spy.approval, verdict="approve")])
        )
    ),
    "delegations.list_open": lambda spy: delegations.list_open(spy.ctx, spy.me),
    "identity.list_people": lambda spy: identity.list_people(spy.ctx, spy.me),
    "identity.list_keys": lambda spy: identity.list_keys(spy.ctx, spy.me),
    "cases.pending": lambda spy: waiting_in(cases.pending(spy.ctx, spy.me, "c")),
    "feeds.page": lambda spy: shown(feeds.page(spy.ctx, spy.me, Everything(), 0)),
    "audit.verify": lambda spy: findings(audit.verify(spy.ctx, spy.me, None, 1000)),
}
# What has its own test below, or among those of the routes.
APART = {
    "workflows.submit",
    # Steps of other use cases, which look for what they concern.
    "workflows.prepared",
    "workflows.replayed",
    "workflows.cancel_on",
    "acting.would_change",
    "explain.action",
    "identity.put_person",
    "identity.revoke_key",
    "audit.page",
    "audit.contains",
    "links.decide",
}


def use_cases(module: ModuleType) -> set[str]:
    """The public functions of a service module that act for a caller."""
    name = module.__name__.rpartition(".")[2]
    return {
        f"{name}.{function.__name__}"
        for function in vars(module).values()
        if inspect.iscoroutinefunction(function)
        and function.__module__ == module.__name__
        and "caller" in inspect.signature(function).parameters
        and not function.__name__.startswith("_")
    }


_MODULES = (workflows, approvals, acting, breaking, delegations, links, explain, identity, audit, cases, feeds)


def test_every_use_case_is_in_a_table_of_this_test() -> None:
    found = {name for module in _MODULES for name in use_cases(module)}
    assert found - {*NOT_FOUND, *EMPTY, *APART} == set()


async def test_nothing_of_another_namespace_can_be_seen_or_changed(keyturn: Keyturn) -> None:
    async with keyturn.working():
        request = SubmitRequest(graph="governed", input=RISKY, case_id="c")
        workflow = (await workflows.submit(keyturn.ctx, keyturn.me, request)).workflow_id
        asked = await keyturn.asked(workflow)
        before = await keyturn.get(workflow)
        away = DelegationRequest(to="cleo", ends_at=TOMORROW)
        delegation = (await delegations.create(keyturn.ctx, caller("tom"), away)).delegation_id
        spy = Spy(keyturn.ctx, caller("tara", "elsewhere", "act_as"), workflow, asked.approval_id, delegation)
        for use in NOT_FOUND.values():
            with pytest.raises(NotFound):
                await use(spy)
        for name, use in EMPTY.items():
            found = await use(spy)
            assert not list(getattr(found, "workflows", found)), name
        assert await keyturn.get(workflow) == before
        (still,) = await delegations.list_open(keyturn.ctx, caller("tom"))
        assert (still.delegation_id, still.revoked_at) == (delegation, None)
    assert "refused" not in await keyturn.types(workflow), "not even a trace is left in the other namespace's trail"


async def test_a_link_is_of_no_use_to_the_same_person_of_another_namespace(keyturn: Keyturn) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("governed", **RISKY)
        asked = await keyturn.asked(workflow)
    request = LinkRequest(person="tara", verdict="approve")
    made = await links.create(keyturn.ctx, caller("tara"), asked.approval_id, request, "")
    token = made.url.rpartition("/")[2]
    with pytest.raises(TokenWrongUser):
        await links.decide(keyturn.ctx, token, "", caller("tara", "elsewhere", "act_as"))
    assert (await keyturn.asked(workflow)).votes == []
    # Whoever has the link has proved that: the trail it concerns tells of the attempt.
    assert "refused" in await keyturn.types(workflow)
    assert (await links.decide(keyturn.ctx, token, "", caller("tara"))).code == "resolved"


async def test_people_keys_and_submissions_belong_to_their_namespace(keyturn: Keyturn) -> None:
    ctx, admin, stranger = keyturn.ctx, caller("root"), caller("root", "elsewhere")
    key = await identity.create_key(ctx, admin, KeyRequest(person="tara", permissions=["read"]))
    with pytest.raises(NotFound):
        await identity.revoke_key(ctx, stranger, key.key_id)
    assert (await identity.authenticate(ctx, key.key)).namespace == "default"
    await identity.put_person(ctx, stranger, PersonRequest(person="tara", roles=[]))
    await identity.put_person(ctx, stranger, PersonRequest(person="lena", roles=["tech_lead"]))
    theirs = await workflows.submit(ctx, caller("tara", "elsewhere"), SubmitRequest(graph="governed", input=RISKY))
    async with keyturn.working():
        while (await workflows.get(ctx, stranger, theirs.workflow_id)).status != "waiting":
            await keyturn.until(await keyturn.submit("steps"), "completed")
        with pytest.raises(NotFound):
            await keyturn.approve(theirs.workflow_id)
    mine = [one for one in await identity.list_people(ctx, admin) if one.person == "tara"]
    assert list(mine[0].roles) == ["team_lead", "tech_lead"]
    told = await explain.action(ctx, stranger, ExplainRequest(action=RISKY))
    assert list(told.can_decide) == ["lena"]
