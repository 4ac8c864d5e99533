"""Workflows from outside: submit, look, cancel, retry. Nothing here runs a graph."""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar, cast

from orchestrator.core.canonical import redact
from orchestrator.core.errors import AlreadyExecuted, Frozen, InvalidInput, NotFound, TransitionConflict
from orchestrator.core.json_schema import problems
from orchestrator.core.model import Level, Status
from orchestrator.core.plain import plain_json
from orchestrator.core.plan import timeout_of
from orchestrator.service import idempotency, views
from orchestrator.service.context import Caller, Context
from orchestrator.service.health import WORKER_SEEN_SECONDS
from orchestrator.service.refusals import audited, unknown
from orchestrator.service.settling import settle
from orchestrator.store import approvals, events, fleet, threads, workflows
from orchestrator.store.db import Connection, Params
from orchestrator.store.endings import unasked
from orchestrator.store.events import CANCEL_CHANNEL, EVENTS_CHANNEL, READY_CHANNEL, Event, Wanted
from orchestrator.store.workflows import NewWorkflow
from orchestrator.wire import (
    ApprovalRecord,
    Changed,
    EventPage,
    GraphView,
    SubmitRequest,
    Submitted,
    WorkflowPage,
    WorkflowRecord,
    WorkflowStatus,
)

T = TypeVar("T")
_HISTORY = 50
_LARGEST_PAGE = 200
_LARGEST_BYTES = 8_388_608
_BAD_CURSOR = "the cursor is not one this API gave; start again without it"


def new_id(prefix: str) -> str:
    """A new identifier, in order of creation to the millisecond."""
    return f"{prefix}-{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"


async def submit(ctx: Context, caller: Caller, request: SubmitRequest, idempotency_key: str | None = None) -> Submitted:
    """Accept a workflow: durable when this returns. NotFound for an unknown graph, InvalidInput for a wrong input."""
    new = await prepared(ctx, caller, request)
    workflow_id = cast("str", new.row["workflow_id"])
    keyed = idempotency.keyed(ctx, caller, idempotency_key, "submit", request)
    if keyed is None:
        await ctx.db.together(workflows.insert, new)
    else:
        async with ctx.db.pipeline() as conn:
            if (earlier := await keyed.keep(conn, workflow_id)) is not None:
                return await replayed(conn, caller, earlier)
            await workflows.insert(conn, [new])
    ctx.db.ring(READY_CHANNEL, caller.namespace)
    ctx.db.ring(EVENTS_CHANNEL, workflow_id, patient=True)
    return Submitted(workflow_id=workflow_id, status=Status.READY.value)


async def prepared(ctx: Context, caller: Caller, request: SubmitRequest) -> NewWorkflow:
    """The row to insert for a request. NotFound for an unknown graph, InvalidInput for a wrong input."""
    caller.need("submit")
    offer = await offered(ctx, request.graph)
    _check_input(offer, request)
    return _new(ctx, caller, request, offer, new_id("wf"))


async def offered(ctx: Context, graph: str) -> Params:
    """What workers offer under the name of a graph. NotFound."""
    offer = await ctx.offers.newest(ctx.db, graph)
    if offer is None:
        raise await _no_graph(ctx, graph)
    return offer


async def replayed(conn: Connection, caller: Caller, workflow_id: str) -> Submitted:
    """What the same request, sent before, has led to."""
    row = await workflows.get(conn, caller.namespace, workflow_id)
    return Submitted(workflow_id=workflow_id, status=row["status"] if row else "deleted", replayed=True)


def _new(ctx: Context, caller: Caller, request: SubmitRequest, offer: Params, workflow_id: str) -> NewWorkflow:
    # A title may repeat the secrets of the input (rule 25).
    title = redact.hide(request.title, request.input)
    data: dict[str, object] = {
        "graph": request.graph, "version": offer["version"], "title": title, "input": request.input,
        "on_behalf_of": request.on_behalf_of, "launched_by": request.launched_by, "key_id": caller.key_id,
    }  # fmt: skip
    told = {key: value for key, value in data.items() if value not in (None, "")}
    row = {
        **request.model_dump(), "title": title, "workflow_id": workflow_id, "namespace": caller.namespace,
        "now": ctx.clock(), "graph_version": offer["version"], "requester": caller.person,
        "capture": bool(offer["traits"].get("capture")), "task": bool(offer["traits"].get("plan")),
        "deadline": timeout_of(offer["traits"]) if request.deadline is None else request.deadline,
    }  # fmt: skip
    return NewWorkflow(row, Event("workflow-submitted", caller.person, told))


