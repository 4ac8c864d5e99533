"""The routes of published policies: what decides now, what did before, and trying a file. The service decides."""

from __future__ import annotations

from fastapi import APIRouter

from orchestrator.service import policies, simulation
from orchestrator.web.auth import Admin, AdminOrAuditor, Ctx, Reader
from orchestrator.wire import (
    PolicyBookRecord,
    PolicyPublished,
    PolicyText,
    PolicyVersionList,
    SimulateRequest,
    Simulation,
)

router = APIRouter(tags=["policies"])


@router.get("/policy/versions")
async def versions(ctx: Ctx, who: Reader) -> PolicyVersionList:
    """What was published, newest first, and which of it decides."""
    return await policies.versions(ctx, who)


@router.get("/policy/versions/{version}")
async def version(ctx: Ctx, who: Reader, version: int) -> PolicyBookRecord:
    """One publication with its text."""
    return await policies.get(ctx, who, version)


@router.post("/policy/publish")
async def publish(ctx: Ctx, who: Admin, body: PolicyText) -> PolicyPublished:
    """Let these policies decide from now on. The same text again changes nothing."""
    return await policies.publish(ctx, who, body)


@router.post("/policy/simulate")
async def simulate(ctx: Ctx, who: AdminOrAuditor, body: SimulateRequest) -> Simulation:
    """What these policies would have changed for past requests; nothing is written."""
    return await simulation.simulate(ctx, who, body)
