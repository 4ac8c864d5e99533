"""Request models of the LangGraph API as its public clients send them; docs/langgraph-api.md says what of it is served.

Unknown fields are let through: clients of all versions send more than is needed here. Those that would change what runs
are named, and refused where they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Json = dict[str, object]
Id = Annotated[str, Field(min_length=1, max_length=255)]
Limit = Annotated[int, Field(ge=1, le=1000)]
Offset = Annotated[int, Field(ge=0, le=1_000_000)]
ThreadStatus = Literal["idle", "busy", "interrupted", "error"]


def _nothing(value: object) -> object:
    return {} if value is None else value


# Clients send null for an object that they leave out.
Object = Annotated[Json, BeforeValidator(_nothing), Field(default_factory=dict)]


class Lenient(BaseModel):
    """Base of these bodies."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ThreadCreate(Lenient):
    """`POST /threads`."""

    thread_id: Id | None = None
    metadata: Object
    if_exists: Literal["raise", "do_nothing"] | None = None
    supersteps: Sequence[object] | None = None


class ThreadPatch(Lenient):
    """`PATCH /threads/{id}`: what is added to its metadata."""

    metadata: Object


class ThreadSearch(Lenient):
    """`POST /threads/search` and `/threads/count`."""

    metadata: Object
    values: Object
    ids: Annotated[Sequence[Id], Field(max_length=1000)] | None = None
    status: ThreadStatus | None = None
    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: Sequence[str] | None = None
    extract: Object


class StateUpdate(Lenient):
    """`POST /threads/{id}/state`."""

    values: object = None
    as_node: str | None = None
    checkpoint: Json | None = None
    checkpoint_id: str | None = None


class CheckpointWanted(Lenient):
    """`POST /threads/{id}/state/checkpoint`."""

    checkpoint: Json


class HistoryWanted(Lenient):
    """`POST /threads/{id}/history`. `before` is a checkpoint's id, a checkpoint, or a config that names one."""

    limit: Limit = 10
    before: str | Json | None = None
    metadata: Object
    checkpoint: Json | None = None


class AssistantSearch(Lenient):
    """`POST /assistants/search` and `/assistants/count`."""

    metadata: Object
    graph_id: str | None = None
    name: str | None = None
    limit: Limit = 10
    offset: Offset = 0
    select: Sequence[str] | None = None


class RunCreate(Lenient):
    """`POST /threads/{id}/runs`, `/runs/wait` and `/runs/stream`."""

    assistant_id: Id
    input: object = None
    command: Json | None = None
    metadata: Object
    config: Object
    context: Object
    stream_mode: str | Sequence[str] | None = None
    interrupt_before: str | Sequence[str] | None = None
    interrupt_after: str | Sequence[str] | None = None
    checkpoint: Json | None = None
    checkpoint_id: str | None = None
    multitask_strategy: str | None = None
    if_not_exists: Literal["create", "reject"] | None = None
    webhook: str | None = None
    after_seconds: float | None = None


class RunsCancel(Lenient):
    """`POST /runs/cancel`: several runs of one thread."""

    thread_id: Id | None = None
    run_ids: Annotated[Sequence[Id], Field(max_length=100)] | None = None
    status: str | None = None
