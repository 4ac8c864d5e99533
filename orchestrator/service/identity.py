"""Who calls: people, their roles, and the API keys that prove who somebody is.

A key is `kt_<id>_<secret>`. The secret is shown once and kept only as its SHA-256. Nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from hmac import compare_digest
from typing import Final

from orchestrator.core.errors import InvalidInput, NotFound, Unauthenticated
from orchestrator.service.context import Caller, Context
from orchestrator.service.refusals import noted
from orchestrator.store import keys as key_store
from orchestrator.store import ledger
from orchestrator.store import people as people_store
from orchestrator.store.db import Connection
from orchestrator.store.events import Event
from orchestrator.wire import KeyRecord, KeyRequest, NewKey, PersonRecord, PersonRequest

FIRST_PERSON: Final = "owner"
FIRST_ROLES: Final = ("team_lead", "tech_lead", "cto")
ALL_PERMISSIONS: Final = ("submit", "read", "decide", "act_as", "admin", "audit")

_KEY: Final = re.compile(r"kt_([0-9a-f]{16})_([A-Za-z0-9_-]{32,128})", re.ASCII)
# No colon: `policy:…` and the like are the names that automatic decisions are recorded under.
_PERSON: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*", re.ASCII)
_ROLE: Final = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)
_LONGEST_LIFE: Final = timedelta(days=3650)
# Compared with when there is no such key, so that a miss takes as long as a wrong secret.
_NOBODY: Final = hashlib.sha256(secrets.token_bytes(32)).digest()
_REMEMBER_SECONDS: Final = 1.0
_REMEMBER_AT_MOST: Final = 4096


async def authenticate(ctx: Context, presented: str | None) -> Caller:
    """The caller that the key `presented` belongs to; raises Unauthenticated, Unavailable."""
    if not presented:
        raise Unauthenticated("no credential was sent; send `Authorization: Bearer kt_…` or `X-API-Key: kt_…`")
    match = _KEY.fullmatch(presented)
    key_id, secret = match.groups() if match else ("", presented)
    # Many streams are woken at the same time, each with a key of its own: theirs are looked up together.
    found = await ctx.db.together(key_store.find_keys, (key_id, ctx.clock()))
    stored = None if found is None else found.stored
    right = compare_digest(_hash(secret), stored.secret_sha256 if stored else _NOBODY)
    if stored is None or not right or not stored.live:
        # One answer for unknown, wrong, expired and revoked: it tells a guesser nothing.
        raise Unauthenticated("the credential is not valid: it is unknown, has expired or was revoked")
    return Caller(stored.namespace, stored.person, stored.permissions, stored.key_id)


class Keyring:
    """`authenticate` that remembers a good key for up to a second, so that a busy client costs one look-up a second.

    A revocation therefore takes effect within a second. With a clock of its own the context is always asked.
    """

    def __init__(
        self,
        ctx: Context,
        *,
        remember_seconds: float = _REMEMBER_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ctx = ctx
        self._remember_seconds = remember_seconds
        self._monotonic = monotonic
        self._known: dict[bytes, tuple[Caller, float]] = {}
        self._looking: dict[bytes, asyncio.Task[Caller]] = {}

    async def authenticate(self, presented: str | None) -> Caller:
        """The caller that the key `presented` belongs to; raises Unauthenticated, Unavailable."""
        if self._ctx.clock() is not None:
            return await authenticate(self._ctx, presented)
        fingerprint = _hash(presented or "")
        caller, until = self._known.get(fingerprint, (None, 0.0))
        if caller is not None and self._monotonic() < until:
            return caller
        task = self._looking.get(fingerprint)
        if task is None:
            # A thousand streams that wake at once share one look-up.
            task = asyncio.create_task(self._look_up(fingerprint, presented))
            self._looking[fingerprint] = task
            task.add_done_callback(lambda done: self._forget(fingerprint, done))
        return await asyncio.shield(task)

    async def _look_up(self, fingerprint: bytes, presented: str | None) -> Caller:
        # Counted from before the look-up, which may read just ahead of a revocation.
        until = self._monotonic() + self._remember_seconds
        self._known.pop(fingerprint, None)
        found = await authenticate(self._ctx, presented)
        if len(self._known) >= _REMEMBER_AT_MOST:
            self._known.clear()
        self._known[fingerprint] = (found, until)
        return found

    def _forget(self, fingerprint: bytes, done: asyncio.Task[Caller]) -> None:
        del self._looking[fingerprint]
        if not done.cancelled():
            done.exception()  # looked at, as whoever asked may have left


async def bootstrap(ctx: Context, namespace: str) -> NewKey | None:
    """Make the namespace's first person with every permission, and their key; None when there is somebody already."""
    async with ctx.db.transaction() as conn:
        await people_store.lock_people(conn)
        if await people_store.any_people(conn, namespace):
            return None
        first = PersonRecord(person=FIRST_PERSON, name="Owner", email=None, roles=FIRST_ROLES)
        await _put(ctx, conn, _operator(namespace), first, granted_by=FIRST_PERSON)
        return await _issue(ctx, conn, _operator(namespace), _full_key("first key"), created_by=FIRST_PERSON)


async def reissue(ctx: Context, namespace: str, label: str) -> NewKey:
    """Another key for the first person, for who runs the database and lost theirs; raises NotFound."""
    async with ctx.db.transaction() as conn:
        await _need_person(conn, namespace, FIRST_PERSON)
        return await _issue(ctx, conn, _operator(namespace), _full_key(label), created_by=FIRST_PERSON)


