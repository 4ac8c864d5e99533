"""The routes of `/delegations`: who decides in whose place. One's own, or with `admin` anybody's."""

from __future__ import annotations

from fastapi import APIRouter

from orchestrator.service import delegations
from orchestrator.web.auth import Ctx, Decider, Reader
from orchestrator.wire import DelegationList, DelegationRecord, DelegationRequest

router = APIRouter(tags=["delegations"])


@router.get("/delegations")
async def list_open(ctx: Ctx, who: Reader) -> DelegationList:
    """The delegations that have not ended."""
    return DelegationList(delegations=await delegations.list_open(ctx, who))


@router.post("/delegations", status_code=201)
async def create(ctx: Ctx, who: Decider, body: DelegationRequest) -> DelegationRecord:
    """Let somebody decide in one's place for a span of time."""
    return await delegations.create(ctx, who, body)


@router.delete("/delegations/{delegation_id}")
async def revoke(ctx: Ctx, who: Decider, delegation_id: str) -> DelegationRecord:
    """End a delegation now."""
    return await delegations.revoke(ctx, who, delegation_id)
