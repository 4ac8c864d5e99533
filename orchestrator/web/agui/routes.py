"""The routes of `/ag-ui`. What is wrong with a request is a problem document; what happens then is the stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, cast

from ag_ui.core.types import RunAgentInput
from fastapi import APIRouter, Path
from fastapi.responses import Response

from orchestrator.service import workflows
from orchestrator.service.refusals import noted
from orchestrator.service.resuming import Entry
from orchestrator.web.agui.answers import answers
from orchestrator.web.agui.beginning import begun, responded, resumed
from orchestrator.web.agui.streaming import Client, lines
from orchestrator.web.agui.translating import Translator
from orchestrator.web.auth import Presented, Reader, Using
from orchestrator.web.sse import streamed
from orchestrator.wire_agui import RespondRequest

router = APIRouter(prefix="/ag-ui", tags=["ag-ui"])

_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {}}, "description": "The events of the run, as AG-UI has them"}
}
Graph = Annotated[str, Path(min_length=1, max_length=200)]


@router.post("/respond", responses=_STREAM, response_class=Response)
async def respond(parts: Using, who: Reader, presented: Presented, body: RespondRequest) -> Response:
    """Answer the one thing that a thread waits for, and stream what comes of it."""
    beginning = await responded(parts.context, who, body.thread_id, Entry(body.interrupt_id, body.response))
    offer = await parts.context.offers.newest(parts.context.db, beginning.thread.graph or "")
    traits = _traits(offer or {})
    client = Client(parts, who, presented, [], _legacy(traits), bool(traits.get("text_nodes")))
    run = Translator(body.thread_id, workflows.new_id("run"))
    return streamed(lines(client, run, beginning))


@router.post("/{graph}", responses=_STREAM, response_class=Response)
async def run(parts: Using, who: Reader, presented: Presented, graph: Graph, body: RunAgentInput) -> Response:
    """Run a graph on a thread, or answer what the thread waits for, and stream it until it waits or has ended."""
    offer = await workflows.offered(parts.context, graph)
    traits = _traits(offer)
    async with noted(parts.context, who, wanted="answer or steer", graph=graph, thread_id=body.thread_id):
        entries = answers(body, legacy=_legacy(traits))
    if entries:
        beginning = await resumed(parts.context, who, graph, body.thread_id, entries)
    else:
        beginning = await begun(parts.context, who, graph, offer, body)
    client = Client(parts, who, presented, body.messages, _legacy(traits), bool(traits.get("text_nodes")))
    told = Translator(body.thread_id, body.run_id, parent_run_id=body.parent_run_id)
    return streamed(lines(client, told, beginning))


def _traits(offer: Mapping[str, Any]) -> Mapping[str, object]:
    return cast("Mapping[str, object]", offer.get("traits") or {})


def _legacy(traits: Mapping[str, object]) -> bool:
    return traits.get("ag_ui") == "legacy"
