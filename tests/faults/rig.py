"""The rig for sweeps: clients and workers reach Postgres through proxies of their own, the test itself directly."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.service import approvals, workflows
from orchestrator.service.context import Context
from orchestrator.store.db import Database
from orchestrator.wire import AnswerRequest, ApprovalRecord, ApproveRequest, SubmitRequest, WorkflowRecord
from tests.faults.clients import insisting
from tests.faults.conftest import RISKY, Farm
from tests.faults.process import Child
from tests.faults.proxy import Cut, Moment, Point, Proxy
from tests.faults.target import Target
from tests.harness import APPS, caller, running

APP = APPS / "sweep.json"
# What goes on beside the work, at times of its own.
_BESIDE = (
    "(sync)", "LISTEN", "UNLISTEN", "SELECT EXISTS (SELECT 1 FROM keyturn.workflows", "SELECT DISTINCT namespace",
    "UPDATE keyturn.workflows w SET lease_until", "INSERT INTO keyturn.workers", "DELETE FROM keyturn.workers",
    "SELECT pg_try_advisory", "?",
)  # fmt: skip


def of_the_work(point: Point) -> bool:
    return not point.name.startswith(_BESIDE) and "procrastinate" not in point.name


@dataclass
class Rig:
    """One database, a proxy for the clients and one for the workers."""

    farm: Farm
    client: Proxy
    worker: Proxy
    ctx: Context
    plants: tuple[str, ...] = ()
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    patience: float = 20.0

    def start_worker(self) -> Child:
        return self.farm.worker(url=self.worker.url, lease_seconds=1.0, plants=self.plants)

    @property
    def running_worker(self) -> Child:
        return next(child for child in self.farm.children if child.alive)

    async def life(self, graph: str) -> WorkflowRecord:
        """A workflow from its submission to its end; everything it asks is approved or answered by a client."""
        number = next(self.numbers)
        content: dict[str, object] = {"target": str(self.farm.target.folder), **RISKY}
        request = SubmitRequest(graph=graph, title=f"life {number}", input=content)
        submitted = await insisting(
            lambda: workflows.submit(self.ctx, self.farm.keyturn.me, request, f"submit {number}")
        )
        self.farm.promised.submitted[request.title] = submitted.workflow_id
        while True:
            found = await self.farm.keyturn.until(
                submitted.workflow_id, "waiting", "completed", "failed", seconds=self.patience
            )
            if found.status != "waiting":
                return found
            for one in [one for one in found.approvals if one.state == "pending"]:
                await self._decide(one)

    async def _decide(self, one: ApprovalRecord) -> None:
        tara, key = caller("tara"), f"decide {one.approval_id}"
        if one.kind == "question":
            yes = AnswerRequest(answer="yes")
            await insisting(lambda: approvals.answer(self.ctx, tara, one.approval_id, yes, key))
            return
        go = ApproveRequest(justification="go", approval_id=one.approval_id)
        told = await insisting(lambda: approvals.approve(self.ctx, tara, one.workflow_id, go, key))
        assert told.resolved_by == "tara"
        self.farm.promised.decided[one.approval_id] = ("approve", "tara")

    async def dry_run(self, graph: str) -> tuple[list[Point], list[Point]]:
        """The units of one life: the workers' and the clients'."""
        # Twice before, so that what is prepared once is prepared.
        for _ in range(2):
            await self.life(graph)
        self.worker.arm()
        self.client.arm()
        await self.life(graph)
        seen = self.worker.seen, self.client.seen
        return [point for point in seen[0] if of_the_work(point)], [point for point in seen[1] if of_the_work(point)]

    async def cut_life(
        self, graph: str, proxy: Proxy, point: Point, moment: Moment, act: Callable[[], None] | None = None
    ) -> tuple[WorkflowRecord, bool]:
        """A life whose proxy is cut at this point, and whether it came by there."""
        cut = Cut(point, moment, act or (lambda: None))
        self.worker.arm()
        self.client.arm()
        proxy.arm(cut)
        return await self.life(graph), cut.done.is_set()


@contextlib.asynccontextmanager
async def rigged(database_url: str, target: Target, folder: Path, plants: tuple[str, ...] = ()) -> AsyncGenerator[Rig]:
    """A rig with one worker."""
    async with (
        running(database_url, app=APP) as keyturn,
        Proxy(database_url).running() as client,
        Proxy(database_url).running() as worker,
    ):
        db = Database(client.url)
        await db.open()
        rig = Rig(Farm(keyturn, target, folder, APP), client, worker, Context(db, keyturn.ctx.governance), plants)
        try:
            rig.start_worker()
            yield rig
        finally:
            rig.farm.clear_away()
            await db.close()


async def supervising(rig: Rig) -> None:
    """Start another worker whenever one has died."""
    while True:
        await rig.running_worker.ended(600.0)
        rig.start_worker()
        await asyncio.sleep(0)
