"""What all scenes do: submit as the requester, wait, decide as somebody, be refused. All of it over REST."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Final

from orchestrator.cli.demo.children import DemoFailed
from orchestrator.cli.demo.stage import Stage
from orchestrator.cli.demo.telling import Teller
from orchestrator.sdk.calls import DecisionOptions, Permission
from orchestrator.sdk.client import ApiError, Keyturn, Problem
from orchestrator.wire import ApprovalRecord, EventRecord, WorkflowRecord

REQUESTER: Final = "rita"
# Rita may decide what others ask for: that she may not decide her own is not for want of a role.
PEOPLE: Final[Mapping[str, tuple[str, ...]]] = {
    "rita": ("team_lead",),
    "tom": ("team_lead",),
    "tara": ("team_lead", "tech_lead"),
    "cleo": ("cto",),
    "fay": ("finance",),
}
_WORK: Final[tuple[Permission, ...]] = ("submit", "read", "decide")
WAIT_SECONDS: Final = 45.0
_CALL_SECONDS: Final = 15.0
_ALL_EVENTS: Final = 1000


@dataclass(slots=True)
class Play:
    """The stage, the people on it (each speaks with a key of their own), and what was submitted, in order."""

    stage: Stage
    teller: Teller
    cast: Mapping[str, Keyturn]
    submitted: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def requester(self) -> Keyturn:
        """Who submits."""
        return self.cast[REQUESTER]

    def submit(self, title: str, graph: str, **values: object) -> str:
        """Submit as the requester; returns the workflow's id."""
        workflow_id = self.requester.submit(graph, values, title=title).workflow_id
        self.submitted.append((title, workflow_id))
        self.teller.line(f"{REQUESTER} submits “{title}”: {workflow_id}")
        return workflow_id

    def operate(self, title: str, runbook: str, **parameters: object) -> str:
        """Submit an operation."""
        return self.submit(title, "operation", runbook=runbook, parameters=parameters)

    def gate(self, workflow_id: str) -> ApprovalRecord:
        """Wait until the workflow waits for a decision, and return what it asks; DemoFailed when it ends instead."""
        status = self.requester.wait(workflow_id, WAIT_SECONDS, until="settled")
        waiting = [approval for approval in status.approvals if approval.state == "pending"]
        if not waiting:
            raise DemoFailed(f"{workflow_id} is {status.status} and asks nothing: {status.error or status.reason}")
        return waiting[0]

    def finished(self, workflow_id: str) -> WorkflowRecord:
        """Wait for the workflow's end, and return it whole."""
        self.requester.wait(workflow_id, WAIT_SECONDS, until="ended")
        return self.requester.workflow(workflow_id)

    def decide(self, workflow_id: str, who: str, suggested: str, *, ask: bool = True) -> bool:
        """Decide as `who`; whether it was approved. The person at the terminal decides when `ask` is true."""
        choice = self.teller.choose(f"{who} ({', '.join(PEOPLE[who])})", suggested) if ask else None
        verdict, words = choice or ("approve", suggested)
        client, key = self.cast[who], uuid.uuid4().hex
        send = client.approve if verdict == "approve" else client.reject
        decided = send(workflow_id, words, idempotency_key=key, **self._seen(workflow_id, who))
        self.teller.line(f"{who} {verdict}s: “{words}”")
        return decided.state == "approved"

    def refusal(self, workflow_id: str, who: str, justification: str = "") -> Problem:
        """Let `who` try to approve, and return why not; DemoFailed when it was taken."""
        try:
            decided = self.cast[who].approve(workflow_id, justification, **self._seen(workflow_id, who))
        except ApiError as error:
            problem = error.problem
            self.teller.line(f"{who} tries to approve: {problem.status} {problem.code}: {problem.detail}")
            return problem
        raise DemoFailed(f"{who} could approve {workflow_id}, which is {decided.state} now; this must be refused")

    def _seen(self, workflow_id: str, who: str) -> DecisionOptions:
        """What `who` decides on, as they see it now: what waits, or else what was decided last."""
        asked = self.cast[who].status(workflow_id).approvals
        one = next((each for each in asked if each.state == "pending"), asked[-1])
        return {"approval_id": one.approval_id, "revision": one.revision, "digest": one.digest}

    def event(self, workflow_id: str, wanted: Callable[[EventRecord], bool], after: int = 0) -> EventRecord:
        """The first event with a number above `after` that is wanted; waits for it."""
        for event in self.requester.follow(workflow_id, after=after, timeout=WAIT_SECONDS):
            if wanted(event):
                return event
        raise DemoFailed(f"{workflow_id} ended without the event that was waited for")

    def events(self, workflow_id: str) -> list[EventRecord]:
        """All events of a workflow so far."""
        return list(self.requester.events(workflow_id, 0, _ALL_EVENTS).events)


@contextlib.contextmanager
def cast_of(stage: Stage, owner_key: str) -> Generator[Mapping[str, Keyturn]]:
    """Make the people and a key for each over REST; their clients are open inside."""
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(Keyturn(stage.url, owner_key, timeout=_CALL_SECONDS))
        # Who brought it up only sets it up here, and decides nothing.
        owner.put_person("owner", name="Owner")
        cast = {"owner": owner}
        for person, roles in PEOPLE.items():
            owner.put_person(person, name=person.title(), roles=roles)
            key = owner.create_key(person, _WORK, label="demo").key
            cast[person] = stack.enter_context(Keyturn(stage.url, key, timeout=_CALL_SECONDS))
        yield cast
