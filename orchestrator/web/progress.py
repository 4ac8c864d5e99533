"""The routes of progress: how far one workflow is, and the live view of the caller's tasks."""

from __future__ import annotations

from fastapi import APIRouter

from orchestrator.service import progress
from orchestrator.web.auth import Ctx, Reader, Using
from orchestrator.wire_progress import TaskList, TaskProgress

router = APIRouter(tags=["tasks"])


@router.get("/workflows/{workflow_id}/progress")
async def of_workflow(ctx: Ctx, who: Reader, workflow_id: str) -> TaskProgress:
    """How far the workflow is: its steps, percent, elapsed and remaining seconds."""
    return await progress.of_workflow(ctx, who, workflow_id)


@router.get("/tasks")
async def tasks(parts: Using, who: Reader) -> TaskList:
    """Your own tasks that are queued, run, wait or ended lately, newest first."""
    settings = parts.settings
    return await progress.live(parts.context, who, shown=settings.tasks_shown, seconds=settings.tasks_finished_seconds)
