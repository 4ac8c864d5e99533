"""The fixtures of fault tests: a target outside the database, and a farm of real processes on one database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.store import fleet
from orchestrator.wire import WorkflowRecord
from tests.faults.invariants import Promised, violations
from tests.faults.process import Child, WorkerSpec, start_api, start_worker
from tests.faults.target import Target
from tests.harness import APPS, Keyturn, running

APP = APPS / "faults.json"
_POLL = 0.02
_SETTLED = """
SELECT 1 FROM keyturn.workflows HAVING count(*) FILTER (WHERE status IN ('ready', 'running')) = 0
   AND count(*) FILTER (WHERE status = 'waiting') = %s
"""
RISKY: dict[str, object] = {"operation": "deploy", "environment": "production"}


@dataclass
class Farm:
    """A database with people in it, real processes that work on it, and the target of their effects."""

    keyturn: Keyturn
    target: Target
    folder: Path
    app: Path = APP
    children: list[Child] = field(default_factory=list[Child])
    promised: Promised = field(default_factory=Promised)

    @property
    def database_url(self) -> str:
        return self.keyturn.ctx.db.url

    async def kept(self, workflow: str) -> dict[str, Any]:
        """What a workflow that completes keeps as its result."""
        result = (await self.completed(workflow)).result
        assert isinstance(result, dict)
        return cast("dict[str, Any]", result)

    def worker(
        self, *, url: str | None = None, app: Path | None = None, plants: tuple[str, ...] = (), **settings: object
    ) -> Child:
        """Start a worker process; it claims what is ready. Its leases are 5 s unless `settings` say otherwise."""
        spec = WorkerSpec(
            url or self.database_url,
            app or self.app,
            self._log(),
            {"lease_seconds": 5.0, "pool_max": 8, **settings},
            plants,
        )
        return self._kept(start_worker(spec))

    def doomed(self, plants: tuple[str, ...] = ()) -> Child:
        """A worker that is to die: its leases are short, so that what it held is soon taken over."""
        return self.worker(plants=plants, lease_seconds=1.0)

    async def api(self) -> str:
        """Start an API process; its address."""
        child, address = await start_api(self.database_url, self._log())
        self._kept(child)
        return address

    def _log(self) -> Path:
        return self.folder / f"child-{len(self.children)}.log"

    def _kept(self, child: Child) -> Child:
        self.children.append(child)
        return child

    async def submit(self, graph: str, **content: object) -> str:
        """Submit with the target, as rita."""
        return await self.keyturn.submit(graph, target=str(self.target.folder), **content)

    async def ended(self, workflow_id: str) -> WorkflowRecord:
        """Wait until the workflow has ended, however it did."""
        return await self.keyturn.until(workflow_id, "completed", "failed", "rejected", "cancelled", "timed_out")

    async def completed(self, workflow_id: str) -> WorkflowRecord:
        """Wait until the workflow has completed."""
        done = await self.ended(workflow_id)
        assert done.status == "completed", (done.status, done.reason, done.error)
        return done

    async def until(self, found: Callable[[], bool | Awaitable[bool]], seconds: float = 60.0) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(seconds):
            while True:
                answer = found()
                if answer if isinstance(answer, bool) else await answer:
                    return
                await asyncio.sleep(_POLL)

    async def settled(self, waiting: int = 0) -> None:
        """Wait until `waiting` workflows wait for people and every other one has ended."""
        async with self.keyturn.ctx.db.connection() as conn:

            async def found() -> bool:
                return await (await conn.execute(_SETTLED, [waiting])).fetchone() is not None

            await self.until(found)

    async def offered(self, graph: str) -> None:
        """Wait until a worker has offered a graph."""
        async with self.keyturn.ctx.db.connection() as conn:

            async def found() -> bool:
                return await fleet.newest(conn, graph) is not None

            await self.until(found)

    async def said(self, worker: Child, what: str, times: int = 1) -> None:
        """Wait until a process has logged something."""
        await self.until(lambda: worker.said.count(what) >= times)

    async def check(self, *, steps_alike: bool = False) -> None:
        """Every promise, from the tables and the target."""
        found = await violations(self.database_url, self.target, self.promised, steps_alike=steps_alike)
        assert not found, "\n".join(found)

    def clear_away(self) -> None:
        for child in self.children:
            print(f"--- {child.log.name} (pid {child.pid})\n{child.said}")  # noqa: T201 shown when the test fails
            child.clear_away()


@pytest.fixture
def target(tmp_path: Path) -> Target:
    found = Target(tmp_path / "target")
    found.prepare()
    return found


@pytest.fixture
async def farm(database_url: str, target: Target, tmp_path: Path) -> AsyncIterator[Farm]:
    async with running(database_url, app=APP) as keyturn:
        found = Farm(keyturn, target, tmp_path)
        try:
            yield found
        finally:
            found.clear_away()
