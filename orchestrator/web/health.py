"""The probes `/healthz`, `/readyz` and `/metrics`, open to anybody who can reach the port: numbers, no names."""

from __future__ import annotations

from fastapi import APIRouter, Response

from orchestrator.service import health
from orchestrator.telemetry import METRICS_MEDIA_TYPE
from orchestrator.web.auth import Ctx, Using
from orchestrator.wire import Ready

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process answers. It says nothing of the database."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": Ready}})
async def readyz(parts: Using, ctx: Ctx, response: Response) -> Ready:
    """Work can be taken and will be done: database, migrations and a worker seen lately. 503 while it cannot."""
    found = await health.readiness(ctx, parts.settings.migrations_dir)
    if not found.ready:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return found


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(parts: Using) -> Response:
    """Figures for Prometheus; the counts are up to 15 seconds old."""
    await parts.counting.refresh()
    return Response(parts.telemetry.exposition(), media_type=METRICS_MEDIA_TYPE)
