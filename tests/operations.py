"""Running the operation graph by hand: a ledger that outlives its workers, and workers that are killed at a point."""

from __future__ import annotations

import shutil
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from graphs.operation import graph
from orchestrator.core.canonical import digest
from orchestrator.core.errors import DigestMismatch
from orchestrator.sdk.runtime import Binding, EffectEntry, Visit, current_host, current_visit

SHIPPED = Path(__file__).parents[1] / "config"
needs_terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed here")


class Killed(BaseException):
    """The worker was killed at this moment."""


@dataclass
class Ledger:
    """What outlives a worker: the effects, and the approvals with the digest they were given for."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    approvals: dict[str, str] = field(default_factory=dict)
    kill_at_end_of: str = ""
    kill_at_start_of: str = ""


class HandWorker:
    """One worker's attempt, with the ledger the engine would lend it."""

    workflow_id = "wf_test"

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def note(self, kind: str, data: Mapping[str, object]) -> None:
        """Nobody watches."""

    async def begin_effect(self, key: str, visit: Visit, name: str, binding: Binding | None) -> EffectEntry:
        assert visit.node == "operation"
        if binding is not None and self.ledger.approvals.get(binding.approval_id) != binding.digest:
            raise DigestMismatch("not what was approved")
        row = self.ledger.rows.get(key)
        if row is None or row["state"] == "failed":
            row = {"state": "started", "by": self, "result": None, "asked": 0, "settled": 0, "name": name}
            self.ledger.rows[key] = row
            self._kill(self.ledger.kill_at_start_of, name)
            return EffectEntry("new")
        state = "finished" if row["state"] == "finished" else "new" if row["by"] is self else "in_doubt"
        return EffectEntry(state, row["result"], row["asked"], row["settled"])

    async def again_effect(self, key: str) -> None:
        self.ledger.rows[key].update(by=self, settled=self.ledger.rows[key]["asked"])

    async def fail_effect(self, key: str, error: str) -> None:
        self.ledger.rows[key].update(state="failed", error=error)

    async def ask_effect(self, key: str, asked: int) -> None:
        self.ledger.rows[key]["asked"] = asked

    async def finish_effect(self, key: str, result: object) -> None:
        self._kill(self.ledger.kill_at_end_of, self.ledger.rows[key]["name"])
        self.ledger.rows[key].update(state="finished", result=result)

    def wait(self, work: Coroutine[object, object, Any]) -> Any:
        raise NotImplementedError

    def _kill(self, where: str, name: str) -> None:
        if where == name:
            self.ledger.kill_at_end_of = self.ledger.kill_at_start_of = ""
            raise Killed


class Operations:
    """Runs one operation as a worker would: to its gate, through it, and again after a failure."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._saver = InMemorySaver()

    async def go(self, value: object) -> dict[str, Any]:
        """One segment by a fresh worker, which reads the runbooks and builds the graph anew."""
        host = current_host.set(HandWorker(self.ledger))
        visit = current_visit.set(Visit("operation", "1"))
        compiled = graph().copy(update={"checkpointer": self._saver})
        try:
            return await compiled.ainvoke(value, {"configurable": {"thread_id": "wf"}}, durability="sync")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportReturnType]
        finally:
            current_host.reset(host)
            current_visit.reset(visit)

    async def submit(self, runbook: str, **parameters: object) -> dict[str, Any]:
        """Up to the gate: the action that is asked for."""
        self.asked = (await self.go({"runbook": runbook, "parameters": parameters}))["__interrupt__"][0]
        return self.asked.value["action"]

    async def approve(self) -> dict[str, Any]:
        """Through the gate."""
        action = self.asked.value["action"]
        self.ledger.approvals["ap_1"] = digest(action)
        decision = {"approved": True, "by": ["grace"], "note": "", "action": action, "approval_id": "ap_1",
                    "digest": digest(action), "volatile_fields": []}  # fmt: skip
        return await self.go(Command(resume={self.asked.id: decision}))

    async def again(self) -> dict[str, Any]:
        """A worker takes over, or the workflow is retried."""
        return await self.go(None)

    def effects(self) -> dict[str, str]:
        return {row["name"]: row["state"] for row in self.ledger.rows.values()}
