"""The audit trail as evidence: listed, proved chain by chain, exported, and its heads signed to be kept elsewhere.

Nothing here writes. Long work goes chain by chain from a cursor, each batch in a short transaction of its own.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.core.anchors import AnchorWriter
from orchestrator.core.audit import ChainCheck, Finding, Head, compare, export_line
from orchestrator.core.errors import InvalidInput
from orchestrator.service.context import Caller, Context
from orchestrator.service.workflows import unknown
from orchestrator.store import audit, workflows
from orchestrator.store.audit import FROM_THE_NEWEST, Chain, Filters
from orchestrator.store.db import Connection
from orchestrator.wire import AuditEvent, AuditFinding, AuditPage, HeadsRequest, Verification

# Chains and events that are read at a time: an event may have a body of a megabyte.
_CHAINS: Final = 32
_EVENTS: Final = 500
# Names of chains that are looked through at a time for those whose workflow is gone.
_NAMES: Final = 5_000
# Which takes about as long as checking so many.
_NAMES_COST: Final = 150
# Workflows whose events one page of the list looks through.
_LOOKED_AT: Final = 1_000
_LARGEST_PAGE: Final = 1_000
_BAD_CURSOR: Final = "the cursor is not one this API gave; start again without it"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the namespace's chains to go on: behind the one that is named. `seq`: within the chain at `name`."""

    part: Literal["ledger", "workflows", "gone"] = "ledger"
    name: str = ""
    at: datetime | None = None
    seq: int | None = None


async def page(
    ctx: Context, caller: Caller, *, event_type: str | None, actor: str | None, after: str | None, limit: int
) -> AuditPage:
    """Events of the namespace: its own first, then those of its workflows, newest first. Raises InvalidInput."""
    caller.need("audit")
    place = _read(after)
    size = max(1, min(limit, _LARGEST_PAGE))
    filters: dict[str, object] = {"type": event_type, "actor": actor, "limit": size + 1}
    async with ctx.db.snapshot() as conn:
        # The chain that the page before ended in is gone on with.
        chains = [Chain(place.name, None, place.at)] if place.seq is not None else []
        more, ahead = await _next(conn, caller.namespace, place, _LOOKED_AT)
        chains += more
        if place.part == "ledger" and ahead is not None:
            more, ahead = await _next(conn, caller.namespace, ahead, _LOOKED_AT)
            chains += more
        rows = await audit.newest(
            conn, caller.namespace, [chain.name for chain in chains], place.seq or FROM_THE_NEWEST, filters
        )
    shown = [AuditEvent(**row) for row in rows[:size]]
    if len(rows) > size:
        last = next(chain for chain in chains if chain.name == shown[-1].workflow_id)
        ahead = _Place("workflows" if last.created_at else "ledger", last.name, last.created_at, shown[-1].seq)
    elif ahead is not None and ahead.part == "gone":
        ahead = None
    return AuditPage(events=shown, next_cursor=_written(ahead))


async def verify(ctx: Context, caller: Caller, after: str | None, limit: int) -> Verification:
    """Check some `limit` chains from the cursor on, every hash of them computed again. Raises InvalidInput."""
    caller.need("audit")
    place: _Place | None = _read(after)
    if place.seq is not None:
        raise InvalidInput(_BAD_CURSOR)
    checks = events = spent = 0
    findings: list[AuditFinding] = []
    while place is not None and spent < limit:
        looked_for, least = (_NAMES, _NAMES_COST) if place.part == "gone" else (_CHAINS, 0)
        # One snapshot: the heads and the events behind them must be of the same moment.
        async with ctx.db.snapshot() as conn:
            chains, place = await _next(conn, caller.namespace, place, looked_for)
            spent += max(least, len(chains))
            for start in range(0, len(chains), _CHAINS):
                for check in await _checked(conn, caller.namespace, chains[start : start + _CHAINS]):
                    checks, events = checks + 1, events + check.events
                    findings += map(_finding, check.findings)
    return Verification(ok=not findings, chains=checks, events=events, findings=findings, next_cursor=_written(place))


async def _checked(conn: Connection, namespace: str, chains: Sequence[Chain]) -> Sequence[ChainCheck]:
    checks = {chain.name: ChainCheck(chain.name, namespace, chain.head) for chain in chains}
    names, after = list(checks), 0
    while names:
        found = await audit.events(conn, names, after, _EVENTS)
        for event in found:
            checks[event.workflow_id].take(event)
        if len(found) < _EVENTS:
            break
        names, after = names[names.index(found[-1].workflow_id) :], found[-1].seq
    for check in checks.values():
        check.end()
    return list(checks.values())


