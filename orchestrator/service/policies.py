"""Publishing approval policies, and what was published. What a policy means is in `core`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Final

from orchestrator.core.errors import InvalidDocument, NotFound
from orchestrator.core.policy_file import PolicyBook, Written, written_policies
from orchestrator.service.context import Caller, Context
from orchestrator.service.refusals import noted
from orchestrator.store import ledger, policies
from orchestrator.store.db import Connection, Params
from orchestrator.store.events import READY_CHANNEL, Event
from orchestrator.wire import PolicyBookRecord, PolicyPublished, PolicyText, PolicyVersion, PolicyVersionList

# Who publishes what is in the configuration folder when `keyturn up` starts.
ITSELF: Final = "keyturn"
_MOST_LISTED: Final = 200


async def publish(ctx: Context, caller: Caller, request: PolicyText) -> PolicyPublished:
    """Let these policies decide from now on; the same text again changes nothing. Raises Forbidden, InvalidDocument."""
    async with noted(ctx, caller, wanted="policy"):
        caller.need("admin")
        await _checked(ctx, request.text, request.file)
        return await _publish(ctx, caller.namespace, caller.person, request)


async def publish_own(ctx: Context, namespace: str, text: str, file: str) -> PolicyPublished | None:
    """Publish the configuration folder's file if it has changed since this was done last; None when it has not.

    What somebody published meanwhile stands until the file changes. Raises InvalidDocument.
    """
    book = await _checked(ctx, text, file)
    async with ctx.db.connection() as conn:
        before = await policies.last_by(conn, namespace, ITSELF)
    # A file without policies says nothing, unless it takes back what it said.
    if before == text or (before is None and not book.policies):
        return None
    return await _publish(ctx, namespace, ITSELF, PolicyText(text=text, file=file[-200:]))


async def versions(ctx: Context, caller: Caller) -> PolicyVersionList:
    """What was published, newest first; raises Forbidden."""
    caller.need("read")
    async with ctx.db.snapshot() as conn:
        current = await policies.newest_version(conn, caller.namespace)
        rows = await policies.books(conn, caller.namespace, _MOST_LISTED)
    return PolicyVersionList(current=current, versions=[PolicyVersion.model_validate(row) for row in rows])


async def get(ctx: Context, caller: Caller, version: int) -> PolicyBookRecord:
    """One publication with its text; raises Forbidden, NotFound."""
    caller.need("read")
    async with ctx.db.connection() as conn:
        row = await policies.get(conn, caller.namespace, version)
    if row is None:
        raise NotFound(f"no policies were published as version {version} in this namespace", version=version)
    return PolicyBookRecord.model_validate(row)


async def _checked(ctx: Context, text: str, file: str) -> PolicyBook:
    # A large file takes a while to read.
    return await asyncio.to_thread(PolicyBook.load, text, file, ctx.governance.rules.roles)


async def _publish(ctx: Context, namespace: str, by: str, request: PolicyText) -> PolicyPublished:
    now = ctx.clock()
    async with ctx.db.transaction() as conn:
        current = await policies.lock(conn, namespace)
        newest = await policies.get(conn, namespace, current)
        if newest is not None and newest["text"] == request.text:
            return PolicyPublished(**_record(newest), changed=False)
        numbers = await _numbers(conn, namespace, request, newest)
        digest = hashlib.sha256(request.text.encode()).hexdigest()
        book = policies.NewBook(namespace, current + 1, request.text, request.file, numbers, digest, by)
        row = await policies.publish(conn, book, now)
        facts: dict[str, object] = {
            "version": book.version,
            "file": book.file,
            "digest": digest,
            "versions": dict(numbers),
        }
        await ledger.append(conn, namespace, [Event("policy-published", by, facts)], now)
    # In a transaction of its own: a namespace's row is the last to be locked.
    async with ctx.db.connection() as conn:
        await policies.thaw(conn, namespace, now)
    ctx.db.ring(READY_CHANNEL, namespace)
    return PolicyPublished(**_record(row), changed=True)


def _record(row: Params) -> Params:
    return PolicyVersion.model_validate(row).model_dump()


async def _numbers(conn: Connection, namespace: str, request: PolicyText, newest: Params | None) -> Mapping[str, int]:
    """The version of each policy: its own where it states one, else one more than before if it changed.

    Raises InvalidDocument for a stated version under which something else was published.
    """
    highest = await policies.highest(conn, namespace)
    before = written_policies(newest["text"], newest["file"]) if newest else {}
    numbers: dict[str, int] = {}
    problems: list[str] = []
    for name, one in written_policies(request.text, request.file).items():
        same = name in before and before[name].digest == one.digest
        last: int = newest["versions"][name] if newest and same else highest.get(name, 0)
        if same and one.version in (None, last):
            numbers[name] = last
            continue
        if one.version is not None and one.version <= highest.get(name, 0):
            problems.append(_used(one, name, highest[name]))
        numbers[name] = one.version or highest.get(name, 0) + 1
    if problems:
        raise InvalidDocument(tuple(problems))
    return numbers


def _used(one: Written, name: str, highest: int) -> str:
    return (
        f"{one.place}: version {highest} of {name} was published before; allowed: a higher number for what has"
        " changed, or none: it is counted"
    )
