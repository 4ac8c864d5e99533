"""Copies of threads: what a gate of the original holds is held in the copy."""

from __future__ import annotations

from pathlib import Path

from orchestrator.service import conversations, runs
from tests.harness import Keyturn
from tests.service.test_gates import RISKY, config, gated, lines

__all__ = ["config"]


async def test_no_run_of_a_copy_walks_through_the_gate_that_its_original_waits_at(
    database_url: str, config: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    async with gated(database_url, config) as keyturn:
        workflow = await keyturn.submit("steps", **RISKY, trace=str(trace))
        await keyturn.asked(workflow)
        for content in ({}, {**RISKY, "trace": str(trace)}):
            copy = await _copied(keyturn, workflow)
            run = await runs.start(
                keyturn.ctx, keyturn.me, copy, graph="steps", content=content, metadata={}, kwargs={}
            )
            await keyturn.until(run.workflow_id, "waiting", "failed", "completed")
            assert "second" not in lines(trace)


async def _copied(keyturn: Keyturn, workflow: str) -> conversations.Thread:
    found = await conversations.find(keyturn.ctx, keyturn.me, workflow)
    return await conversations.copy(keyturn.ctx, keyturn.me, found)