async def _no_graph(ctx: Context, graph: str) -> NotFound:
    async with ctx.db.connection() as conn:
        known = sorted(await _served(conn)) or await fleet.names(conn)
    detail = f"there is no graph {graph!r}; workers offer: {', '.join(known) or 'none yet'}"
    return NotFound(detail, allowed=known)


def _check_input(offer: Params, request: SubmitRequest) -> None:
    try:
        plain_json(request.input, "input")
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    if told := problems(cast("Mapping[str, object]", offer["input_schema"]), request.input, "input"):
        detail = f"the input does not fit graph {request.graph}: {'; '.join(told)}"
        raise InvalidInput(detail, problems=told)


async def _row(conn: Connection, caller: Caller, workflow_id: str) -> Params:
    row = await workflows.get(conn, caller.namespace, workflow_id)
    if row is None:
        raise unknown(workflow_id)
    return row


async def _approvals(ctx: Context, conn: Connection, row: Params) -> tuple[list[ApprovalRecord], bool]:
    """What the workflow asked, and whether time has changed something of it that nobody has written down yet."""
    asked = await approvals.of_workflow(conn, row["namespace"], row["workflow_id"], ctx.clock())
    votes = await approvals.votes(conn, [one["approval_id"] for one in asked]) if asked else []
    now = await workflows.present(conn, ctx.clock()) if asked else row["updated_at"]
    return [views.approval_record(one, votes, now) for one in asked], any(one["behind"] for one in asked)


async def get(ctx: Context, caller: Caller, workflow_id: str) -> WorkflowRecord:
    """The whole record. NotFound."""
    caller.need("read")

    async def read(conn: Connection) -> tuple[WorkflowRecord, bool]:
        row = await _row(conn, caller, workflow_id)
        asked, behind = await _approvals(ctx, conn, row)
        return views.workflow_record(row, asked), behind

    return await _settled(ctx, caller, workflow_id, read)


async def status(ctx: Context, caller: Caller, workflow_id: str) -> WorkflowStatus:
    """The short status with approvals and the latest events. NotFound."""
    caller.need("read")

    async def read(conn: Connection) -> tuple[WorkflowStatus, bool]:
        row = await _row(conn, caller, workflow_id)
        history = await events.newest(conn, caller.namespace, workflow_id, _HISTORY)
        note = None
        if row["status"] == Status.READY and row["graph"] not in await _served(conn):
            note = f"no worker that is up serves graph {row['graph']}; it runs as soon as one does"
        asked, behind = await _approvals(ctx, conn, row)
        return views.workflow_status(row, asked, [views.event_record(one) for one in history], note), behind

    return await _settled(ctx, caller, workflow_id, read)


async def _settled(
    ctx: Context, caller: Caller, workflow_id: str, read: Callable[[Connection], Awaitable[tuple[T, bool]]]
) -> T:
    """What `read` gives of one moment; once more where time had changed something nobody had written down yet."""
    async with ctx.db.snapshot() as conn:
        found, behind = await read(conn)
    if behind:
        await settle(ctx, caller.namespace, workflow_id)
        async with ctx.db.snapshot() as conn:
            found, _ = await read(conn)
    return found


async def _served(conn: Connection) -> set[str]:
    """The graphs of all workers that are up."""
    return {graph for worker in await fleet.live(conn, WORKER_SEEN_SECONDS) for graph in worker["graphs"]}


