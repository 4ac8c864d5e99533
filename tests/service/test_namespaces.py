"""Nothing of another namespace is shown or changed by any use case, whoever has learned its ids."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest

from orchestrator.core.errors import (
    KeyturnError,
    NotFound,
    TokenWrongUser,
)
from orchestrator.core.model import Verdict
from orchestrator.service import (
    acting,
    approvals,
    assistants,
    audit,
    breaking,
    cases,
    conversations,
    conversing,
    delegations,
    explain,
    feeds,
    histories,
    identity,
    inbox,
    links,
    pausing,
    progress,
    resuming,
    runs,
    sessions,
    states,
    threads,
    workflows,
)
from orchestrator.service.context import Caller, Context
from orchestrator.service.conversations import Wanted
from orchestrator.service.deciding import Choice
from orchestrator.service.feeds import Everything, OfCase, OfThread
from orchestrator.service.resuming import Entry
from orchestrator.service.sessions import Limits
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
from orchestrator.wire_inbox import InboxPage
from orchestrator.wire_progress import TaskList, TaskProgress
from orchestrator.wire_sessions import MessageRequest, SessionPage, SessionRequest
from tests.harness import Keyturn, caller

RISKY: dict[str, Any] = {"operation": "deploy", "environment": "production"}


@dataclass
class Spy:
    """A stranger who has learned the ids."""

    ctx: Context
    me: Caller
    workflow: str
    approval: str
    delegation: str
    session: str
    key: str


TOMORROW = datetime.now(UTC) + timedelta(days=1)


async def done(deciding: Awaitable[list[Decided | KeyturnError]]) -> list[Decided | KeyturnError]:
    """What of a stranger's batch was not simply not there."""
    return [one for one in await deciding if not isinstance(one, NotFound)]


async def taken(answering: Awaitable[pausing.Answered]) -> list[object]:
    """What of a stranger's answers was not simply not there."""
    found = await answering
    return [*found.decided, *(why for _, why in found.refused if not isinstance(why, NotFound))]


async def findings(verifying: Awaitable[Verification]) -> list[str]:
    """The chains of workflows that a stranger's check tells of."""
    return [one.workflow_id for one in (await verifying).findings]


async def waiting_in(listing: Awaitable[ConfirmationList]) -> list[str]:
    """The requests that a stranger's list of a case shows."""
    return [one.request_id for one in (await listing).confirmations]


async def shown(reading: Awaitable[FeedPage]) -> list[str]:
    """The workflows of which a stranger's feed tells."""
    return [one.workflow_id for one in (await reading).events]


async def listed(reading: Awaitable[InboxPage]) -> list[object]:
    """What a stranger's inbox shows, or at least counts."""
    page = await reading
    return [*page.items, *range(page.count)]


async def tasks(reading: Awaitable[TaskList]) -> list[TaskProgress]:
    """The tasks that a stranger sees."""
    return list((await reading).tasks)


