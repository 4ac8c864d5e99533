"""A whole Keyturn for one scenario: the served API, a worker that runs only when told to, and the clock of both.

Every request has a graph of its own (the same one under many names), so that a worker can be let run one request and
no other: an approved workflow waits for its `execute`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from orchestrator.engine.catalog import Catalog
from orchestrator.service.dispatch import Claimer
from orchestrator.worker import Worker
from tests.acceptance.running_instead import PASSING
from tests.acceptance.times import Clock
from tests.acceptance.translating import person_name, role_name
from tests.harness import Keyturn, running
from tests.web.edge import Edge, served

Json = dict[str, object]
GRAPHS = Path(__file__).parent / "graphs.py"
ORDINARY = ("submit", "read", "decide")
ROOT = "root"
ALL_PERMISSIONS = (*ORDINARY, "admin", "audit", "act_as")
# More rounds than any graph here has nodes: one that claims for ever is a fault.
_MOST_ROUNDS = 20


@dataclass(frozen=True)
class Answer:
    """What the API answered."""

    status: int
    body: Json

    @property
    def code(self) -> str | None:
        found = self.body.get("code")
        return None if found is None else str(found)

    def __str__(self) -> str:
        told = self.body.get("detail") or self.body
        return f"{self.status} {self.code or ''} {told}"


@dataclass
class World:
    """A served Keyturn under a scenario's clock."""

    edge: Edge
    keyturn: Keyturn
    clock: Clock
    http: httpx.AsyncClient
    roles: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    keys: dict[str, str] = field(default_factory=dict[str, str])

    # People

    async def people(self, directory: Mapping[str, Sequence[str]]) -> None:
        """Put the scenario's people where Keyturn looks for them."""
        for person, roles in directory.items():
            await self.set_roles(person, {role_name(role) for role in roles})

    async def set_roles(self, person: str, roles: set[str]) -> None:
        self.roles[person] = roles
        body = {"person": person_name(person), "roles": sorted(roles)}
        self.must(await self.call("POST", "/people", ROOT, body))

    async def _key(self, person: str) -> str:
        if person not in self.keys:
            permissions = ALL_PERMISSIONS if person == ROOT else ORDINARY
            if person != ROOT and person not in self.roles:
                await self.set_roles(person, set())
            self.keys[person] = await self.edge.key(person_name(person), permissions)
        return self.keys[person]

    # HTTP

    async def call(
        self, method: str, path: str, person: str | None, body: object = None, *, key: str | None = None
    ) -> Answer:
        """One request; `person` None sends no credential, `key` is an Idempotency-Key."""
        headers = {"Accept": "application/json"}
        if person is not None:
            headers["Authorization"] = f"Bearer {await self._key(person)}"
        if key is not None:
            headers["Idempotency-Key"] = key
        answer = await self.http.request(method, path, headers=headers, json=body)
        try:
            found: Any = answer.json()
        except ValueError:
            found = {"text": answer.text}
        return Answer(answer.status_code, found if isinstance(found, dict) else {"items": found})

    @staticmethod
    def must(answer: Answer) -> Json:
        """The body of an answer that must be a good one."""
        assert answer.status < 400, f"refused: {answer}"
        return answer.body

    async def get(self, path: str) -> Json:
        return self.must(await self.call("GET", path, ROOT))

    # The worker

    async def drive(self, graph: str, *, to_the_gate: bool = False) -> None:
        """Let a worker run what is ready of one graph until nothing is. With `to_the_gate` it is told to stop when the
        gate is passed, and hands the workflow back before what is behind the gate runs.
        """
        only = _only(self.keyturn.catalog, graph)
        worker = Worker(self.keyturn.ctx, only, self.keyturn.settings)
        claimer = Claimer(self.keyturn.ctx, worker.worker_id, only, 30.0, 4)
        for _ in range(_MOST_ROUNDS):
            leases = await claimer.claim(0, 0)
            if not leases:
                return
            for lease in leases:
                worker._start(lease)
            segments = list(worker._running.values())
            if to_the_gate:
                PASSING.update({one.segment.lease.workflow_id: one.segment.control.request_drain for one in segments})
            await asyncio.gather(*(one.task for one in segments))
            PASSING.clear()
            if to_the_gate:
                return
        message = f"{graph} was still ready after {_MOST_ROUNDS} leases"
        raise AssertionError(message)

    async def sweep(self) -> None:
        """What a worker does every second about what is due."""
        await Worker(self.keyturn.ctx, self.keyturn.catalog, self.keyturn.settings)._sweep()


def _only(catalog: Catalog, graph: str) -> Catalog:
    """A catalog of one graph, for a worker that claims nothing else."""
    one = copy(catalog)
    one.entries = {graph: catalog.entries[graph]}
    return one


@contextlib.asynccontextmanager
async def world(database_url: str, config: Path, graphs: Mapping[str, str], clock: Clock) -> AsyncGenerator[World]:
    """A world with these graphs (name to attribute of graphs.py), under `clock`."""
    app = config / "langgraph.json"
    app.write_text(json.dumps({"graphs": {name: f"{GRAPHS}:{what}" for name, what in graphs.items()}}))
    async with running(database_url, app=app, config=config) as found:
        keyturn = replace(found, ctx=replace(found.ctx, clock=clock))
        async with (
            served(keyturn) as edge,
            httpx.AsyncClient(base_url=edge.url, timeout=20, trust_env=False) as http,
        ):
            yield World(edge, keyturn, clock, http)
