"""Keyturn doing everything in this process: submit, lease, assess, pause, vote, run, complete, with the real worker."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator
from pathlib import Path

from benchmarks.graph import STARTED, payload
from orchestrator.config import load_governance
from orchestrator.core.model import Status
from orchestrator.engine.catalog import Catalog, load_catalog
from orchestrator.service import approvals, identity, workflows
from orchestrator.service.context import Caller, Context
from orchestrator.settings import Settings, load_settings
from orchestrator.store.db import Database
from orchestrator.wire import ApproveRequest, PersonRequest, SubmitRequest
from orchestrator.worker import Worker

_APP = Path(__file__).parent / "langgraph.json"
_RITA = Caller("default", "rita", frozenset({"submit", "read"}))
_TARA = Caller("default", "tara", frozenset({"read", "decide"}))
_LOOK_SECONDS = 1.0
_ROOT = Caller("default", "root", frozenset({"admin"}))
_PEOPLE = (PersonRequest(person="rita", roles=[]), PersonRequest(person="tara", roles=["team_lead"]))


class Governed:
    """Use cases and a worker on one database, driven in process."""

    name = "keyturn"

    def __init__(self, url: str) -> None:
        self._url = url
        self._settings: Settings = load_settings(database_url=url, app=_APP)
        self._ended: defaultdict[str, asyncio.Queue[Status]] = defaultdict(asyncio.Queue)
        self._ctx: Context | None = None
        self._catalog: Catalog | None = None

    @property
    def _context(self) -> Context:
        assert self._ctx is not None
        return self._ctx

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Pool and graphs ready while the block runs."""
        governance = load_governance(self._settings.config_dir)
        db = Database(self._url, max_size=self._settings.pool_max)
        await db.open()
        self._ctx = Context(db, governance)
        try:
            for person in _PEOPLE:
                await identity.put_person(self._ctx, _ROOT, person)
            async with load_catalog(self._settings.app, governance.rules.gates) as self._catalog:
                yield
        finally:
            await db.close()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """The worker at work while the block runs."""
        assert self._catalog is not None
        worker = Worker(self._context, self._catalog, self._settings, on_end=self._told)
        await worker.announce_graphs()
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        try:
            yield
        finally:
            stop.set()
            await task

    def _told(self, workflow_id: str, status: Status) -> None:
        self._ended[workflow_id].put_nowait(status)

    async def one(self, lane: int) -> None:
        """The whole life of one workflow."""
        del lane
        workflow_id = await self.asked(uuid.uuid4().hex)
        await self.approve(workflow_id)
        await self.completed(workflow_id)

    async def decided_to_next(self) -> float:
        """Seconds from the answered decision to the first line of the next node, on an otherwise idle system."""
        job = uuid.uuid4().hex
        workflow_id = await self.asked(job)
        # The pause is committed; what it rang has settled as well before the decision is made.
        await asyncio.sleep(0.02)
        await self.approve(workflow_id)
        decided = time.monotonic()
        await self.completed(workflow_id)
        return STARTED[job] - decided

    async def asked(self, job: str) -> str:
        """Submit, and wait until the workflow waits for its approval."""
        request = SubmitRequest(graph="change", input={"job": job, "payload": payload(), "log": []})
        workflow_id = (await workflows.submit(self._context, _RITA, request)).workflow_id
        await self._reached(workflow_id, Status.WAITING)
        return workflow_id

    async def approve(self, workflow_id: str) -> None:
        """Vote."""
        await approvals.approve(self._context, _TARA, workflow_id, ApproveRequest(justification="looks right"))

    async def completed(self, workflow_id: str) -> None:
        """Wait for the end."""
        await self._reached(workflow_id, Status.COMPLETED)
        del self._ended[workflow_id]

    async def _reached(self, workflow_id: str, wanted: Status) -> None:
        """Wait until a segment has ended as `wanted`. A worker that gives up a lease tells nobody, so look as well."""
        status: str = ""
        while status != wanted:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    status = await self._ended[workflow_id].get()
            except TimeoutError:
                status = (await workflows.get(self._context, _RITA, workflow_id)).status
            assert status not in {Status.FAILED, Status.REJECTED}, f"{workflow_id} is {status}"
