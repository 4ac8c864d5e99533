"""A session outlives every process: real API and worker processes are killed in the middle of it, and it goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx

from orchestrator.sdk.client import AsyncKeyturn, Unreachable
from tests.faults.process import Child, WorkerSpec, start_api, start_worker
from tests.harness import APPS, Keyturn, running
from tests.web.edge import Edge

APP = APPS / "sessions.json"
# A killed worker's run is taken over when its lease is over.
SETTINGS = {"lease_seconds": 1.0}


class Deployment:
    """An API process and a worker process on one database."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self._database_url = database_url
        self._folder = folder
        self.children: list[Child] = []
        self.url = ""

    async def start(self) -> None:
        """Start both."""
        log = self._folder / f"{len(self.children)}.log"
        api, self.url = await start_api(self._database_url, log)
        self.children += [api, start_worker(WorkerSpec(self._database_url, APP, log, SETTINGS))]
        async with AsyncKeyturn(self.url) as keyturn, asyncio.timeout(30):
            while True:
                if await answers(keyturn):
                    return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """SIGKILL for both."""
        for child in self.children[-2:]:
            await child.kill()

    @contextlib.asynccontextmanager
    async def client(self, key: str) -> AsyncGenerator[httpx.AsyncClient]:
        """A client that knows nothing but the address and its key."""
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20, trust_env=False) as http:
            yield http


async def answers(keyturn: AsyncKeyturn) -> bool:
    """Whether the API serves, with a worker behind it."""
    try:
        return (await keyturn.ready()).ready
    except Unreachable:
        return False


@contextlib.asynccontextmanager
async def deployed(database_url: str, folder: Path) -> AsyncGenerator[Deployment]:
    found = Deployment(database_url, folder)
    try:
        yield found
    finally:
        for child in found.children:
            child.clear_away()


async def key_of(keyturn: Keyturn, person: str) -> str:
    """A key made in the database: it is good at every API process."""
    unserved: Any = None
    return await Edge("", keyturn, unserved, unserved, unserved).key(person, ("submit", "read", "decide"))


async def until(http: httpx.AsyncClient, session: str, state: str) -> dict[str, Any]:
    """The session once its run is where it goes no further by itself."""
    found = (await http.get(f"/sessions/{session}")).json()
    await http.get(f"/workflows/{found['workflow_id']}/wait", params={"timeout": 15})
    found = (await http.get(f"/sessions/{session}")).json()
    assert found["state"] == state, found
    return found


async def test_c4_a_session_survives_the_killing_of_all_processes_and_another_client_answers_its_question(
    database_url: str, tmp_path: Path
) -> None:
    async with running(database_url, app=APP) as keyturn, deployed(database_url, tmp_path) as deployment:
        rita, tom = await key_of(keyturn, "rita"), await key_of(keyturn, "tom")
        await deployment.start()
        async with deployment.client(rita) as tab:
            begun = await tab.post("/sessions", json={"graph": "clerk", "message": "my name is Ada"})
            session = begun.json()["session_id"]
            await until(tab, session, "idle")
            await tab.post(f"/sessions/{session}/messages", json={"content": "travel"})
            (asked,) = (await until(tab, session, "waiting"))["pending"]
            before = (await tab.get(f"/sessions/{session}/messages")).json()["messages"]
        await deployment.kill()

        await deployment.start()
        async with deployment.client(rita) as tab:
            (found,) = (await tab.get("/sessions")).json()["sessions"]
            assert (found["session_id"], found["state"]) == (session, "waiting")
            assert (await tab.get(f"/sessions/{session}/messages")).json()["messages"] == before
        async with deployment.client(tom) as other:
            answered = await other.post(f"/sessions/{session}/messages", json={"content": "Rome"})
            assert answered.json()["approval_id"] == asked["approval_id"]
            await until(other, session, "idle")

        # Killed once more, in the middle of a run this time: it is taken over, and comes to its end.
        gate = tmp_path / "gate"
        async with deployment.client(rita) as tab:
            begun = await tab.post(f"/sessions/{session}/messages", json={"content": f"wait {gate}"})
            await keyturn.until(begun.json()["workflow_id"], "running")
        await deployment.kill()
        gate.touch()
        await deployment.start()
        async with deployment.client(rita) as tab:
            await until(tab, session, "idle")
            await tab.post(f"/sessions/{session}/messages", json={"content": "recall"})
            await until(tab, session, "idle")
            whole = (await tab.get(f"/sessions/{session}/messages")).json()["messages"]
    assert whole[: len(before)] == before
    assert [(one["type"], one["by"], one["content"]) for one in whole if one["role"] == "user"] == [
        ("message", "rita", "my name is Ada"),
        ("message", "rita", "travel"),
        ("answer", "tom", "Rome"),
        ("message", "rita", f"wait {gate}"),
        ("message", "rita", "recall"),
    ]
    assert [one["content"] for one in whole if one["type"] == "result"] == [
        "heard my name is Ada", "off to Rome", "waited", f"my name is Ada / travel / wait {gate} / recall"
    ]  # fmt: skip
