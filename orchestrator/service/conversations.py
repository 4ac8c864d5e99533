"""Threads as the LangGraph API serves them: looked for, named anew, copied, put away, left unanswered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from orchestrator.core.canonical import redact
from orchestrator.core.errors import InvalidInput, NothingPending, NotOwner, ThreadBusy
from orchestrator.core.model import Status
from orchestrator.core.plain import plain_json
from orchestrator.service import acting, assistants, resuming, states, workflows
from orchestrator.service.context import Caller, Context
from orchestrator.service.resuming import Entry
from orchestrator.service.threads import Thread, no_thread, thread_of
from orchestrator.store import thread_pages
from orchestrator.store import threads as rows
from orchestrator.store.db import Connection, Params
from orchestrator.wire import WithdrawRequest

Told = Literal["idle", "busy", "interrupted", "error"]
_STATUSES: Mapping[Told, Sequence[str]] = {
    "busy": ("ready", "running"),
    "interrupted": ("waiting",),
    "error": ("failed", "timed_out"),
    "idle": ("none", "completed", "rejected", "cancelled", "expired"),
}
_TOLD: Mapping[str, Told] = {status: told for told, statuses in _STATUSES.items() for status in statuses}
_DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What threads are looked for. `metadata` is contained in theirs; `sort` names a time, `thread_id` or `status`."""

    metadata: Mapping[str, object] = field(default_factory=dict[str, object])
    ids: Sequence[str] | None = None
    status: Told | None = None
    sort: str = "created_at"
    up: bool = False
    limit: int = 10
    offset: int = 0


def told(thread: Thread) -> Told:
    """A thread's status in the words of the LangGraph API."""
    return _TOLD["none" if thread.status is None else thread.status.value]


async def find(ctx: Context, caller: Caller, thread_id: str) -> Thread:
    """The thread, or the workflow of this id as one. NotFound, also for one that was deleted."""
    async with ctx.db.connection() as conn:
        row = await rows.find(conn, caller.namespace, thread_id)
    if row is None or row["ended_reason"] == _DELETED:
        raise no_thread(thread_id)
    return thread_of(row)


async def search(ctx: Context, caller: Caller, wanted: Wanted) -> list[Thread]:
    """One page of threads."""
    caller.need("read")
    async with ctx.db.connection() as conn:
        found = await thread_pages.page(conn, await _filters(ctx, caller, wanted))
    return [thread_of(row) for row in found]


async def count(ctx: Context, caller: Caller, wanted: Wanted) -> int:
    """How many threads there are of them."""
    caller.need("read")
    filters = await _filters(ctx, caller, wanted)
    async with ctx.db.connection() as conn:
        return await thread_pages.count(conn, filters)


async def _filters(ctx: Context, caller: Caller, wanted: Wanted) -> Params:
    """`graph_id` and `assistant_id` are every thread's, whether its metadata names them or not."""
    metadata = dict(wanted.metadata)
    _checked(metadata)
    named = [str(metadata.pop(name)) for name in ("graph_id", "assistant_id") if name in metadata]
    known = {one.assistant_id: one.graph for one in await assistants.offered(ctx, caller)} if named else {}
    graphs = {known.get(name, name) for name in named}
    return {
        "namespace": caller.namespace, "metadata": metadata, "ids": None if wanted.ids is None else list(wanted.ids),
        # Two names that are not one graph's belong to no thread.
        "graph": None if not graphs else graphs.pop() if len(graphs) == 1 else "",
        "statuses": None if wanted.status is None else list(_STATUSES[wanted.status]),
        "sort": wanted.sort.removeprefix("state_"), "up": wanted.up, "limit": wanted.limit, "offset": wanted.offset,
    }  # fmt: skip


def _checked(metadata: Mapping[str, object]) -> None:
    try:
        plain_json(metadata, "metadata")
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def metadata_of(thread: Thread) -> dict[str, object]:
    """A thread's metadata, with its graph as LangGraph notes it; without its secrets."""
    known: dict[str, object] = {}
    if thread.graph is not None:
        known = {"graph_id": thread.graph, "assistant_id": assistants.id_of(thread.graph)}
    return cast("dict[str, object]", redact({**thread.metadata, **known}))


async def patch(ctx: Context, caller: Caller, thread: Thread, metadata: Mapping[str, object]) -> Thread:
    """Add to a thread's metadata."""
    caller.need("submit")
    _checked(metadata)
    async with ctx.db.transaction() as conn:
        await _held(conn, caller, thread)
        await thread_pages.patch(conn, caller.namespace, thread.thread_key, metadata, ctx.clock())
    return await find(ctx, caller, thread.thread_id)


async def _held(conn: Connection, caller: Caller, thread: Thread) -> None:
    """Keep the thread until the transaction ends; a workflow becomes one."""
    if thread.kind == "workflow":
        await rows.adopt(conn, caller.namespace, thread.thread_key)
    if await rows.lock(conn, caller.namespace, thread.thread_key) is None:
        raise no_thread(thread.thread_id)


async def delete(ctx: Context, caller: Caller, thread: Thread) -> None:
    """Show the thread no more, and let nothing more run on it; what happened stays in the trail. ThreadBusy."""
    caller.need("submit")
    async with ctx.db.transaction() as conn:
        await _held(conn, caller, thread)
        if thread.kind == "session" and caller.person != thread.person and "admin" not in caller.permissions:
            detail = f"only {thread.person}, whose session this is, and who has the permission `admin` can end it"
            raise NotOwner(detail, owner=thread.person)
        last = await rows.newest_run(conn, thread.thread_key)
        if last is not None and not Status(last["status"]).finished:
            detail = f"the thread's run is {last['status']}; decide what it asks, wait for its end, or cancel it first"
            raise ThreadBusy(detail, workflow_id=last["workflow_id"], status=last["status"])
        await thread_pages.put_away(conn, caller.namespace, thread.thread_key, ctx.clock())


async def copy(ctx: Context, caller: Caller, thread: Thread) -> Thread:
    """A new thread that begins with the state of this one. What this one asks, the new one does not."""
    caller.need("submit")
    caller.need("read")
    thread_id, key = workflows.new_id("th"), workflows.new_id("tk")
    row: Params = {
        "thread_key": key, "namespace": caller.namespace, "thread_id": thread_id, "kind": "thread",
        "graph": thread.graph, "person": caller.person, "mode": thread.mode, "title": thread.title,
        "case_id": thread.case_id, "metadata": dict(thread.metadata), "idle_seconds": None, "now": ctx.clock(),
    }  # fmt: skip
    async with ctx.db.transaction() as conn:
        await rows.insert(conn, row)
        await thread_pages.copy_state(conn, thread.thread_key, key)
    return await find(ctx, caller, thread_id)


async def ignore(ctx: Context, caller: Caller, thread: Thread) -> None:
    """Leave what a thread asks undone: whoever asked withdraws it, and anybody who decides it rejects it."""
    asked = await states.waiting(ctx, caller, thread)
    if not asked or thread.workflow_id is None:
        detail = f"the thread is {told(thread)} and asks nothing that could be ignored"
        raise NothingPending(detail, thread_id=thread.thread_id)
    if asked[0].rows[0]["requester"] == caller.person:
        await acting.withdraw_workflow(ctx, caller, thread.workflow_id, WithdrawRequest(reason="ignored"))
        return
    entries = [Entry(one.id, cancelled=True) for one in asked]
    decided = await resuming.resume(ctx, caller, thread.workflow_id, entries)
    short = await resuming.short_of(ctx, caller, decided)
    if short is not None:
        raise short
