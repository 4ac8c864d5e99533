"""Events over several workflows, a page at a time, in the order of their positions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from orchestrator.core.errors import Unavailable
from orchestrator.service.context import Caller, Context
from orchestrator.store import feeds
from orchestrator.store.db import Connection, Params
from orchestrator.store.feeds import Part
from orchestrator.wire import EventRecord
from orchestrator.wire_feeds import FeedEvent, FeedPage

_LARGEST_PAGE = 1000
_LARGEST_BYTES = 8_388_608
# Events one reading looks at where only some types are wanted.
_LOOKED_AT = 20_000
_PATIENCE_SECONDS = 2.0
_EVENT_FIELDS = tuple(EventRecord.model_fields)


@dataclass(frozen=True, slots=True)
class Everything:
    """Every workflow of the caller's namespace."""

    def topic(self, namespace: str) -> str:
        """What is rung when something of it happens; begins as no workflow's name does."""
        return f"@all {namespace}"


@dataclass(frozen=True, slots=True)
class OfCase:
    """The workflows of a case."""

    case_id: str

    def topic(self, namespace: str) -> str:
        """As above."""
        return f"@case {namespace} {self.case_id}"


@dataclass(frozen=True, slots=True)
class OfThread:
    """The runs of a thread."""

    thread_key: str

    def topic(self, namespace: str) -> str:
        """As above."""
        return f"@thread {namespace} {self.thread_key}"


Scope = Everything | OfCase | OfThread


def is_topic(name: str) -> bool:
    """Whether this is a topic, and not a workflow."""
    return name.startswith("@")


def topics(belongs: Params) -> list[str]:
    """The topics of all scopes that a workflow is in."""
    namespace = str(belongs["namespace"])
    scopes: list[Scope] = [Everything()]
    if belongs["case_id"] is not None:
        scopes.append(OfCase(belongs["case_id"]))
    if belongs["thread_key"] is not None:
        scopes.append(OfThread(belongs["thread_key"]))
    return [scope.topic(namespace) for scope in scopes]


async def begin(ctx: Context, scope: Scope) -> int:
    """Where a stream begins that was told no position: all that there is now is past, but for a case and a thread."""
    if not isinstance(scope, Everything):
        return 0
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await ctx.horizon.reach()
    except TimeoutError as error:
        detail = "somebody is writing events for long; try again shortly, or say where to begin with `after`"
        raise Unavailable(detail, retry_after=1) from error


async def page(
    ctx: Context,
    caller: Caller,
    scope: Scope,
    after: int,
    *,
    limit: int = 100,
    size: int = _LARGEST_BYTES,
    types: Sequence[str] = (),
    until: int | None = None,
) -> FeedPage:
    """The events of `scope` behind a position: `limit` at most, about `size` bytes of them, and only of these `types`,
    if any. `until` is how far events are known to be complete, by `Horizon`.
    """
    caller.need("read")
    if until is None:
        until = await ctx.horizon.within(_PATIENCE_SECONDS)
    if until <= after:
        return FeedPage(events=[], next_position=after, more=False)
    part = Part(caller.namespace, after, until, max(1, min(limit, _LARGEST_PAGE)), size, list(types) or None)
    async with ctx.db.connection() as conn:
        if part.types is not None and isinstance(scope, Everything):
            part = await _bounded(conn, part)
        rows = await _read(conn, scope, part)
    full = bool(rows) and (len(rows) < rows[0]["found"] or len(rows) == part.limit)
    reached = rows[-1]["position"] if full else part.until
    return FeedPage(events=[_event(row) for row in rows], next_position=reached, more=reached < until)


async def _bounded(conn: Connection, part: Part) -> Part:
    until = await feeds.reach(conn, part, _LOOKED_AT)
    return Part(part.namespace, part.after, until, part.limit, part.size, part.types)


async def _read(conn: Connection, scope: Scope, part: Part) -> list[Params]:
    match scope:
        case Everything():
            return await feeds.everything(conn, part)
        case OfCase(case_id):
            return await feeds.of_workflows(conn, part, case_id=case_id)
        case OfThread(thread_key):
            return await feeds.of_workflows(conn, part, thread_key=thread_key)
        case _:
            assert_never(scope)


def _event(row: Params) -> FeedEvent:
    told = {name: row[name] for name in _EVENT_FIELDS}
    request = row["data"].get("request_id")
    return FeedEvent(
        **told,
        position=row["position"],
        graph=row["graph"],
        case_id=row["case_id"],
        request_id=None if request is None else str(request),
    )
