"""A team with clients of their own, and requests whose action they may change, for tests of the edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from orchestrator.service import policies
from orchestrator.wire import ApprovalRecord, PolicyText
from tests.harness import Keyturn, caller
from tests.web.edge import Edge

MEDIUM: dict[str, Any] = {"operation": "purge", "metadata": {"rows": 2000}}
HIGH: dict[str, Any] = {"operation": "deploy", "environment": "production", "arguments": {"version": "v1"}}


@dataclass
class Team:
    """Everybody with a client of their own, and requests to work on."""

    edge: Edge
    keyturn: Keyturn
    people: dict[str, httpx.AsyncClient]

    async def asked(self, action: dict[str, Any], description: str = "") -> ApprovalRecord:
        """A request of rita's for this action, which waits."""
        return await self.keyturn.asked(await self.keyturn.submit("revisable", action=action, description=description))

    async def post(self, who: str, path: str, **body: Any) -> httpx.Response:
        """What the server answers to somebody."""
        return await self.people[who].post(path, json=body)

    async def record(self, one: ApprovalRecord) -> dict[str, Any]:
        """The request as it is now."""
        return (await self.people["tom"].get(f"/approvals/{one.approval_id}")).json()

    async def policies(self, text: str) -> None:
        """Publish these policies."""
        await policies.publish(self.keyturn.ctx, caller("root"), PolicyText(text=text))


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, which is a problem document."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]
