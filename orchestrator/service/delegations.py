"""Out of office: somebody else decides in one's place for a span of time (rule 7)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from orchestrator.core.errors import Forbidden, InvalidInput, NotFound
from orchestrator.service.context import Caller, Context
from orchestrator.service.refusals import noted
from orchestrator.store import delegations, ledger, people, workflows
from orchestrator.store.db import Params
from orchestrator.store.events import Event
from orchestrator.wire import DelegationRecord, DelegationRequest


async def create(ctx: Context, caller: Caller, request: DelegationRequest) -> DelegationRecord:
    """Let somebody decide in the caller's place, or with `admin` in anybody's. NotFound, InvalidInput, Forbidden."""
    principal = request.from_ or caller.person
    async with noted(ctx, caller, wanted="delegation", principal=principal, to=request.to):
        return await _create(ctx, caller, principal, request)


async def _create(ctx: Context, caller: Caller, principal: str, request: DelegationRequest) -> DelegationRecord:
    caller.need("decide")
    _check_own(caller, principal)
    if principal == request.to:
        detail = "nobody delegates to themselves"
        raise InvalidInput(detail, field="to")
    async with ctx.db.transaction() as conn:
        for person in (principal, request.to):
            if await people.find_person(conn, caller.namespace, person) is None:
                detail = f"there is no person {person!r} in this namespace"
                raise NotFound(detail, person=person)
        now = await workflows.present(conn, ctx.clock())
        if request.ends_at <= max(now, request.starts_at or now):
            detail = "`ends_at` must be later than `starts_at`, and in the future"
            raise InvalidInput(detail, field="ends_at")
        row = await delegations.insert(
            conn,
            {
                "delegation_id": f"dg-{secrets.token_hex(10)}", "namespace": caller.namespace,
                "from_person": principal, "to_person": request.to, "starts_at": request.starts_at,
                "ends_at": request.ends_at, "reason": request.reason, "created_by": caller.person, "now": ctx.clock(),
            },
        )  # fmt: skip
        told: dict[str, object] = {
            "delegation_id": row["delegation_id"], "from": principal, "to": request.to, "reason": request.reason,
            "starts_at": row["starts_at"].isoformat(), "ends_at": row["ends_at"].isoformat(),
        }  # fmt: skip
        created = Event("delegation-created", caller.person, told)
        await ledger.append(conn, caller.namespace, [created], ctx.clock())
    return _record(row)


async def list_open(ctx: Context, caller: Caller) -> Sequence[DelegationRecord]:
    """The delegations that have not ended: one's own either way, with `admin` everybody's."""
    caller.need("read")
    whose = None if "admin" in caller.permissions else caller.person
    async with ctx.db.connection() as conn:
        return [_record(row) for row in await delegations.list_open(conn, caller.namespace, whose, ctx.clock())]


async def revoke(ctx: Context, caller: Caller, delegation_id: str) -> DelegationRecord:
    """End a delegation now; ending it again changes nothing. NotFound, Forbidden."""
    async with noted(ctx, caller, wanted="end of a delegation", delegation_id=delegation_id):
        return await _revoke(ctx, caller, delegation_id)


async def _revoke(ctx: Context, caller: Caller, delegation_id: str) -> DelegationRecord:
    caller.need("decide")
    async with ctx.db.transaction() as conn:
        found = await delegations.get(conn, caller.namespace, delegation_id)
        if found is None:
            detail = f"there is no delegation {delegation_id!r}"
            raise NotFound(detail, delegation_id=delegation_id)
        _check_own(caller, found["from_person"])
        if found["revoked_at"] is not None:
            return _record(found)
        row = await delegations.revoke(conn, caller.namespace, delegation_id, ctx.clock())
        ended = Event("delegation-ended", caller.person, {"delegation_id": delegation_id})
        await ledger.append(conn, caller.namespace, [ended], ctx.clock())
    return _record(row or found)


def _check_own(caller: Caller, principal: str) -> None:
    if principal != caller.person and "admin" not in caller.permissions:
        detail = f"only {principal}, or a credential with the permission `admin`, delegates for {principal}"
        raise Forbidden(detail, needed="admin")


def _record(row: Params) -> DelegationRecord:
    names = ("delegation_id", "starts_at", "ends_at", "reason", "created_by", "revoked_at")
    return DelegationRecord(from_=row["from_person"], to=row["to_person"], **{name: row[name] for name in names})
