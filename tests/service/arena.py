"""Two sides on one database, each with connections and a clock of its own, that do things to the same request at once.

A race is let run as it comes, and forced: one side is stopped where it has read and not yet written.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.core.errors import Refusal
from orchestrator.service import acting, approvals, breaking, policies, timers, workflows
from orchestrator.service.context import Context
from orchestrator.store import decisions
from orchestrator.store.db import Connection, Database
from orchestrator.store.decisions import Asked, Question
from orchestrator.wire import (
    BreakGlassRequest,
    EditRequest,
    PolicyText,
    SubmitRequest,
    VoteRequest,
    WithdrawRequest,
)
from tests.faults.invariants import Row, Tables, read, violations
from tests.faults.target import Target
from tests.harness import APPS, Keyturn, caller, running

APP = APPS / "faults.json"
POLICIES = """
roles: []
policies:
  - name: pairs
    match: action.operation == 'pair'
    stages: [[{any_of: [team_lead, tech_lead], count: 2}]]
  - name: glass
    match: action.operation == 'glass'
    stages: [[{any_of: [team_lead, tech_lead], count: 2}]]
    escalation: {after: 20m, to: [cto]}
    approval_ttl: 30m
    break_glass: {role: cto, review_within: 1d}
"""
_BLOCKED = """
SELECT count(*) AS many FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
_ASKED = """
SELECT approval_id, workflow_id, digest, expires_at, escalate_at, action FROM keyturn.approvals
 WHERE state = 'pending' ORDER BY approval_id
"""
_STATUSES = "SELECT status, count(*) AS many FROM keyturn.workflows GROUP BY status"
# One after the other, by milliseconds at most: so that either may be first.
_APART = 0.004
_LOOK = 0.02

Call = Callable[[], Awaitable[Any]]


@dataclass
class Hand:
    """A clock that stands where it is put; not put, it is the database's. `ahead` moves one that goes on."""

    at: datetime | None = None
    ahead: timedelta = timedelta()

    def __call__(self) -> datetime | None:
        return datetime.now(UTC) + self.ahead if self.ahead else self.at


@dataclass
class Side:
    """Connections and a clock."""

    ctx: Context
    clock: Hand


