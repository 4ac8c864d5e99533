"""Random sequences of calls against a served Keyturn, each answer compared with what the reference model says.

KEYTURN_MODEL_SEQUENCES says how many (200), KEYTURN_MODEL_SEED where to begin; a failure names its seed and tells the
whole sequence.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.deciding import run_approved
from tests.acceptance.model import DELEGATE, DELEGATOR, MOST, POLICIES, REQUESTER, Expected, Model
from tests.acceptance.reading import Body, Scenario
from tests.acceptance.table import Request, Table, as_admin
from tests.acceptance.times import ANY, Clock
from tests.acceptance.translating import policy_file, write_config
from tests.acceptance.world import Answer, World, world

SEQUENCES = int(os.environ.get("KEYTURN_MODEL_SEQUENCES", "200"))
SEED = int(os.environ.get("KEYTURN_MODEL_SEED", "0"))
STEPS = 14
DAY = timedelta(days=1)
# Those of the first line keep their roles, so that there is always somebody to ask.
DIRECTORY = {
    "dave": ["sre"], "erin": ["sre"], "finn": ["sre"], "sue": ["security"], "sam": ["security"],
    "alice": ["sre", "security"], "bob": ["sre"], "carol": ["sre"], "dan": [], "rita": [],
}  # fmt: skip
CHANGING = ("alice", "bob", "carol")
DONE = {"replayed", "recorded", "resolved", "revised", "withdrawn"}
VOTERS = ("alice", "bob", "carol", "dave", "erin", "sue", "dan", "rita")


def scenario() -> Scenario:
    """The model's policies and people, in the words of a scenario."""
    bodies: dict[str, dict[int, Body]] = {}
    for name, terms in POLICIES.items():
        stages = [[{"role": role, "n": count} for role, count in stage] for stage in terms.stages]
        recheck = ["at_quorum", "at_execution"] if terms.recheck else ["at_quorum"]
        bodies[name] = {
            1: {"stages": stages, "deny_threshold": terms.deny, "request_ttl": "2h", "approval_ttl": "40m",
                "role_recheck": recheck}
        }  # fmt: skip
    return Scenario("model", "model", "", ANY, DIRECTORY, bodies, {}, [], [], {}, [], [], {})


@dataclass
class Sequence:
    """One request, lived through by chance in the API and in the model alike."""

    table: Table
    chance: random.Random
    request: Request
    model: Model
    told: list[str] = field(default_factory=list[str])

    @property
    def world(self) -> World:
        return self.table.world

    async def live(self) -> None:
        doings: list[tuple[Callable[[], Any], int]] = [
            (self.vote, 9), (self.edit, 1), (self.withdraw, 1), (self.change_roles, 2), (self.let_time_pass, 3),
            (self.sweep, 1), (self.execute, 2), (self.publish, 1), (self.look, 1),
        ]  # fmt: skip
        for _ in range(STEPS):
            (doing,) = self.chance.choices([one for one, _ in doings], [weight for _, weight in doings])
            await doing()
        await self.look()
        if self.model.state in {"pending", "approved"}:
            await self.world.call("POST", f"/workflows/{self.request.workflow_id}/cancel", "root", {"reason": "over"})

    def compare(self, what: str, expected: Expected, answer: Answer, state: str) -> None:
        self.told.append(f"{what} -> {answer.status} {answer.code} {state}")
        assert answer.code in expected.codes, f"expected {sorted(expected.codes)}: {answer}"
        assert (answer.status < 400) is bool(expected.codes & DONE)
        assert state == expected.state, f"expected the state {expected.state}"

    async def call(self, what: str, expected: Expected, verb: str, person: str, body: object) -> None:
        answer = await self.world.call("POST", f"/approvals/{self.request.approval_id}/{verb}", person, body)
        self.compare(what, expected, answer, str(answer.body.get("state") or await self.state()))

    async def state(self) -> str:
        return str((await self.table.approval(self.request))["state"])

    def revision(self) -> int:
        """Mostly the present one."""
        return max(1, self.model.revision - (self.chance.random() < 0.15))

    # What may happen

    async def vote(self) -> None:
        voter = self.chance.choice(VOTERS)
        acting = DELEGATOR if voter == DELEGATE and self.chance.random() < 0.8 else None
        approves, revision = self.chance.random() < 0.75, self.revision()
        expected = self.model.vote(voter, acting, approves, revision)
        body = {"verdict": "approve" if approves else "reject", "justification": "so", "revision": revision}
        what = f"{voter}{f' for {acting}' if acting else ''} votes {body['verdict']} on {revision}"
        await self.call(what, expected, "votes", voter, body | ({"acting_for": acting} if acting else {}))

    async def edit(self) -> None:
        person, revision = self.chance.choice([*VOTERS, REQUESTER, REQUESTER]), self.revision()
        expected = self.model.edit(person, revision)
        action = {"operation": "run", "arguments": {"n": self.chance.randrange(1_000_000)}}
        body = {"action": action, "revision": revision}
        await self.call(f"{person} edits {revision}", expected, "edit", person, body)

    async def withdraw(self) -> None:
        person = self.chance.choice([REQUESTER, *VOTERS])
        await self.call(f"{person} withdraws", self.model.withdraw(person), "withdraw", person, {"reason": "no"})

    async def change_roles(self) -> None:
        person, role = self.chance.choice(CHANGING), self.chance.choice(["sre", "security"])
        roles = self.model.roles[person] ^ {role}
        self.told.append(f"{person} now holds {sorted(roles)}")
        self.model.roles[person] = roles
        await self.world.set_roles(person, roles)

    async def let_time_pass(self) -> None:
        # To an instant itself every now and then: it is where a rule changes its mind.
        edges = [one for one in (self.model.expires, self.model.lapses) if self.model.now < one < self.model.now + DAY]
        late = self.chance.choice(edges) if edges and self.chance.random() < 0.3 else None
        now = late or self.model.now + timedelta(minutes=self.chance.randrange(1, 50))
        self.model.now = self.world.clock.now = now
        self.told.append(f"it is {now - ANY} later")

    async def sweep(self) -> None:
        self.told.append("a sweep")
        self.model.settle()
        await self.world.sweep()

    async def execute(self) -> None:
        if self.model.state not in {"approved", "executed"}:
            return
        expected = self.model.execute()
        outcome = await run_approved(self.table, self.request)
        self.told.append(f"it is run -> {outcome.status} {outcome.code}")
        assert outcome.code in expected.codes, f"expected {sorted(expected.codes)}: {outcome}"
        assert await self.state() == expected.state

    async def publish(self) -> None:
        asks_for = self.chance.randint(1, MOST)
        version = self.table.in_force["one"][0] + 1
        self.told.append(f"version {version} of the policy asks for {asks_for}")
        self.table.in_force["one"] = (
            version, {**self.table.in_force["one"][1], "stages": [[{"role": "sre", "n": asks_for}]]},
        )  # fmt: skip
        await publish(self.table)
        self.model.settle()
        self.model.publish(asks_for)

    async def look(self) -> None:
        self.model.settle()
        found = await self.table.approval(self.request)
        self.told.append(f"it is looked at -> {found['state']}, revision {found['revision']}")
        assert (found["state"], found["revision"]) == (self.model.state, self.model.revision)