async def page(
    ctx: Context,
    caller: Caller,
    *,
    status: str | None = None,
    graph: str | None = None,
    case_id: str | None = None,
    risk: str | None = None,
    q: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> WorkflowPage:
    """One page, newest first. InvalidInput for a value that no workflow can have."""
    caller.need("read")
    _one_of("status", status, [one.value for one in Status])
    _one_of("risk", risk, [one.value for one in Level])
    size = max(1, min(limit, _LARGEST_PAGE))
    before_at, before_id = read_cursor(cursor)
    filters: Params = {
        "namespace": caller.namespace, "status": status, "graph": graph, "case_id": case_id, "risk": risk, "q": q,
        "before_at": before_at, "before_id": before_id, "limit": size + 1,
    }  # fmt: skip
    async with ctx.db.connection() as conn:
        rows = await workflows.page(conn, filters)
    last = rows[size - 1] if len(rows) > size else None
    return WorkflowPage(
        workflows=[views.summary(row) for row in rows[:size]],
        next_cursor=cursor_of(last["created_at"], last["workflow_id"]) if last else None,
    )


def _one_of(name: str, value: str | None, allowed: list[str]) -> None:
    if value is not None and value not in allowed:
        detail = f"{name} is {value!r}; allowed are {', '.join(allowed)}"
        raise InvalidInput(detail, allowed=allowed)


def cursor_of(at: datetime, workflow_id: str) -> str:
    """Where a page ends, as clients see it."""
    return base64.urlsafe_b64encode(f"{at.isoformat()} {workflow_id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> tuple[datetime | None, str | None]:
    """What `cursor_of` was given. InvalidInput for what it never gave."""
    if cursor is None:
        return None, None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        at, _, workflow_id = text.partition(" ")
        found = datetime.fromisoformat(at)
    except (ValueError, binascii.Error) as error:
        raise InvalidInput(_BAD_CURSOR) from error
    if found.tzinfo is None or not workflow_id or "\0" in workflow_id:
        raise InvalidInput(_BAD_CURSOR)
    return found, workflow_id


async def cancel(ctx: Context, caller: Caller, workflow_id: str, reason: str = "") -> Changed:
    """End a workflow that is ready, running or waiting, at once. TransitionConflict when it has ended."""
    now = ctx.clock()
    async with audited(ctx, caller, workflow_id, wanted="cancel"):
        caller.need("submit")
        async with ctx.db.transaction() as conn:
            row = await workflows.lock(conn, caller.namespace, workflow_id, now)
            if row is None:
                raise unknown(workflow_id)
            if Status(row["status"]).finished:
                raise _conflict(row, "cancelled", ["ready", "running", "waiting"])
            await cancel_on(conn, caller, row, reason, now)
    ring_cancelled(ctx, workflow_id)
    return Changed(workflow_id=workflow_id, status="cancelled")


async def cancel_on(conn: Connection, caller: Caller, row: Params, reason: str, now: datetime | None) -> None:
    """Cancel a workflow, with all it asks, whose row this transaction holds. Follow it with `ring_cancelled`."""
    workflow_id = cast("str", row["workflow_id"])
    reason = redact.hide(reason, row["input"])
    cancelled = await approvals.cancel_pending(conn, workflow_id, caller.person, now)
    await workflows.move(
        conn,
        {"workflow": workflow_id, "status": "cancelled", "reason": reason or None, "finished": True, "now": now},
    )
    data: dict[str, object] = {"reason": reason, "was": row["status"], "approvals": list(cancelled)}
    over = Event("workflow-cancelled", caller.person, data)
    await events.append(conn, workflow_id, [*unasked(cancelled, caller.person, reason), over], now)


def ring_cancelled(ctx: Context, workflow_id: str) -> None:
    """Tell its worker, and who watches, once that has committed."""
    ctx.db.ring(CANCEL_CHANNEL, workflow_id)
    ctx.db.ring(EVENTS_CHANNEL, workflow_id, patient=True)


async def retry(ctx: Context, caller: Caller, workflow_id: str) -> Changed:
    """Let a failed workflow go on from its last checkpoint. TransitionConflict unless it failed."""
    now = ctx.clock()
    async with audited(ctx, caller, workflow_id, wanted="retry"):
        caller.need("submit")
        async with ctx.db.transaction() as conn:
            seen = await _row(conn, caller, workflow_id)
            if seen["thread_key"]:
                await threads.lock(conn, caller.namespace, seen["thread_key"])
            row = await workflows.lock(conn, caller.namespace, workflow_id, now)
            if row is None:
                raise unknown(workflow_id)
            if row["status"] == Status.READY and row["reason"] == Frozen.code and row["run_at"] > row["now"]:
                until = row["run_at"].isoformat()
                detail = f"a freeze holds it until {until}; it runs by itself then"
                raise Frozen(detail, until=until)
            if row["status"] == Status.COMPLETED and await approvals.any_executed(conn, workflow_id):
                detail = "the workflow has completed, and what was approved has run; an approval runs once"
                raise AlreadyExecuted(detail, status=row["status"])
            if row["status"] != Status.FAILED:
                raise _conflict(row, "retried", ["failed"])
            await _check_newest(conn, row)
            await workflows.move(
                conn, {"workflow": workflow_id, "status": "ready", "reason": None, "finished": False, "now": now}
            )
            data: dict[str, object] = {"retry_of": row["reason"]}
            await events.append(conn, workflow_id, [Event("workflow-retried", caller.person, data)], now)
    ctx.db.ring(READY_CHANNEL, caller.namespace)
    ctx.db.ring(EVENTS_CHANNEL, workflow_id, patient=True)
    return Changed(workflow_id=workflow_id, status="ready")


async def _check_newest(conn: Connection, row: Params) -> None:
    """A thread has gone on from where its earlier runs ended."""
    last = await threads.newest_run(conn, row["thread_key"]) if row["thread_key"] else None
    if last is not None and last["workflow_id"] != row["workflow_id"]:
        detail = f"the thread has gone on with workflow {last['workflow_id']}; only its newest run can be retried"
        raise TransitionConflict(detail, status=row["status"], newest=last["workflow_id"])


def _conflict(row: Params, what: str, allowed: list[str]) -> TransitionConflict:
    detail = f"the workflow is {row['status']}; only a workflow that is {' or '.join(allowed)} can be {what}"
    return TransitionConflict(detail, status=row["status"], allowed=allowed)


async def events_page(
    ctx: Context, caller: Caller, workflow_id: str, after: int, limit: int, size: int = _LARGEST_BYTES
) -> EventPage:
    """Events with a number above `after`, in order: `limit` at most, about `size` bytes of them. NotFound."""
    caller.need("read")
    wanted = Wanted(caller.namespace, workflow_id, after, max(1, min(limit, 1000)), size)
    # Many streams are woken at the same time, each of another workflow: their pages are read together.
    found = await ctx.db.together(events.pages, wanted)
    if found is None:
        raise unknown(workflow_id)
    last = found.rows[-1]["seq"] if found.rows else after
    more = last < found.last_seq
    return EventPage(
        events=[views.event_record(one) for one in found.rows],
        next_seq=last,
        status=found.status,
        more=more,
        finished=Status(found.status).finished and not more,
    )


async def view_graph(ctx: Context, caller: Caller, workflow_id: str) -> GraphView:
    """The graph at the workflow's version, each node marked `done`, `current`, `pending-gate` or `todo`. NotFound."""
    caller.need("read")
    async with ctx.db.snapshot() as conn:
        row = await _row(conn, caller, workflow_id)
        offer = await fleet.version(conn, row["graph"], row["graph_version"]) or await fleet.newest(conn, row["graph"])
        done = await events.finished_nodes(conn, caller.namespace, workflow_id)
        asked = await approvals.of_workflow(conn, caller.namespace, workflow_id, ctx.clock())
    topology = cast("Mapping[str, Any]", offer["topology"] if offer else {"nodes": [], "edges": []})
    gates = {one["node"] for one in asked if one["state"] == "pending"}
    open_now = not Status(row["status"]).finished
    nodes: list[dict[str, object]] = [
        {**node, "state": _node_state(node["id"], row, gates, done, open_now=open_now)} for node in topology["nodes"]
    ]
    return GraphView(
        workflow_id=workflow_id, graph=row["graph"], version=row["graph_version"], nodes=nodes, edges=topology["edges"]
    )


def _node_state(node: str, row: Params, gates: set[str], done: set[str], *, open_now: bool) -> str:
    if node in gates:
        return "pending-gate"
    if open_now and node == row["node"]:
        return "current"
    started = node == "__start__"
    ended = node == "__end__" and row["status"] == Status.COMPLETED
    return "done" if node in done or started or ended else "todo"