@dataclass
class Arena:
    """Both sides, and what reached the target."""

    keyturn: Keyturn
    one: Side
    other: Side
    target: Target
    chance: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 the same every time

    async def asked(self, count: int, operation: str = "deploy") -> list[Row]:
        """So many requests that wait."""
        content: dict[str, object] = {
            "target": str(self.target.folder), "operation": operation, "environment": "production",
        }  # fmt: skip
        request = SubmitRequest(graph="edited", input=content)
        await asyncio.gather(*(workflows.submit(self.one.ctx, self.keyturn.me, request) for _ in range(count)))
        async with self.keyturn.working():
            await self.until(lambda found: found["waiting"] >= count)
        async with self.keyturn.ctx.db.connection() as conn:
            return await (await conn.execute(_ASKED)).fetchall()

    async def race(self, *calls: Call) -> list[Any]:
        """Both at once; what each gave, or its refusal."""
        delays = [0.0, self.chance.uniform(0, _APART)]
        self.chance.shuffle(delays)
        return list(await asyncio.gather(*(outcome_of(*pair) for pair in zip(calls, delays, strict=True))))

    async def overtaken(self, monkeypatch: pytest.MonkeyPatch, late: Call, quick: Call, nth: int = 1) -> list[Any]:
        """`quick` is done between what `late` reads and what it writes."""
        told: list[Any] = []

        async def meanwhile() -> None:
            told.append(await outcome_of(quick))

        with _after_read(monkeypatch, nth, meanwhile):
            outcome = await outcome_of(late)
        return [outcome, *told]

    async def kept_waiting(
        self, monkeypatch: pytest.MonkeyPatch, holder: Call, waiter: Call, nth: int = 1
    ) -> list[Any]:
        """`waiter` finds the workflow held by `holder`, which goes on once the other waits for it."""
        waiting: list[asyncio.Task[Any]] = []

        async def meanwhile() -> None:
            waiting.append(asyncio.create_task(outcome_of(waiter)))
            async with self.keyturn.ctx.db.connection() as conn, asyncio.timeout(20):
                while (await (await conn.execute(_BLOCKED)).fetchone() or {})["many"] == 0:
                    assert not waiting[0].done(), waiting[0].result()
                    await asyncio.sleep(0.005)

        with _after_read(monkeypatch, nth, meanwhile):
            outcome = await outcome_of(holder)
        return [outcome, await waiting[0]]

    async def check(self) -> Tables:
        """Every promise, and that no two ever waited for each other. Without a worker nothing runs, however ready; and
        the target knows nothing of a clock that was moved: what ran is compared with what was decided instead.
        """
        found = await violations(self.keyturn.ctx.db.url, self.target)
        found = [one for one in found if not one.endswith(("approved, and still ready", "without an approval"))]
        assert not found, "\n".join(found)
        ran = {tuple(line.split()[1:]) for line in self.target.marks() if line.startswith("ran ")}
        tables = await read(self.keyturn.ctx.db.url)
        ends = [event["body"] | {"workflow": name} for name, told in tables.events.items() for event in told
                if event["type"] == "confirmation-resolved" and event["body"]["state"] == "approved"]  # fmt: skip
        assert ran <= {(end["workflow"], end["request_id"], end["digest"]) for end in ends}
        async with self.keyturn.ctx.db.connection() as conn:
            await conn.execute("SELECT pg_stat_force_next_flush()")
            row = await (await conn.execute(_DEADLOCKS)).fetchone()
        assert row == {"deadlocks": 0}
        return tables

    async def statuses(self) -> Counter[str]:
        """How many workflows are in each status."""
        async with self.keyturn.ctx.db.connection() as conn:
            rows = await (await conn.execute(_STATUSES)).fetchall()
        return Counter({row["status"]: row["many"] for row in rows})

    async def until(self, so: Callable[[Counter[str]], bool]) -> Counter[str]:
        """Wait until it is so of how many workflows are in each status."""
        async with asyncio.timeout(60):
            while True:
                found = await self.statuses()
                if so(found):
                    return found
                await asyncio.sleep(_LOOK)

    # What people do

    def vote(self, side: Side, row: Row, who: str = "tara", verdict: str = "approve", revision: int = 1) -> Call:
        request = VoteRequest.model_validate(
            {"verdict": verdict, "justification": "seen", "revision": revision, "digest": None}
        )
        return lambda: approvals.vote(side.ctx, caller(who), row["approval_id"], request)

    def edit(self, side: Side, row: Row, who: str = "theo", revision: int = 1) -> Call:
        action: dict[str, object] = {**row["action"], "arguments": {"edited": f"{who} {revision}"}}
        request = EditRequest(action=action, revision=revision)
        return lambda: acting.edit(side.ctx, caller(who), row["approval_id"], request)

    def withdraw(self, side: Side, row: Row, who: str = "rita") -> Call:
        return lambda: acting.withdraw(side.ctx, caller(who), row["approval_id"], WithdrawRequest(reason="not needed"))

    def break_glass(self, side: Side, row: Row, who: str = "cleo") -> Call:
        request = BreakGlassRequest(justification="it burns")
        return lambda: breaking.break_glass(side.ctx, caller(who), row["approval_id"], request)

    def cancel(self, side: Side, row: Row) -> Call:
        return lambda: workflows.cancel(side.ctx, self.keyturn.me, row["workflow_id"])

    def sweep(self, side: Side) -> Call:
        return lambda: timers.sweep(side.ctx)


async def outcome_of(call: Call, delay: float = 0.0) -> Any:
    """What a call gives, or its refusal."""
    await asyncio.sleep(delay)
    try:
        return await call()
    except Refusal as refusal:
        return refusal


@contextlib.contextmanager
def _after_read(monkeypatch: pytest.MonkeyPatch, nth: int, meanwhile: Callable[[], Awaitable[None]]) -> Any:
    """`meanwhile` is awaited where the nth reading in this block has read and its reader has not yet written."""
    reading, times = decisions.read, 0

    async def late(conn: Connection, questions: Sequence[Question], *, wait: bool = True) -> list[Asked | None]:
        nonlocal times
        times += 1
        mine = times == nth
        found = await reading(conn, questions, wait=wait)
        if mine:
            await meanwhile()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(decisions, "read", late)
        yield
    assert times >= nth


def code(outcome: Any) -> str:
    """The code of an answer or of a refusal."""
    return str(outcome.code)


@contextlib.asynccontextmanager
async def arena(database_url: str, target: Target, shared: Hand | None = None) -> AsyncGenerator[Arena]:
    """An arena with published policies; with a `shared` clock everybody goes by that one."""
    async with running(database_url, app=APP) as keyturn:
        if shared is not None:
            keyturn.ctx = Context(keyturn.ctx.db, keyturn.ctx.governance, shared)
        hands = [shared or Hand() for _ in range(2)]
        sides = [Side(Context(Database(database_url), keyturn.ctx.governance, hand), hand) for hand in hands]
        for side in sides:
            await side.ctx.db.open()
        try:
            await policies.publish(keyturn.ctx, caller("root"), PolicyText(text=POLICIES, file="races.yaml"))
            yield Arena(keyturn, sides[0], sides[1], target)
        finally:
            for side in sides:
                await side.ctx.db.close()
