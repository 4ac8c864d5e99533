"""A load of workflows with approvals: clients that submit, decide and keep what they were told."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.core.errors import AlreadyResolved
from orchestrator.service import approvals, workflows
from orchestrator.wire import ApproveRequest, RejectRequest, SubmitRequest
from tests.faults.clients import insisting
from tests.faults.conftest import RISKY, Farm
from tests.harness import caller

VOTERS = ("tom", "tara", "theo")


class Load:
    """Clients that submit and decide, and keep what they were told."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self.progress = asyncio.Condition()
        self.submitted = 0
        self.decided = 0

    async def until(self, submitted: int = 0, decided: int = 0) -> None:
        async with asyncio.timeout(60), self.progress:
            await self.progress.wait_for(lambda: self.submitted >= submitted and self.decided >= decided)

    async def run(self, count: int, first: int = 0) -> None:
        """`count` workflows from number `first` on, each submitted, decided by somebody, and seen to its end; every
        third is rejected.
        """
        async with asyncio.TaskGroup() as group:
            for number in range(first, first + count):
                group.create_task(self._one(number))

    async def _one(self, number: int) -> None:
        title = f"workflow {number}"
        content: dict[str, object] = {"target": str(self.farm.target.folder), **RISKY}
        request = SubmitRequest(graph="governed", title=title, input=content)
        ctx, me = self.farm.keyturn.ctx, self.farm.keyturn.me
        submitted = await insisting(lambda: workflows.submit(ctx, me, request, f"submit {number}"))
        self.farm.promised.submitted[title] = submitted.workflow_id
        await self._counted(submitted=1)
        await self._decide(number, submitted.workflow_id)
        await self._counted(decided=1)
        status = "rejected" if number % 3 == 0 else "completed"
        await self._seen(submitted.workflow_id, status)

    async def _counted(self, submitted: int = 0, decided: int = 0) -> None:
        async with self.progress:
            self.submitted += submitted
            self.decided += decided
            self.progress.notify_all()

    async def _decide(self, number: int, workflow_id: str) -> None:
        ctx, voter = self.farm.keyturn.ctx, caller(VOTERS[number % 3])
        approval_id = (await self._seen(workflow_id, "waiting"))[0]
        key = f"decide {number}"
        if number % 3 == 0:
            no = RejectRequest(reason="not today", approval_id=approval_id)
            told = await insisting(lambda: approvals.reject(ctx, voter, workflow_id, no, key))
        else:
            yes = ApproveRequest(justification="go", approval_id=approval_id)
            told = await insisting(lambda: approvals.approve(ctx, voter, workflow_id, yes, key))
        assert told.resolved_by == voter.person
        self.farm.promised.decided[approval_id] = ("reject" if number % 3 == 0 else "approve", voter.person)
        # Another one is too late, from now on and for ever.
        late = ApproveRequest(justification="late", approval_id=approval_id)
        with pytest.raises(AlreadyResolved):
            await insisting(lambda: approvals.approve(ctx, caller("cleo"), workflow_id, late))

    async def _seen(self, workflow_id: str, status: str) -> list[str]:
        """Wait until the workflow has this status; the ids of its approvals."""
        async with asyncio.timeout(90):
            while True:
                found = await insisting(lambda: workflows.get(self.farm.keyturn.ctx, self.farm.keyturn.me, workflow_id))
                if found.status == status:
                    return [approval.approval_id for approval in found.approvals]
                assert found.status in ("ready", "running", "waiting"), (found.status, found.error)
                await asyncio.sleep(0.05)
