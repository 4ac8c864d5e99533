"""A running Keyturn for tests, in this process: real Postgres, the real worker, the use cases called directly."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config import load_governance
from orchestrator.engine.catalog import Catalog, load_catalog
from orchestrator.service import approvals, identity, workflows
from orchestrator.service.context import Caller, Context
from orchestrator.settings import Settings, load_settings
from orchestrator.store import checkpoints
from orchestrator.store.checkpoints import Batch
from orchestrator.store.db import Connection, Database
from orchestrator.store.parts import as_parts
from orchestrator.wire import (
    AnswerRequest,
    ApprovalRecord,
    ApproveRequest,
    PersonRequest,
    RejectRequest,
    SubmitRequest,
    WorkflowRecord,
)
from orchestrator.worker import Worker

APPS = Path(__file__).parent / "apps"
EVERYTHING = frozenset({"submit", "read", "decide", "admin", "audit"})
PEOPLE = {
    "rita": [],
    "tom": ["team_lead"],
    "tara": ["team_lead", "tech_lead"],
    "theo": ["tech_lead"],
    "cleo": ["cto"],
}


def caller(person: str, namespace: str = "default", *more: str) -> Caller:
    """A caller with every ordinary permission."""
    return Caller(namespace, person, EVERYTHING | set(more), "test")


@dataclass
class Keyturn:
    """Use cases and a worker on one database."""

    ctx: Context
    settings: Settings
    catalog: Catalog
    me: Caller = field(default_factory=lambda: caller("rita"))

    async def submit(self, graph: str, **content: object) -> str:
        """Submit as rita; returns the workflow's id."""
        return (await workflows.submit(self.ctx, self.me, SubmitRequest(graph=graph, input=content))).workflow_id

    async def get(self, workflow_id: str) -> WorkflowRecord:
        """The workflow."""
        return await workflows.get(self.ctx, self.me, workflow_id)

    async def until(self, workflow_id: str, *statuses: str, seconds: float = 20.0) -> WorkflowRecord:
        """Wait on the event channel until the workflow has one of `statuses`."""
        async with asyncio.timeout(seconds), self.ctx.db.listener("keyturn_events") as conn:
            while True:
                found = await self.get(workflow_id)
                if found.status in statuses:
                    return found
                async for notice in conn.notifies(timeout=0.5, stop_after=1):
                    if workflow_id in notice.payload:
                        break

    async def asked(self, workflow_id: str) -> ApprovalRecord:
        """Wait until the workflow waits, and return its one pending approval."""
        found = await self.until(workflow_id, "waiting")
        (one,) = [approval for approval in found.approvals if approval.state == "pending"]
        return one

    async def approve(self, workflow_id: str, who: str = "tara", **body: object) -> str:
        """Approve; returns the answer's code."""
        request = ApproveRequest.model_validate({"justification": "looks right", **body})
        return (await approvals.approve(self.ctx, caller(who), workflow_id, request)).code

    async def reject(self, workflow_id: str, who: str = "tara", **body: object) -> str:
        """Reject; returns the answer's code."""
        request = RejectRequest.model_validate({"reason": "not today", **body})
        return (await approvals.reject(self.ctx, caller(who), workflow_id, request)).code

    async def answer(self, approval_id: str, value: object, who: str = "tom") -> str:
        """Answer a question; returns the answer's code."""
        return (await approvals.answer(self.ctx, caller(who), approval_id, AnswerRequest(answer=value))).code

    async def types(self, workflow_id: str) -> list[str]:
        """The types of all events of a workflow, in order."""
        page = await workflows.events_page(self.ctx, self.me, workflow_id, 0, 1000)
        return [event.type for event in page.events]

    @contextlib.asynccontextmanager
    async def working(self, **overrides: object) -> AsyncGenerator[Worker]:
        """A worker, running while the block runs."""
        worker = Worker(self.ctx, self.catalog, self.settings.model_copy(update=overrides))
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        try:
            yield worker
        finally:
            stop.set()
            await task


_WRITE = """
SELECT keyturn.write_checkpoints(%(thread)s, p.checkpoints, p.blobs, p.writes, %(bytes)b::bytea[])
  FROM json_to_record(%(parts)s::json) AS p (checkpoints json, blobs json, writes json)
"""


async def write_checkpoints(conn: Connection, thread_id: str, batch: Batch) -> None:
    """Write a batch of a thread that no workflow holds."""
    contents: list[bytes | None] = []
    parts = as_parts(checkpoints.columns(batch, contents))
    await conn.execute(_WRITE, {"thread": thread_id, "parts": parts, "bytes": contents})


@contextlib.asynccontextmanager
async def running(
    database_url: str, *, app: Path = APPS / "langgraph.json", config: Path | None = None, **overrides: object
) -> AsyncGenerator[Keyturn]:
    """A Keyturn on `database_url` with the people of PEOPLE; `overrides` are settings."""
    settings = load_settings(
        database_url=database_url, app=app, config_dir=config, **{"lease_seconds": 3.0, **overrides}
    )
    governance = load_governance(settings.config_dir)
    db = Database(database_url)
    await db.open()
    ctx = Context(db, governance)
    try:
        for person, roles in PEOPLE.items():
            await identity.put_person(ctx, caller("root"), PersonRequest(person=person, roles=roles))
        async with load_catalog(settings.app, governance.rules.gates) as catalog:
            keyturn = Keyturn(ctx, settings, catalog)
            await Worker(ctx, catalog, settings).announce_graphs()
            yield keyturn
    finally:
        await db.close()
