"""The routes of `/workflows`: submit, list, look at, cancel, retry, draw. The service decides; here is only HTTP."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from orchestrator.core.model import Level, Status
from orchestrator.service import workflows
from orchestrator.web.auth import Ctx, Reader, Submitter
from orchestrator.web.drawing import mermaid, svg
from orchestrator.wire import (
    CancelRequest,
    Changed,
    GraphView,
    SubmitRequest,
    Submitted,
    WorkflowPage,
    WorkflowRecord,
    WorkflowStatus,
)

router = APIRouter(tags=["workflows"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key with the same body changes nothing the second time",
    ),
]
Exact = Annotated[str | None, Query(min_length=1, max_length=200)]


@router.post("/workflows", status_code=201, responses={200: {"model": Submitted, "description": "Sent before"}})
async def submit(
    ctx: Ctx, who: Submitter, body: SubmitRequest, response: Response, idempotency_key: IdempotencyKey = None
) -> Submitted:
    """Submit a workflow. It is durable when this answers."""
    submitted = await workflows.submit(ctx, who, body, idempotency_key)
    if submitted.replayed:
        response.status_code = 200
    response.headers["Location"] = f"/workflows/{submitted.workflow_id}"
    return submitted


@router.get("/workflows")
async def page(
    ctx: Ctx,
    who: Reader,
    *,
    status: Status | None = None,
    graph: Exact = None,
    case_id: Exact = None,
    risk: Level | None = None,
    q: Annotated[str | None, Query(max_length=200, description="Text in the title or the id")] = None,
    cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> WorkflowPage:
    """The namespace's workflows, newest first."""
    return await workflows.page(
        ctx, who, status=status, graph=graph, case_id=case_id, risk=risk, q=q, cursor=cursor, limit=limit
    )


@router.get("/workflows/{workflow_id}")
async def get(ctx: Ctx, who: Reader, workflow_id: str) -> WorkflowRecord:
    """A workflow whole."""
    return await workflows.get(ctx, who, workflow_id)


@router.get("/workflows/{workflow_id}/status")
async def status(ctx: Ctx, who: Reader, workflow_id: str) -> WorkflowStatus:
    """The short status, with its approvals and latest events."""
    return await workflows.status(ctx, who, workflow_id)


@router.post("/workflows/{workflow_id}/cancel")
async def cancel(ctx: Ctx, who: Submitter, workflow_id: str, body: CancelRequest | None = None) -> Changed:
    """Cancel a workflow that is queued, running or waiting."""
    return await workflows.cancel(ctx, who, workflow_id, body.reason if body else "")


@router.post("/workflows/{workflow_id}/retry")
async def retry(ctx: Ctx, who: Submitter, workflow_id: str) -> Changed:
    """Let a failed workflow go on from its last checkpoint."""
    return await workflows.retry(ctx, who, workflow_id)


@router.get(
    "/workflows/{workflow_id}/graph",
    response_model=GraphView,
    responses={200: {"content": {"text/plain": {}, "image/svg+xml": {}}, "description": "The graph in that format"}},
)
async def graph(
    ctx: Ctx,
    who: Reader,
    workflow_id: str,
    format: Literal["mermaid", "svg", "json"] = "json",  # noqa: A002 - the query's name
) -> Response:
    """The workflow's graph with done and present nodes and pending gates marked."""
    view = await workflows.view_graph(ctx, who, workflow_id)
    match format:
        case "mermaid":
            return PlainTextResponse(mermaid(view))
        case "svg":
            # No script of a node's name can run, wherever the picture is opened.
            headers = {
                "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
                "X-Content-Type-Options": "nosniff",
            }
            return Response(svg(view), media_type="image/svg+xml", headers=headers)
        case "json":
            return JSONResponse(view.model_dump(mode="json"))
