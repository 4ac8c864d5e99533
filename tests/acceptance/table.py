"""What is on the table while a scenario is played: its world, its requests, and what the API shows of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from orchestrator.core.votes import CLOCK
from tests.acceptance import comparing, translating
from tests.acceptance.comparing import Differences
from tests.acceptance.reading import Body, Scenario, Step, mapping
from tests.acceptance.running_instead import RAN, RESUMED_WITH
from tests.acceptance.translating import person_name
from tests.acceptance.world import ROOT, Answer, World

BECAUSE = "as agreed in the change meeting"
# Where a workflow stopped, as the answer the scenarios' words give to whoever let it run.
STOPPED = {
    "approval_lapsed": 410, "approver_ineligible": 409, "hash_mismatch": 409, "already_executed": 409, "frozen": 423,
    "unroutable": 422, "justification_required": 422,
}  # fmt: skip


@dataclass
class Request:
    """One submitted request."""

    req: str
    graph: str
    policy: str | None
    at: datetime
    payload: Body | None
    workflow_id: str = ""
    approval_id: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a step led to."""

    status: int | None = None
    code: str | None = None
    detail: str = ""
    body: Mapping[str, object] = field(default_factory=dict[str, object])

    @classmethod
    def of(cls, answer: Answer) -> Outcome:
        return cls(answer.status, answer.code, str(answer.body.get("detail", "")), answer.body)

    @classmethod
    def stopped(cls, workflow: Body, otherwise: int) -> Outcome:
        """A workflow that failed, as an answer."""
        code = str(workflow["reason"])
        detail = str(mapping(workflow.get("error"), "error").get("detail", ""))
        return cls(STOPPED.get(code, otherwise), code, detail)


@dataclass
class Table:
    """One scenario under way. `differences` are what was not as expected."""

    scenario: Scenario
    world: World
    differences: Differences = field(default_factory=Differences)
    requests: dict[str, Request] = field(default_factory=dict[str, Request])
    links: dict[str, str] = field(default_factory=dict[str, str])
    delegations: dict[str, str] = field(default_factory=dict[str, str])
    in_force: dict[str, tuple[int, Body]] = field(default_factory=dict[str, tuple[int, Body]])
    submitted: int = 0

    def request(self, step: Step) -> Request:
        found = self.requests.get(step.text("req"))
        assert found is not None, f"{step}: {step.text('req')} was never accepted"
        return found

    def action(self, payload: Body | None, policy: str | None = None) -> dict[str, object]:
        """The action that a payload of this scenario stands for."""
        return translating.action_of(payload, policy, wrap=translating.wraps(self.scenario))

    def body_of(self, request: Request) -> Body:
        """The policy body that a request is probably judged by: the one it names, else that of its environment."""
        by_environment = self.scenario.policy_by_environment
        environment = str(self.action(request.payload).get("environment", ""))
        anywhere = next((name for env, name in by_environment.items() if env in translating.ANYWHERE), None)
        name = request.policy or by_environment.get(environment, anywhere)
        return self.in_force[name][1] if name in self.in_force else {}

    # Looking

    async def approval(self, request: Request) -> dict[str, Any]:
        """The request's approval as the API shows it; empty where none was made."""
        if request.approval_id is None:
            return {}
        return await self.world.get(f"/approvals/{request.approval_id}")

    async def workflow(self, request: Request) -> dict[str, Any]:
        return await self.world.get(f"/workflows/{request.workflow_id}")

    async def events(self, request: Request) -> list[dict[str, Any]]:
        page = await self.world.get(f"/workflows/{request.workflow_id}/events?limit=1000")
        return cast("list[dict[str, Any]]", page["events"])

    async def state(self, request: Request, approval: Body) -> str:
        """The approval's state; where none was made, how its workflow ended."""
        if approval:
            return str(approval["state"])
        workflow = await self.workflow(request)
        return str(workflow["reason"] if workflow["status"] == "failed" else workflow["status"])

    async def ending(self, request: Request) -> dict[str, object]:
        """All that a scenario's `final` may ask about one request."""
        approval = await self.approval(request)
        workflow, events = await self.workflow(request), await self.events(request)
        decision = mapping(approval.get("decision"), "decision")
        error = mapping(workflow.get("error"), "error")
        reasons = [workflow["reason"], decision.get("note"), error.get("code"), approval.get("resolved_by")]
        if approval.get("resolved_by") == CLOCK:
            reasons += ["timeout", "expired"]
        return {
            "state": await self.state(request, approval),
            "ran_out": self._ran_out(request, approval),
            "filled": approval.get("filled", {}),
            "void": approval.get("void", []),
            "dissent": approval.get("dissent", []),
            "reason": reasons,
            "policy_versions": approval.get("policy_versions", []),
            "flags": approval.get("flags", []),
            "bypassed": approval.get("bypassed", []),
            "outbox": comparing.outbox([one for one in events if _about(request, one)]),
            "events": Counter(one["type"] for one in events),
            "resumed_with": RESUMED_WITH.get(request.workflow_id, []),
            "ran": RAN.get(request.workflow_id, []),
            "revision": approval.get("revision"),
            "risk": approval.get("risk_level"),
            "status": workflow["status"],
        }

    def _ran_out(self, request: Request, approval: Body) -> bool:
        """Whether an approval's time to run is over, and no step tried to run it."""
        lapses = approval.get("lapses_at")
        over = lapses is not None and datetime.fromisoformat(str(lapses)) <= self.world.clock.now
        return over and not any(s.do == "execute" and s.text("req") == request.req for s in self.scenario.steps)

    async def check_sound(self, request: Request) -> None:
        """What holds at the end of every scenario: a gated action ran once where its approval says so, else never;
        and a workflow stands as its commands say.
        """
        approval, end = await self.approval(request), await self.ending(request)
        ran = len(RAN.get(request.workflow_id, []))
        if approval.get("dialect") == "keyturn" and ran != (approval["state"] == "executed"):
            self.differences.append(f"{request.req} is {approval['state']} and ran {ran} times")
        ended = end["status"] in {"rejected", "expired", "cancelled"}
        if end["outbox"] == ["cancel"] and not ended:
            self.differences.append(f"{request.req} was cancelled, and its workflow is {end['status']}")
        if end["outbox"] == ["resume"] and ended:
            self.differences.append(f"{request.req} was resumed, and its workflow is {end['status']}")


def _about(request: Request, event: Body) -> bool:
    data = mapping(event["data"], "event")
    return data.get("request_id", request.approval_id) == request.approval_id


async def as_admin(table: Table, method: str, path: str, body: object, what: str) -> Mapping[str, object]:
    """A call that prepares a scenario and must succeed."""
    answer = await table.world.call(method, path, ROOT, body)
    assert answer.status < 400, f"{table.scenario.id}: {what} was refused: {answer}"
    return answer.body


def named(step: Step, *names: str) -> dict[str, object]:
    """These fields of a step, where it has them, with people as Keyturn writes them."""
    people = {"acting_for", "on_behalf_of", "launched_by"}
    return {
        name: person_name(step.text(name)) if name in people else step.fields[name]
        for name in names
        if step.fields.get(name) is not None
    }
