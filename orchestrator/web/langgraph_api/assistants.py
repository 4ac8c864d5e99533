"""`/info`, `/ok` and `/assistants`: what can be run here. Assistants are the graphs that workers offer."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, cast

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from orchestrator.service import assistants
from orchestrator.service.assistants import Assistant
from orchestrator.web.auth import Ctx, Reader
from orchestrator.web.langgraph_api import shapes
from orchestrator.wire_langgraph import AssistantSearch

router = APIRouter(tags=["assistants"])


@router.get("/info", response_model=None)
async def info(_who: Reader) -> JSONResponse:
    """What server this is, and which parts of the LangGraph API it serves."""
    flags = {"assistants": True, "crons": False, "store": False, "langsmith": False}
    return JSONResponse({"version": version("keyturn"), "server": "keyturn", "flags": flags})


@router.get("/ok", response_model=None)
async def alive(_who: Reader) -> JSONResponse:
    """That the server answers."""
    return JSONResponse({"ok": True})


@router.post("/assistants/search", response_model=None)
async def search(ctx: Ctx, who: Reader, body: AssistantSearch | None = None) -> JSONResponse:
    """The graphs on offer, by name."""
    wanted = body or AssistantSearch.model_validate({})
    found = await _found(ctx, who, wanted)
    page = found[wanted.offset : wanted.offset + wanted.limit]
    return JSONResponse([shapes.selected(shapes.assistant(one), wanted.select) for one in page])


@router.post("/assistants/count", response_model=None)
async def count(ctx: Ctx, who: Reader, body: AssistantSearch | None = None) -> JSONResponse:
    """How many graphs are on offer."""
    return JSONResponse(len(await _found(ctx, who, body or AssistantSearch.model_validate({}))))


async def _found(ctx: Ctx, who: Reader, wanted: AssistantSearch) -> list[Assistant]:
    offered = await assistants.offered(ctx, who)
    own = {"created_by": "system"}
    if any(own.get(key) != value for key, value in wanted.metadata.items()):
        return []
    return [
        one
        for one in offered
        if wanted.graph_id in (None, one.graph, one.assistant_id)
        and (wanted.name is None or wanted.name.lower() in one.graph.lower())
    ]


@router.get("/assistants/{assistant_id}", response_model=None)
async def get(ctx: Ctx, _who: Reader, assistant_id: str) -> JSONResponse:
    """One assistant, by its id or by its graph's name."""
    return JSONResponse(shapes.assistant(await assistants.find(ctx, assistant_id)))


@router.get("/assistants/{assistant_id}/schemas", response_model=None)
async def schemas(ctx: Ctx, _who: Reader, assistant_id: str) -> JSONResponse:
    """What its graph takes for an input; nothing else of it is known outside of workers."""
    found = await assistants.find(ctx, assistant_id)
    unknown = dict.fromkeys(("output_schema", "state_schema", "config_schema", "context_schema"))
    return JSONResponse({"graph_id": found.graph, "input_schema": found.input_schema, **unknown})


@router.get("/assistants/{assistant_id}/graph", response_model=None)
async def graph(ctx: Ctx, _who: Reader, assistant_id: str) -> JSONResponse:
    """The shape of its graph."""
    topology = cast("Mapping[str, Any]", (await assistants.find(ctx, assistant_id)).topology)
    nodes = [{"id": node["id"], "type": "runnable", "data": {"name": node["id"]}} for node in topology["nodes"]]
    return JSONResponse({"nodes": nodes, "edges": topology["edges"]})


@router.get("/assistants/{assistant_id}/subgraphs", response_model=None)
async def subgraphs(ctx: Ctx, _who: Reader, assistant_id: str) -> JSONResponse:
    """Its subgraphs: they are parts of their graph here, and have no schemas of their own."""
    await assistants.find(ctx, assistant_id)
    return JSONResponse({})