async def open_sessions(reading: Awaitable[SessionPage]) -> list[str]:
    """The sessions that a stranger sees."""
    return [one.session_id for one in (await reading).sessions]


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
    "inbox.item": lambda spy: inbox.item(spy.ctx, spy.me, spy.workflow),
    "progress.of_workflow": lambda spy: progress.of_workflow(spy.ctx, spy.me, spy.workflow),
    "pausing.of_workflow": lambda spy: pausing.of_workflow(spy.ctx, spy.me, spy.workflow),
    "resuming.resume": lambda spy: resuming.resume(spy.ctx, spy.me, spy.workflow, [Entry(None, value=True)]),
    "threads.find": lambda spy: threads.find(spy.ctx, spy.me, spy.session),
    "conversations.find": lambda spy: conversations.find(spy.ctx, spy.me, spy.session),
    "conversations.find a workflow": lambda spy: conversations.find(spy.ctx, spy.me, spy.workflow),
    "sessions.get": lambda spy: sessions.get(spy.ctx, spy.me, spy.session),
    "sessions.current": lambda spy: sessions.current(spy.ctx, spy.me, spy.session),
    "sessions.thread_key": lambda spy: sessions.thread_key(spy.ctx, spy.me, spy.session),
    "sessions.end": lambda spy: sessions.end(spy.ctx, spy.me, spy.session),
    "conversing.send": lambda spy: conversing.send(spy.ctx, spy.me, spy.session, MessageRequest(content="x")),
    "histories.history": lambda spy: histories.history(spy.ctx, spy.me, spy.session),
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
    "feeds.page of a case": lambda spy: shown(feeds.page(spy.ctx, spy.me, OfCase("c"), 0)),
    "feeds.page of a thread": lambda spy: shown(feeds.page(spy.ctx, spy.me, OfThread(spy.key), 0)),
    "pausing.answer_each": lambda spy: taken(
        pausing.answer_each(spy.ctx, spy.me, spy.workflow, [Entry(None, value=True)])
    ),
    "inbox.page": lambda spy: listed(inbox.page(spy.ctx, spy.me, limit=10, offset=0)),
    "progress.live": lambda spy: tasks(progress.live(spy.ctx, spy.me, shown=10, seconds=60)),
    "sessions.page": lambda spy: open_sessions(sessions.page(spy.ctx, spy.me, ended=True)),
    "conversations.search": lambda spy: conversations.search(spy.ctx, spy.me, Wanted()),
    "pausing.told_messages": lambda spy: pausing.told_messages(spy.ctx, spy.me, spy.key),
    "audit.verify": lambda spy: findings(audit.verify(spy.ctx, spy.me, None, 1000)),
}
# What has its own test below, or among those of the routes.
APART = {
    "workflows.submit",
    # Steps of other use cases, which look for what they concern.
    "workflows.prepared",
    "workflows.replayed",
    "workflows.cancel_on",
    "sessions.prepared_run",
    "threads.insert_run",
    "resuming.short_of",
    "resuming.check_seen",
    "states.shown",
    "acting.would_change",
    "explain.action",
    "identity.put_person",
    "identity.revoke_key",
    "audit.page",
    "audit.contains",
    "links.decide",
    # Graphs belong to no namespace; what is begun is the caller's.
    "assistants.offered",
    "inbox.capture",
    "sessions.start",
    "threads.create",
    "conversations.create",
    # A number, which is looked at below.
    "conversations.count",
}
# What is done with a thread begins with finding it.
OF_A_THREAD = {
    "threads.begin",
    *(f"conversations.{name}" for name in ("patch", "delete", "copy", "ignore")),
    *(f"runs.{name}" for name in ("start", "resume", "find", "of_thread", "cancel")),
    *(f"states.{name}" for name in ("state", "history", "newest", "waiting")),
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


_MODULES = (
    workflows, approvals, acting, breaking, delegations, links, explain, identity, audit, cases, feeds, sessions,
    conversing, histories, inbox, progress, threads, runs, conversations, states, resuming, assistants, pausing,
)  # fmt: skip


def test_every_use_case_is_in_a_table_of_this_test() -> None:
    found = {name for module in _MODULES for name in use_cases(module)}
    assert found - {*NOT_FOUND, *EMPTY, *APART, *OF_A_THREAD} == set()


async def test_nothing_of_another_namespace_can_be_seen_or_changed(keyturn: Keyturn) -> None:
    async with keyturn.working():
        began = SessionRequest(graph="governed", input=RISKY, case_id="c")
        session = await sessions.start(keyturn.ctx, keyturn.me, began, Limits(60, 5))
        workflow = session.workflow_id
        assert workflow is not None
        asked = await keyturn.asked(workflow)
        before = await keyturn.get(workflow)
        away = DelegationRequest(to="cleo", ends_at=TOMORROW)
        delegation = (await delegations.create(keyturn.ctx, caller("tom"), away)).delegation_id
        key = await sessions.thread_key(keyturn.ctx, keyturn.me, session.session_id)
        ids = (workflow, asked.approval_id, delegation, session.session_id, key)
        # They are called what the session's person is called: a name alone tells nobody apart.
        spy = Spy(keyturn.ctx, caller("rita", "elsewhere", "act_as"), *ids)
        for name, use in NOT_FOUND.items():
            with pytest.raises(NotFound):
                pytest.fail(f"{name} found {await use(spy)}")
        assert await conversations.count(spy.ctx, spy.me, Wanted()) == 0
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


async def test_keys_that_are_shown_at_the_same_time_are_looked_up_together(keyturn: Keyturn) -> None:
    ctx, admin = keyturn.ctx, caller("root")
    made = [await identity.create_key(ctx, admin, KeyRequest(person="tara", permissions=["read"])) for _ in range(20)]
    await identity.revoke_key(ctx, admin, made[0].key_id)
    keyring = identity.Keyring(ctx)
    before = ctx.db.pool.get_stats()["requests_num"]
    wrong = f"{made[1].key[:-4]}xxxx"
    shown = [*(one.key for one in made), wrong, "kt_0123456789abcdef_" + "x" * 43, "nonsense"]
    found = await asyncio.gather(*(keyring.authenticate(key) for key in shown), return_exceptions=True)
    assert [isinstance(one, Caller) for one in found] == [False, *[True] * 19, False, False, False]
    assert [one.key_id for one in found if isinstance(one, Caller)] == [one.key_id for one in made[1:]]
    # A thousand streams that wake at once, each with its own key, leave the pool to others.
    assert ctx.db.pool.get_stats()["requests_num"] - before <= len(shown) / 2