async def publish(table: Table) -> None:
    body = {"text": policy_file(table.scenario, table.in_force), "file": "model.yaml"}
    await as_admin(table, "POST", "/policy/publish", body, "publishing")


async def begin(table: Table, chance: random.Random) -> Sequence:
    """Submit a request; people and policy are as at the very beginning, so that a seed alone repeats its sequence."""
    made = table.world
    made.clock.now += timedelta(hours=1)
    for person in CHANGING:
        if made.roles[person] != set(DIRECTORY[person]):
            await made.set_roles(person, set(DIRECTORY[person]))
    first, (version, body) = table.scenario.policies["one"][1], table.in_force["one"]
    if body != first:
        table.in_force["one"] = (version + 1, first)
        await publish(table)
    roles = {person: set(held) for person, held in DIRECTORY.items()}
    policy = chance.choice(list(POLICIES))
    model = Model(policy, made.clock.now, roles, asks_for=1)
    body = {"graph": "request_1", "title": policy, "input": {"ask": {"action": {"operation": "run"}}}}
    answer = made.must(await made.call("POST", "/workflows", REQUESTER, body))
    request = Request("R", "request_1", policy, made.clock.now, None, str(answer["workflow_id"]))
    await made.drive("request_1", to_the_gate=True)
    (approval,) = (await table.workflow(request))["approvals"]
    request.approval_id = str(approval["approval_id"])
    return Sequence(table, chance, request, model, [f"{policy}, which asks for {model.stages}"])


# Half a minute on an idle machine; others may be at work on this one.
@pytest.mark.timeout(600)
async def test_the_api_answers_as_the_model_does(database_url: str, tmp_path: Path) -> None:
    whole = scenario()
    config = write_config(whole, tmp_path / "config")
    async with world(database_url, config, {"request_1": "gated"}, Clock(ANY)) as made:
        table = Table(whole, made, in_force={name: (1, bodies[1]) for name, bodies in whole.policies.items()})
        await made.people(DIRECTORY)
        await publish(table)
        delegation = {
            "from": DELEGATOR, "to": DELEGATE, "starts_at": ANY.isoformat(), "reason": "away",
            "ends_at": (ANY + timedelta(days=3000)).isoformat(),
        }  # fmt: skip
        await as_admin(table, "POST", "/delegations", delegation, "delegating")
        for seed in range(SEED, SEED + SEQUENCES):
            sequence = await begin(table, random.Random(seed))  # noqa: S311 a chance that can be repeated
            try:
                await sequence.live()
            except AssertionError as error:
                told = "\n  ".join(sequence.told)
                message = f"KEYTURN_MODEL_SEED={seed} KEYTURN_MODEL_SEQUENCES=1:\n  {told}\n{error}"
                raise AssertionError(message) from error