async def put_person(ctx: Context, caller: Caller, request: PersonRequest) -> PersonRecord:
    """Create a person, or replace their name, e-mail and roles; raises Forbidden, InvalidInput."""
    async with noted(ctx, caller, wanted="change a person", person=request.person):
        caller.need("admin")
        record = _checked(request)
        async with ctx.db.transaction() as conn:
            await _put(ctx, conn, caller, record, granted_by=caller.person)
    return record


async def list_people(ctx: Context, caller: Caller) -> Sequence[PersonRecord]:
    """Everybody of the caller's namespace; raises Forbidden."""
    caller.need("admin")
    async with ctx.db.connection() as conn:
        return await people_store.list_people(conn, caller.namespace)


async def create_key(ctx: Context, caller: Caller, request: KeyRequest) -> NewKey:
    """A new key for a person of the namespace; raises Forbidden, NotFound, InvalidInput."""
    async with noted(ctx, caller, wanted="make a key", person=request.person):
        caller.need("admin")
        if not request.permissions:
            raise InvalidInput(f"a key without permissions is good for nothing; allowed: {', '.join(ALL_PERMISSIONS)}")
        async with ctx.db.transaction() as conn:
            await _need_person(conn, caller.namespace, request.person)
            return await _issue(ctx, conn, caller, request, created_by=caller.person)


async def list_keys(ctx: Context, caller: Caller) -> Sequence[KeyRecord]:
    """The namespace's keys without their secrets, also the ended ones; raises Forbidden."""
    caller.need("admin")
    async with ctx.db.connection() as conn:
        return await key_store.list_keys(conn, caller.namespace)


async def revoke_key(ctx: Context, caller: Caller, key_id: str) -> KeyRecord:
    """End a key of the namespace; ending it again changes nothing. Raises Forbidden, NotFound."""
    async with noted(ctx, caller, wanted="end a key", key=key_id):
        caller.need("admin")
        async with ctx.db.transaction() as conn:
            ended = await key_store.revoke_key(conn, caller.namespace, key_id, now=ctx.clock())
            if ended is not None:
                await _note(ctx, conn, caller, "key-revoked", {"key": _told(ended)})
            record = ended or await key_store.get_key(conn, caller.namespace, key_id)
        if record is None:
            raise NotFound(f"there is no key `{key_id}` in this namespace", key_id=key_id)
        return record


def _operator(namespace: str) -> Caller:
    """Who runs the command that makes the first key, of whom no more is known than that they have the database."""
    return Caller(namespace, "keyturn", frozenset())


async def _note(ctx: Context, conn: Connection, by: Caller, kind: str, data: dict[str, object]) -> None:
    """Leave in the namespace's chain what `by` did, in the transaction that does it."""
    told = {**data, "key_id": by.key_id} if by.key_id else data
    await ledger.append(conn, by.namespace, [Event(kind, by.person, told)], ctx.clock())


def _told(key: KeyRecord) -> dict[str, object]:
    return key.model_dump(mode="json", include={"key_id", "person", "permissions", "label", "expires_at"})


async def _put(ctx: Context, conn: Connection, by: Caller, record: PersonRecord, *, granted_by: str) -> None:
    before = await people_store.put_person(conn, by.namespace, record, granted_by=granted_by, now=ctx.clock())
    data: dict[str, object] = {
        "person": record.person, "name": record.name, "email": record.email, "roles": sorted(record.roles),
        "roles_before": sorted(before or ()), "new": before is None,
    }  # fmt: skip
    await _note(ctx, conn, by, "person-changed", data)


async def _issue(ctx: Context, conn: Connection, by: Caller, request: KeyRequest, *, created_by: str) -> NewKey:
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    draft = key_store.KeyDraft(
        key_id=key_id,
        namespace=by.namespace,
        person=request.person,
        secret_sha256=_hash(secret),
        permissions=list(dict.fromkeys(request.permissions)),
        label=request.label,
        created_by=created_by,
        expires_in=_life(request.expires_in),
    )
    record = await key_store.insert_key(conn, draft, now=ctx.clock())
    await _note(ctx, conn, by, "key-created", {"key": _told(record)})
    return NewKey(**record.model_dump(), key=f"kt_{key_id}_{secret}")


def _full_key(label: str) -> KeyRequest:
    return KeyRequest(person=FIRST_PERSON, permissions=ALL_PERMISSIONS, label=label)


async def _need_person(conn: Connection, namespace: str, person: str) -> None:
    if await people_store.find_person(conn, namespace, person) is None:
        raise NotFound(f"there is no person `{person}` in this namespace; add them first", person=person)


def _checked(request: PersonRequest) -> PersonRecord:
    if not _PERSON.fullmatch(request.person):
        raise InvalidInput(
            f"person `{request.person}`: use letters, digits and . _ @ + - only, beginning with a letter or digit"
        )
    for role in request.roles:
        if not _ROLE.fullmatch(role):
            raise InvalidInput(f"role `{role}`: use lower-case letters, digits, _ and - only, beginning with a letter")
    return PersonRecord(
        person=request.person, name=request.name, email=request.email, roles=sorted(frozenset(request.roles))
    )


def _life(expires_in: float | None) -> timedelta | None:
    if expires_in is None:
        return None
    if expires_in > _LONGEST_LIFE.total_seconds():
        days = _LONGEST_LIFE.days
        raise InvalidInput(f"expires_in: at most {days} days ({_LONGEST_LIFE.total_seconds():.0f} seconds)")
    return timedelta(seconds=expires_in)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
