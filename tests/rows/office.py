"""An office where sessions are held: everybody with a client of their own, over real HTTP, and a clock to put ahead."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.harness import APPS, Keyturn, running
from tests.web.edge import Edge, served


@dataclass
class Hand:
    """A clock that goes on, and may be put ahead."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Office:
    """Everybody with a client of their own; a worker runs only where a test asks for one."""

    edge: Edge
    keyturn: Keyturn
    clock: Hand
    people: dict[str, httpx.AsyncClient]

    async def post(self, path: str, who: str = "rita", *, key: str | None = None, **body: Any) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.people[who].post(path, json=body, headers=headers)

    async def begin(self, graph: str = "clerk", who: str = "rita", **body: Any) -> str:
        answer = await self.post("/sessions", who, graph=graph, **body)
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"] == f"/sessions/{answer.json()['session_id']}"
        return answer.json()["session_id"]

    async def say(self, session: str, content: Any, who: str = "rita", **body: Any) -> httpx.Response:
        return await self.post(f"/sessions/{session}/messages", who, content=content, **body)

    async def record(self, session: str, who: str = "rita") -> dict[str, Any]:
        answer = await self.people[who].get(f"/sessions/{session}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def settled(self, session: str, state: str = "idle") -> dict[str, Any]:
        """The session once its run is where it goes no further by itself."""
        found = await self.record(session)
        await self.keyturn.until(found["workflow_id"], "waiting", "completed", "failed", "cancelled", "rejected")
        found = await self.record(session)
        assert found["state"] == state, found
        return found

    async def talk(self, session: str, content: Any) -> None:
        answer = await self.say(session, content)
        assert answer.status_code in (200, 201), answer.text
        await self.settled(session)

    async def history(self, session: str, who: str = "tom", **query: Any) -> list[dict[str, Any]]:
        answer = await self.people[who].get(f"/sessions/{session}/messages", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()["messages"]

    async def told(self, session: str) -> list[tuple[str, Any]]:
        return [(one["type"], one["content"]) for one in await self.history(session)]


@contextlib.asynccontextmanager
async def office(database_url: str, **settings: float) -> AsyncGenerator[Office]:
    async with running(database_url, app=APPS / "sessions.json", config=None, **settings) as keyturn:
        clock = Hand()
        keyturn.ctx = replace(keyturn.ctx, clock=clock)
        async with served(keyturn) as edge, contextlib.AsyncExitStack() as stack:
            people = {
                name: await stack.enter_async_context(edge.http(await edge.key(name, ("submit", "read", "decide"))))
                for name in ("rita", "tom", "tara")
            }
            yield Office(edge, keyturn, clock, people)
