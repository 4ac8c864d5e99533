"""A workflow at one moment, for clients that run a graph and stop where it waits: how it stands and what it asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from orchestrator.core.canonical import redact
from orchestrator.core.errors import AlreadyResolved, Refusal
from orchestrator.core.model import Status
from orchestrator.service import interrupts, resuming, views
from orchestrator.service.context import Caller, Context
from orchestrator.service.interrupts import Asked
from orchestrator.service.refusals import unknown
from orchestrator.service.resuming import Entry
from orchestrator.service.settling import settle
from orchestrator.store import approvals, events, workflows
from orchestrator.wire import ApprovalRecord, Decided

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Interrupted:
    """An interrupt that waits. `payload` is what it carries, with secrets masked; `allowed` is what each of `requests`
    takes, in its dialect's words. Of its requests some may be decided.
    """

    id: str
    node: str
    dialect: str
    payload: object
    requests: Sequence[ApprovalRecord]
    allowed: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Pause:
    """`input` is as it was sent, not for showing; the rest is masked. `ended_by` decided last of what it asked."""

    workflow_id: str
    graph: str
    status: Status
    reason: str | None
    last_seq: int
    input: Json
    result: object
    error: Json
    ended_by: str | None
    waiting: Sequence[Interrupted]


async def of_workflow(ctx: Context, caller: Caller, workflow_id: str) -> Pause:
    """The workflow and the interrupts that wait, after what time has done meanwhile. NotFound."""
    caller.need("read")
    found, behind = await _read(ctx, caller, workflow_id)
    if behind:
        await settle(ctx, caller.namespace, workflow_id)
        found, _ = await _read(ctx, caller, workflow_id)
    return found


async def _read(ctx: Context, caller: Caller, workflow_id: str) -> tuple[Pause, bool]:
    async with ctx.db.snapshot() as conn:
        row = await workflows.get(conn, caller.namespace, workflow_id)
        if row is None:
            raise unknown(workflow_id)
        asked = await approvals.of_workflow(conn, caller.namespace, workflow_id, ctx.clock())
        votes = await approvals.votes(conn, [one["approval_id"] for one in asked]) if asked else []
        now = await workflows.present(conn, ctx.clock()) if asked else row["updated_at"]

    def hidden(value: object) -> object:
        return redact.beside(value, row["input"])

    def shown(one: Asked) -> Interrupted:
        requests = [views.approval_record(each, votes, now) for each in one.rows]
        return Interrupted(
            one.id, one.rows[0]["node"], one.dialect, hidden(interrupts.shown(one)),
            [ApprovalRecord.model_validate(hidden(each.model_dump())) for each in requests],
            [each["allowed"] for each in one.rows],
        )  # fmt: skip

    ended = [one for one in asked if one["resolved_at"] is not None]
    last = max(ended, key=lambda one: one["resolved_at"], default=None)
    pause = Pause(
        workflow_id, row["graph"], Status(row["status"]), row["reason"], row["last_seq"], row["input"],
        hidden(row["result"]), cast("Json", hidden(row["error"] or {})),
        str(last["resolved_by"]) if last else None, [shown(one) for one in interrupts.grouped(asked) if one.pending],
    )  # fmt: skip
    return pause, any(one["behind"] for one in asked)


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of the answers of one client: those that were taken, and why the others were not."""

    decided: Sequence[Decided] = ()
    refused: Sequence[tuple[Entry, Refusal]] = ()


async def answer_each(ctx: Context, caller: Caller, workflow_id: str, entries: Sequence[Entry]) -> Answered:
    """Decide as the entries say, and where one of them is refused, as the others do. NotFound, Forbidden."""
    caller.need("decide")
    try:
        return Answered(await resuming.resume(ctx, caller, workflow_id, entries))
    except Refusal as refusal:
        if len(entries) == 1:
            return Answered(refused=[(entries[0], refusal)])
        applied = set(cast("Sequence[str]", refusal.facts.get("applied") or ()))
    decided: list[Decided] = []
    refused: list[tuple[Entry, Refusal]] = []
    for entry in entries:
        if decided and Status(decided[-1].status).finished:
            # What ended the workflow ended its other requests with it.
            break
        try:
            decided += await resuming.resume(ctx, caller, workflow_id, [entry])
        except AlreadyResolved as refusal:
            if refusal.facts.get("approval_id") not in applied:
                refused.append((entry, refusal))
        except Refusal as refusal:
            refused.append((entry, refusal))
    return Answered(decided, refused)


async def told_messages(ctx: Context, caller: Caller, thread_key: str) -> set[str]:
    """The ids of the messages that nodes whose text clients see have written on a thread."""
    async with ctx.db.connection() as conn:
        return await events.told_messages(conn, caller.namespace, thread_key)