async def contains(ctx: Context, caller: Caller, request: HeadsRequest) -> Verification:
    """Whether the namespace's chains still contain these heads, which were anchored before."""
    caller.need("audit")
    heads = [(head.workflow_id, head.seq) for head in request.heads]
    async with ctx.db.connection() as conn:
        found = await audit.anchored(conn, caller.namespace, heads)
    told = [
        compare(head.workflow_id, Head(head.seq, bytes.fromhex(head.hash)), there, last)
        for head, (there, last) in zip(request.heads, found, strict=True)
    ]
    findings = [_finding(finding) for finding in told if finding is not None]
    return Verification(ok=not findings, chains=len(heads), events=0, findings=findings)


def _finding(found: Finding) -> AuditFinding:
    return AuditFinding(workflow_id=found.workflow_id, seq=found.seq, detail=found.detail)


async def anchor(ctx: Context, caller: Caller, key: Ed25519PrivateKey) -> AsyncIterator[str]:
    """The lines of an anchor: the heads of all chains of the namespace, signed with `key`."""
    caller.need("audit")
    writer = AnchorWriter(key)
    async with ctx.db.connection() as conn:
        now = await workflows.present(conn, ctx.clock())
    yield writer.begin(caller.namespace, now)
    place: _Place | None = _Place()
    while place is not None and place.part != "gone":
        async with ctx.db.connection() as conn:
            chains, place = await _next(conn, caller.namespace, place, _LOOKED_AT)
        yield "".join(writer.head(one.name, one.head) for one in chains if one.head is not None and one.head.seq)
    yield writer.end()


async def export(ctx: Context, caller: Caller, filters: Filters, workflow_id: str | None = None) -> AsyncIterator[str]:
    """The namespace's events as lines of JSON, each with its hash and the text it is over; or those of one workflow.

    Raises NotFound for a workflow that is not in the namespace.
    """
    caller.need("audit")
    if workflow_id is not None:
        async with ctx.db.connection() as conn:
            one = await audit.workflow(conn, caller.namespace, workflow_id)
        if one is None:
            raise unknown(workflow_id)
        async for part in _exported(ctx, caller, [one], filters):
            yield part
        return
    place: _Place | None = _Place()
    while place is not None:
        async with ctx.db.connection() as conn:
            chains, place = await _next(conn, caller.namespace, place, _NAMES if place.part == "gone" else _CHAINS)
        for start in range(0, len(chains), _CHAINS):
            async for part in _exported(ctx, caller, chains[start : start + _CHAINS], filters):
                yield part


async def _exported(ctx: Context, caller: Caller, chains: Sequence[Chain], filters: Filters) -> AsyncIterator[str]:
    names, after = [chain.name for chain in chains], 0
    while names:
        # No connection is held while the client reads.
        async with ctx.db.connection() as conn:
            found = await audit.events(conn, names, after, _EVENTS, filters)
        yield "".join(f"{export_line(event)}\n" for event in found if event.namespace == caller.namespace)
        if len(found) < _EVENTS:
            return
        names, after = names[names.index(found[-1].workflow_id) :], found[-1].seq


async def _next(conn: Connection, namespace: str, place: _Place, limit: int) -> tuple[Sequence[Chain], _Place | None]:
    """The chains from a place on, and the place behind them; None when there is nothing more."""
    match place.part:
        case "ledger":
            chains = [] if place.seq is not None else [await audit.ledger(conn, namespace)]
            return chains, _Place("workflows")
        case "workflows":
            before = (place.at, place.name) if place.at is not None else None
            chains = await audit.workflows(conn, namespace, before, limit)
            whole = len(chains) == limit
            return chains, _Place("workflows", chains[-1].name, chains[-1].created_at) if whole else _Place("gone")
        case "gone":
            chains, last = await audit.gone(conn, namespace, place.name, limit)
            return chains, None if last is None else _Place("gone", last)


def _written(place: _Place | None) -> str | None:
    if place is None:
        return None
    at = place.at.isoformat() if place.at else None
    return base64.urlsafe_b64encode(json.dumps([place.part, place.name, at, place.seq]).encode()).decode().rstrip("=")


def _read(cursor: str | None) -> _Place:
    if cursor is None:
        return _Place()
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        part, name, at, seq = cast("list[object]", json.loads(text))
        when = None if at is None else datetime.fromisoformat(str(at))
    except (ValueError, binascii.Error, TypeError) as error:
        raise InvalidInput(_BAD_CURSOR) from error
    known = part in ("ledger", "workflows", "gone") and isinstance(name, str) and "\0" not in name
    timed = when is None or when.tzinfo is not None
    if not (known and timed and (seq is None or (type(seq) is int and 0 < seq <= FROM_THE_NEWEST))):
        raise InvalidInput(_BAD_CURSOR)
    return _Place(cast("Literal['ledger', 'workflows', 'gone']", part), str(name), when, seq)
