"""Four people, the clock and a worker do anything to a few workflows in any order, from a seed: the promises hold."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import Refusal
from orchestrator.service import approvals, breaking, policies, workflows
from orchestrator.wire import BatchItem, BatchRequest, PolicyText, ReviewRequest, SubmitRequest
from tests.faults.invariants import Row
from tests.faults.target import Target
from tests.harness import caller
from tests.service.arena import POLICIES, Arena, Hand, Side, arena, outcome_of

_OPEN = 6
_ACTORS = 4
# What somebody may be told who comes at a bad moment, or who may not.
_TOLD = {
    "already_resolved", "stale_revision", "expired", "not_eligible", "self_approval", "vote_final", "not_owner",
    "conflict", "review_outstanding", "invalid_input", "already_executed",
}  # fmt: skip
_ANY = """
SELECT approval_id, workflow_id, revision, state, action FROM keyturn.approvals
 WHERE kind = 'approval' ORDER BY (state = 'pending') DESC, requested_at DESC, approval_id LIMIT 10
"""
_FAILED = "SELECT workflow_id FROM keyturn.workflows WHERE status = 'failed' ORDER BY workflow_id LIMIT 1"
_DECIDERS = ("tara", "theo", "tom", "cleo", "rita")


@pytest.fixture
async def ring(database_url: str, tmp_path: Path) -> AsyncIterator[Arena]:
    target = Target(tmp_path / "target")
    target.prepare()
    async with arena(database_url, target, Hand(ahead=timedelta(seconds=1))) as found:
        yield found


@dataclass
class Actor:
    """Somebody who does one thing after the other, each drawn from a seed."""

    ring: Arena
    side: Side
    chance: random.Random
    told: Counter[str] = field(default_factory=Counter[str])

    async def act(self, times: int) -> None:
        does = (
            [self.vote] * 8 + [self.edit] * 3 + [self.batch] * 2 + [self.break_glass] * 2 + [self.sweep] * 2
            + [self.submit, self.withdraw, self.cancel, self.retry, self.review, self.pass_time, self.publish]
        )  # fmt: skip
        for _ in range(times):
            does_now = self.chance.choice(does)
            answer = await outcome_of(does_now)
            assert not isinstance(answer, Refusal) or answer.code in _TOLD, answer
            self.told[f"{does_now.__name__} {getattr(answer, 'code', '')}".strip()] += 1

    async def _rows(self, statement: Any = _ANY) -> list[Row]:
        async with self.side.ctx.db.connection() as conn:
            return await (await conn.execute(statement)).fetchall()

    async def _row(self) -> Row | None:
        rows = await self._rows()
        return self.chance.choice(rows) if rows else None

    async def _on_one(self, do: Callable[[Row], Callable[[], Awaitable[Any]]]) -> Any:
        row = await self._row()
        return await do(row)() if row else None

    def _person(self) -> str:
        return self.chance.choice(_DECIDERS)

    async def vote(self) -> Any:
        verdict = self.chance.choice(["approve"] * 3 + ["reject"])
        return await self._on_one(lambda row: self.ring.vote(self.side, row, self._person(), verdict, row["revision"]))

    async def edit(self) -> Any:
        return await self._on_one(lambda row: self.ring.edit(self.side, row, self._person(), row["revision"]))

    async def withdraw(self) -> Any:
        return await self._on_one(
            lambda row: self.ring.withdraw(self.side, row, self.chance.choice(["rita", "rita", self._person()]))
        )

    async def break_glass(self) -> Any:
        return await self._on_one(lambda row: self.ring.break_glass(self.side, row))

    async def cancel(self) -> Any:
        return await self._on_one(lambda row: self.ring.cancel(self.side, row))

    async def review(self) -> Any:
        note = ReviewRequest(note="as it had to be")
        return await self._on_one(
            lambda row: lambda: breaking.review(self.side.ctx, caller("tara"), row["approval_id"], note)
        )

    async def batch(self) -> None:
        rows = (await self._rows())[:4]
        items = [
            BatchItem(approval_id=row["approval_id"], verdict="approve", justification="all", revision=row["revision"])
            for row in rows
        ]
        if items:
            for one in await approvals.batch(self.side.ctx, caller(self._person()), BatchRequest(decisions=items)):
                assert not isinstance(one, Refusal) or one.code in _TOLD, one

    async def sweep(self) -> Any:
        return await self.ring.sweep(self.side)()

    async def pass_time(self) -> None:
        self.side.clock.ahead += timedelta(minutes=self.chance.choice([1, 10, 25, 600]))

    async def retry(self) -> Any:
        failed = await self._rows(_FAILED)
        return await workflows.retry(self.side.ctx, self.ring.keyturn.me, failed[0]["workflow_id"]) if failed else None

    async def submit(self) -> None:
        operation = self.chance.choice(["deploy", "pair", "glass", "glass", "glass"])
        content: dict[str, object] = {"target": str(self.ring.target.folder), "operation": operation,
                                      "environment": "production"}  # fmt: skip
        request = SubmitRequest(graph="edited", input=content)
        await workflows.submit(self.side.ctx, self.ring.keyturn.me, request)

    async def publish(self) -> None:
        text = POLICIES.replace("count: 2", "count: 1") if self.chance.random() < 0.5 else POLICIES
        await policies.publish(self.side.ctx, caller("root"), PolicyText(text=text, file="races.yaml"))


async def interleaved(ring: Arena, seed: int, times: int) -> tuple[Counter[str], Counter[str]]:
    """So many things done by each of four; what they were told, and how the workflows ended."""
    seeds = random.Random(seed)  # noqa: S311 the same every time
    sides = [ring.one, ring.other]
    actors = [Actor(ring, sides[n % 2], random.Random(seeds.random())) for n in range(_ACTORS)]  # noqa: S311 as above
    async with ring.keyturn.working():
        for _ in range(_OPEN):
            await actors[0].submit()
        await ring.until(lambda found: found["waiting"] >= _OPEN)
        await asyncio.gather(*(actor.act(times) for actor in actors))
        ended = await ring.until(lambda found: not found["ready"] + found["running"])
    await ring.check()
    return sum((actor.told for actor in actors), Counter[str]()), ended


async def test_whatever_happens_in_whatever_order_the_promises_hold(ring: Arena) -> None:
    told, ended = await interleaved(ring, 20, 60)
    # It would prove little if nothing of it had come about. Which of it does, the order decides, and that is free.
    ends = {"vote resolved", "vote already_resolved", "edit revised", "break_glass resolved", "withdraw withdrawn"}
    assert len(ends & told.keys()) >= 3, told
    assert ended["completed"]


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(10))
async def test_whatever_happens_for_long_in_whatever_order_the_promises_hold(ring: Arena, seed: int) -> None:
    await interleaved(ring, seed, 300)
