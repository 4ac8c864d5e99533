"""Every refusal is an event, of the workflow that it concerns or else of the namespace: what was refused, to whom, why.

Only to a caller who is known: nobody else may write into a trail.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from orchestrator.core.errors import NotFound, Refusal
from orchestrator.service.context import Caller, Context
from orchestrator.store import events, ledger, workflows
from orchestrator.store.events import EVENTS_CHANNEL, Event


@contextlib.asynccontextmanager
async def audited(ctx: Context, caller: Caller, workflow_id: str, **asked: object) -> AsyncGenerator[None]:
    """Let a refusal out of the block and leave it in the workflow's chain; what the block wrote is gone by then.

    `asked` says what was wanted. A workflow of another namespace gets nothing.
    """
    try:
        yield
    except Refusal as refusal:
        data: dict[str, object] = {"code": refusal.code, "detail": refusal.detail, **asked, "key_id": caller.key_id}
        async with ctx.db.transaction() as conn:
            if await workflows.lock(conn, caller.namespace, workflow_id, ctx.clock()) is not None:
                await events.append(conn, workflow_id, [Event("refused", caller.person, data)], ctx.clock())
        ctx.db.ring(EVENTS_CHANNEL, workflow_id, patient=True)
        raise


def unknown(workflow_id: str) -> NotFound:
    """The refusal for a workflow that is not in the caller's namespace."""
    return NotFound(f"there is no workflow {workflow_id!r}", workflow_id=workflow_id)


@contextlib.asynccontextmanager
async def noted(ctx: Context, caller: Caller, **asked: object) -> AsyncGenerator[None]:
    """Let a refusal that concerns no workflow out of the block, and leave it in the chain of the caller's namespace."""
    try:
        yield
    except Refusal as refusal:
        data: dict[str, object] = {"code": refusal.code, "detail": refusal.detail, **asked, "key_id": caller.key_id}
        async with ctx.db.connection() as conn:
            await ledger.append(conn, caller.namespace, [Event("refused", caller.person, data)], ctx.clock())
        raise
