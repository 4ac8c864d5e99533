"""Whatever changes a request, lost at each unit, its request or its reply: it is done once, whole, or refused as done.

The short versions run always; every unit with `./task faults`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import AlreadyResolved, Refusal, StaleRevision, TokenUsed
from orchestrator.service import acting, breaking, links, policies, timers
from orchestrator.service.context import Context
from orchestrator.wire import (
    ApprovalRecord,
    BreakGlassRequest,
    EditRequest,
    LinkRequest,
    PolicyText,
    WithdrawRequest,
)
from tests.faults.clients import insisting
from tests.faults.conftest import RISKY
from tests.faults.invariants import read
from tests.faults.proxy import Cut, Point
from tests.faults.rig import Rig, of_the_work, rigged
from tests.faults.target import Target
from tests.faults.test_lost_connections import lost_at, spread
from tests.harness import caller
from tests.service.arena import POLICIES, Hand, outcome_of

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Verb:
    """What is done to a request, what it is told of as, and what whoever sends it again may be told."""

    name: str
    event: str
    again: type[Refusal] | None
    then: Callable[[Stand, ApprovalRecord], Awaitable[object]] | None
    ends: str = "completed"
    operation: str = "deploy"


@dataclass
class Stand:
    """A rig, and clients that do one thing each."""

    rig: Rig
    clock: Hand = field(default_factory=Hand)

    @property
    def ctx(self) -> Context:
        return Context(self.rig.ctx.db, self.rig.ctx.governance, self.clock)

    async def asked(self, operation: str) -> ApprovalRecord:
        farm = self.rig.farm
        workflow = await farm.submit("edited", **{**RISKY, "operation": operation})
        return await farm.keyturn.asked(workflow)

    async def approve(self, one: ApprovalRecord, who: str, revision: int) -> None:
        told = await self.rig.farm.keyturn.approve(one.workflow_id, who, revision=revision)
        assert told == "resolved"

    async def call(self, verb: Verb, one: ApprovalRecord) -> Call:
        """What a client sends, as often as it takes."""
        self.clock.at = None
        match verb.name:
            case "edit":
                edited = EditRequest(action={**(one.action or {}), "arguments": {"size": 2}}, revision=1)
                return lambda: acting.edit(self.ctx, caller("theo"), one.approval_id, edited)
            case "withdraw":
                request = WithdrawRequest(reason="not needed")
                return lambda: acting.withdraw(self.ctx, caller("rita"), one.approval_id, request)
            case "break-glass":
                why = BreakGlassRequest(justification="it burns")
                return lambda: breaking.break_glass(self.ctx, caller("cleo"), one.approval_id, why)
            case "link":
                asked = LinkRequest(person="tara", verdict="approve")
                link = await links.create(self.rig.farm.keyturn.ctx, caller("tara"), one.approval_id, asked, "")
                token = link.url.rpartition("/")[2]
                return lambda: links.decide(self.ctx, token, "seen", caller("tara"))
            case _:
                rows = (await read(self.rig.farm.database_url)).approvals
                row = next(row for row in rows if row["approval_id"] == one.approval_id)
                at = row["escalate_at"] if verb.name == "escalate" else row["expires_at"]
                if verb.name == "expire":
                    self.clock.at = at - timedelta(hours=1)
                    await timers.sweep(Context(self.rig.farm.keyturn.ctx.db, self.ctx.governance, self.clock))
                self.clock.at = at
                return lambda: timers.sweep(self.ctx)

    async def points(self, verb: Verb) -> list[Point]:
        """The units of doing it once; what is prepared once is prepared before."""
        seen: list[Point] = []
        for _ in range(4):
            one = await self.asked(verb.operation)
            call = await self.call(verb, one)
            self.rig.client.arm()
            await call()
            seen = [*self.rig.client.seen]
            await self.finish(verb, one)
        return [point for point in seen if of_the_work(point) and "pg_notify" not in point.name]

    async def finish(self, verb: Verb, one: ApprovalRecord) -> None:
        """On from there, to the workflow's end."""
        if verb.then is not None:
            await verb.then(self, one)
        ended = await self.rig.farm.keyturn.until(one.workflow_id, verb.ends)
        types = [event["type"] for event in (await read(self.rig.farm.database_url)).events[ended.workflow_id]]
        assert types.count(verb.event) == 1, types

    async def lost(self, verb: Verb, point: Point, moment: Any) -> bool:
        """Do it with a loss there; whether it came by."""
        one = await self.asked(verb.operation)
        call = await self.call(verb, one)
        cut = Cut(point, moment)
        self.rig.client.arm(cut)
        told = await outcome_of(lambda: insisting(call))
        if isinstance(told, Refusal):
            # It was done, and its reply lost.
            assert (type(told), moment) == (verb.again, "after"), (point, told)
        self.rig.client.arm()
        await self.finish(verb, one)
        return cut.done.is_set()


VERBS = [
    Verb("edit", "approval-revised", StaleRevision, lambda at, one: at.approve(one, "tara", 2)),
    Verb("withdraw", "confirmation-resolved", AlreadyResolved, None, "cancelled"),
    Verb("break-glass", "break-glass", AlreadyResolved, None, operation="glass"),
    Verb("link", "confirmation-resolved", TokenUsed, None),
    Verb("escalate", "approval-escalated", None, lambda at, one: at.approve(one, "cleo", 1)),
    Verb("expire", "confirmation-resolved", None, None, "expired"),
]


@pytest.fixture
async def stand(database_url: str, target: Target, tmp_path: Path) -> AsyncIterator[Stand]:
    async with rigged(database_url, target, tmp_path) as rig:
        await policies.publish(rig.farm.keyturn.ctx, caller("root"), PolicyText(text=POLICIES, file="races.yaml"))
        yield Stand(rig)


async def lost_verbs(stand: Stand, verb: Verb, count: int | None = None) -> None:
    chosen = spread(lost_at(stand.rig.client, await stand.points(verb)), count)
    missed = [case for case in chosen if not await stand.lost(verb, case[1], case[2])]
    await stand.rig.farm.check()
    assert len(missed) <= len(chosen) // 5, missed


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
async def test_what_changes_a_request_is_done_once_whatever_is_lost(stand: Stand, verb: Verb) -> None:
    await lost_verbs(stand, verb, count=5)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
async def test_what_changes_a_request_is_done_once_whatever_is_lost_at_any_unit(stand: Stand, verb: Verb) -> None:
    await lost_verbs(stand, verb)
