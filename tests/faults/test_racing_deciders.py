"""Eight people decide at once, over HTTP and two API processes: one is obeyed, the others are told who it was."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass

import httpx
import pytest

from orchestrator.service import identity
from orchestrator.wire import KeyRequest, PersonRequest
from tests.faults.conftest import RISKY, Farm
from tests.faults.invariants import read
from tests.harness import caller

DECIDERS = [f"decider{number}" for number in range(8)]


@dataclass(frozen=True)
class Decider:
    """A person with a client of their own."""

    person: str
    client: httpx.AsyncClient

    async def decide(self, workflow: str, verdict: str) -> Answer:
        body = {"justification": "go"} if verdict == "approve" else {"reason": "no"}
        response = await self.client.post(f"/workflows/{workflow}/{verdict}", json=body)
        return Answer(self.person, verdict, response.status_code, response.json())


@dataclass(frozen=True)
class Answer:
    """What somebody was told."""

    person: str
    verdict: str
    status: int
    body: dict[str, object]


async def deciders(farm: Farm, addresses: list[str]) -> list[Decider]:
    """Eight eligible people, each with a key, spread over the APIs."""
    found: list[Decider] = []
    root = caller("root")
    for number, person in enumerate(DECIDERS):
        await identity.put_person(farm.keyturn.ctx, root, PersonRequest(person=person, roles=["team_lead"]))
        request = KeyRequest(person=person, permissions=["read", "decide"])
        key = (await identity.create_key(farm.keyturn.ctx, root, request)).key
        headers = {"Authorization": f"Bearer {key}"}
        address = addresses[number % len(addresses)]
        found.append(Decider(person, httpx.AsyncClient(base_url=address, headers=headers, timeout=30)))
    return found


async def race(who: list[Decider], workflow: str) -> list[Answer]:
    """All decide at once, four for and four against, in an order of their own."""
    verdicts = ["approve", "reject"] * 4
    random.shuffle(verdicts)
    together = list(zip(who, verdicts, strict=True))
    random.shuffle(together)
    return await asyncio.gather(*(decider.decide(workflow, verdict) for decider, verdict in together))


def check(answers: list[Answer]) -> Answer:
    """Exactly one was obeyed; every other answer names them. Returns the winner's."""
    assert Counter(answer.status for answer in answers) == {200: 1, 409: 7}
    (winner,) = [answer for answer in answers if answer.status == 200]
    for answer in answers:
        if answer is not winner:
            assert answer.body["code"] == "already_resolved"
            assert answer.body["resolved_by"] == winner.person
            assert winner.person in str(answer.body["detail"])
    return winner


async def raced(farm: Farm, approvals: int) -> None:
    farm.worker()
    addresses = [await farm.api(), await farm.api()]
    for _ in range(approvals):
        await farm.submit("governed", **RISKY)
    await farm.settled(waiting=approvals)
    who = await deciders(farm, addresses)
    winners: dict[str, Answer] = {}
    try:
        for asked in (await read(farm.database_url)).approvals:
            winner = check(await race(who, asked["workflow_id"]))
            winners[asked["workflow_id"]] = winner
            farm.promised.decided[asked["approval_id"]] = (winner.verdict, winner.person)
    finally:
        for decider in who:
            await decider.client.aclose()
    await farm.settled()
    tables = await read(farm.database_url)
    assert len(winners) == approvals
    for workflow, winner in winners.items():
        ended = "completed" if winner.verdict == "approve" else "rejected"
        assert tables.workflows[workflow]["status"] == ended
        assert sum(event["type"] == "refused" for event in tables.events[workflow]) == 7
    happened = farm.target.applied()
    for workflow, winner in winners.items():
        assert happened[f"charge {workflow}"] == (winner.verdict == "approve")
    assert {winner.verdict for winner in winners.values()} == {"approve", "reject"}
    await farm.check(steps_alike=True)


async def test_of_eight_racing_deciders_one_is_obeyed_and_seven_are_told_who(farm: Farm) -> None:
    await raced(farm, approvals=100)


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_of_eight_racing_deciders_one_is_obeyed_four_hundred_times(farm: Farm) -> None:
    await raced(farm, approvals=400)
