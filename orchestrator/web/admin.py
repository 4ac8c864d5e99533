"""The routes of `/people` and `/keys`. Every one of them needs the permission `admin`, which the service checks."""

from __future__ import annotations

from fastapi import APIRouter

from orchestrator.service import identity
from orchestrator.web.auth import Admin, Ctx
from orchestrator.wire import KeyList, KeyRecord, KeyRequest, NewKey, PeopleList, PersonRecord, PersonRequest

router = APIRouter(tags=["administration"])


@router.get("/people")
async def list_people(ctx: Ctx, who: Admin) -> PeopleList:
    """Everybody of the namespace, with their roles."""
    return PeopleList(people=await identity.list_people(ctx, who))


@router.post("/people", status_code=201)
async def put_person(ctx: Ctx, who: Admin, body: PersonRequest) -> PersonRecord:
    """Create a person, or replace their name, e-mail and roles."""
    return await identity.put_person(ctx, who, body)


@router.get("/keys")
async def list_keys(ctx: Ctx, who: Admin) -> KeyList:
    """The namespace's keys without their secrets, also the ended ones."""
    return KeyList(keys=await identity.list_keys(ctx, who))


@router.post("/keys", status_code=201)
async def create_key(ctx: Ctx, who: Admin, body: KeyRequest) -> NewKey:
    """A new key of a person. The answer shows it this once."""
    return await identity.create_key(ctx, who, body)


@router.delete("/keys/{key_id}")
async def revoke_key(ctx: Ctx, who: Admin, key_id: str) -> KeyRecord:
    """End a key; it is refused within a second."""
    return await identity.revoke_key(ctx, who, key_id)
