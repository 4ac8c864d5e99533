"""What was approved is what runs: neither new input nor stock LangGraph tools get anything else past a gate."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg import AsyncConnection
from pydantic import ValidationError

from orchestrator.service import workflows
from orchestrator.wire import SubmitRequest
from tests.apps import fault_graphs
from tests.faults.conftest import RISKY, Farm

APPROVED, OTHER = {"arguments": {"service": "approved"}}, {"arguments": {"service": "other"}}


@contextlib.asynccontextmanager
async def stock(farm: Farm, workflow: str) -> AsyncGenerator[tuple[Any, dict[str, Any]]]:
    """The graph on LangGraph's own saver, and the configuration of the workflow's thread."""
    url = f"{farm.database_url}?options=-c%20search_path%3Dlanggraph"
    async with AsyncPostgresSaver.from_conn_string(url) as saver:
        graph = fault_graphs.governed.copy(update={"checkpointer": saver})
        yield graph, {"configurable": {"thread_id": workflow}}


async def change(farm: Farm, workflow: str, values: object, as_node: str | None = None) -> None:
    """Change the thread's state as LangGraph's tools do."""
    async with stock(farm, workflow) as (graph, thread):
        await graph.aupdate_state(thread, values, as_node=as_node)


async def waiting(farm: Farm) -> str:
    farm.worker()
    workflow = await farm.submit("governed", **RISKY, **APPROVED)
    await farm.keyturn.asked(workflow)
    return workflow


async def states(farm: Farm, workflow: str) -> Sequence[str]:
    return [approval.state for approval in (await farm.keyturn.get(workflow)).approvals]


async def blocked(farm: Farm, workflow: str) -> None:
    """It stopped with the reason, audited, the approval stands as it was, and nothing ran."""
    failed = await farm.ended(workflow)
    assert failed.reason == "hash_mismatch"
    assert failed.error is not None
    assert failed.error["approval_id"] == failed.approvals[0].approval_id
    assert await states(farm, workflow) == ["approved"]
    assert (await farm.keyturn.types(workflow))[-1] == "workflow-failed"
    assert farm.target.calls() == []
    await farm.check()


async def retried(farm: Farm, workflow: str) -> None:
    await workflows.retry(farm.keyturn.ctx, farm.keyturn.me, workflow)


async def test_a_state_changed_while_the_request_was_pending_is_blocked_until_it_is_restored(farm: Farm) -> None:
    workflow = await waiting(farm)
    await change(farm, workflow, OTHER)
    await farm.keyturn.approve(workflow)
    await blocked(farm, workflow)
    # A retry changes nothing while the state is still another one.
    await retried(farm, workflow)
    await blocked(farm, workflow)
    await change(farm, workflow, APPROVED)
    await retried(farm, workflow)
    assert (await farm.kept(workflow))["arguments"] == APPROVED["arguments"]
    # The approval that was given is the one that was used, once; nobody was asked again.
    assert await states(farm, workflow) == ["executed"]
    await farm.check()


async def test_a_state_changed_after_the_approval_is_blocked(farm: Farm) -> None:
    workflow = await waiting(farm)
    worker = farm.children[0]
    worker.terminate()
    await worker.ended()
    await farm.keyturn.approve(workflow)
    await change(farm, workflow, OTHER)
    farm.worker()
    await blocked(farm, workflow)


async def test_a_state_that_is_moved_past_the_gate_is_blocked(farm: Farm) -> None:
    workflow = await waiting(farm)
    await change(farm, workflow, OTHER, as_node="gate")
    await farm.keyturn.approve(workflow)
    await blocked(farm, workflow)


async def test_a_state_rewritten_inside_its_checkpoint_is_blocked_until_it_is_restored(farm: Farm) -> None:
    """The request and its interrupt stay as they were: only what would run is another thing."""
    workflow = await waiting(farm)
    kind, forged = JsonPlusSerializer().dumps_typed(OTHER["arguments"])
    async with await AsyncConnection.connect(farm.database_url, autocommit=True) as conn:
        found = await conn.execute(
            b"SELECT blob FROM langgraph.checkpoint_blobs WHERE thread_id = %s AND channel = 'arguments'", [workflow]
        )
        ((real,),) = await found.fetchall()
        rewrite = (
            b"UPDATE langgraph.checkpoint_blobs SET type = %s, blob = %s WHERE thread_id = %s AND channel = 'arguments'"
        )
        await conn.execute(rewrite, [kind, forged, workflow])
        await farm.keyturn.approve(workflow)
        await blocked(farm, workflow)
        await conn.execute(rewrite, [kind, real, workflow])
    await retried(farm, workflow)
    await farm.completed(workflow)
    assert await states(farm, workflow) == ["executed"]
    await farm.check()


async def test_new_input_on_the_thread_does_not_drop_its_pending_approval_nor_use_it(farm: Farm) -> None:
    workflow = await waiting(farm)
    content = {"target": str(farm.target.folder), **RISKY, **OTHER}
    async with stock(farm, workflow) as (graph, thread):
        # On LangGraph alone this starts anew and forgets the request.
        await graph.ainvoke(content, thread)
    assert await states(farm, workflow) == ["pending"]
    await farm.keyturn.approve(workflow)
    await blocked(farm, workflow)


async def test_a_submission_cannot_name_a_workflow_that_exists(farm: Farm) -> None:
    workflow = await waiting(farm)
    for field in ("workflow_id", "thread_id", "checkpoint_id", "command", "resume"):
        with pytest.raises(ValidationError):
            SubmitRequest.model_validate({"graph": "governed", "input": {}, field: workflow})
    assert await states(farm, workflow) == ["pending"]


async def test_the_same_submission_again_gives_the_same_workflow_with_its_approval_pending(farm: Farm) -> None:
    farm.worker()
    request = SubmitRequest(graph="governed", input={"target": str(farm.target.folder), **RISKY})
    one = await workflows.submit(farm.keyturn.ctx, farm.keyturn.me, request, "key-1")
    asked = await farm.keyturn.asked(one.workflow_id)
    again = await workflows.submit(farm.keyturn.ctx, farm.keyturn.me, request, "key-1")
    assert (again.workflow_id, again.replayed, again.status) == (one.workflow_id, True, "waiting")
    assert (await farm.keyturn.asked(one.workflow_id)).approval_id == asked.approval_id
    await farm.check()
