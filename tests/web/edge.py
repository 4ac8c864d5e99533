"""The real application over real HTTP for tests: a uvicorn server on a free port, on a database of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta

import httpx
from fastapi import FastAPI

from orchestrator.sdk.client import AsyncKeyturn
from orchestrator.service import identity
from orchestrator.web.app import create_app
from orchestrator.web.server import address, bind, serve
from orchestrator.wire import KeyRequest, PersonRequest
from tests.harness import Keyturn, caller

ALL = ("submit", "read", "decide", "admin", "audit")


@dataclass
class Edge:
    """A served application, and the Keyturn behind it."""

    url: str
    keyturn: Keyturn
    app: FastAPI
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def key(
        self,
        person: str = "rita",
        permissions: tuple[str, ...] = ALL,
        *,
        namespace: str = "default",
        expires_in: timedelta | None = None,
    ) -> str:
        """A new key of a person, who is made when the namespace has no such one."""
        admin = caller("root", namespace)
        known = [one.person for one in await identity.list_people(self.keyturn.ctx, admin)]
        if person not in known:
            await identity.put_person(self.keyturn.ctx, admin, PersonRequest(person=person))
        request = KeyRequest.model_validate(
            {
                "person": person,
                "permissions": permissions,
                "expires_in": None if expires_in is None else expires_in.total_seconds(),
            }
        )
        return (await identity.create_key(self.keyturn.ctx, admin, request)).key

    @contextlib.asynccontextmanager
    async def http(self, key: str | None = None) -> AsyncGenerator[httpx.AsyncClient]:
        """A plain HTTP client, with a key or without."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20, trust_env=False) as client:
            yield client

    @contextlib.asynccontextmanager
    async def client(self, person: str = "rita", permissions: tuple[str, ...] = ALL) -> AsyncGenerator[AsyncKeyturn]:
        """Keyturn's own client with a key of this person."""
        client = AsyncKeyturn(self.url, await self.key(person, permissions))
        try:
            yield client
        finally:
            await client.close()


@contextlib.asynccontextmanager
async def served(keyturn: Keyturn, *, own_database: bool = False, port: int = 0) -> AsyncGenerator[Edge]:
    """Serve the API while the block runs; with `own_database` it opens one from its settings, as `serve` does."""
    app = create_app(keyturn.settings, context=None if own_database else keyturn.ctx)
    stop, started = asyncio.Event(), asyncio.Event()
    with contextlib.closing(bind("127.0.0.1", port)) as listener:
        url = address(listener)
        task = asyncio.create_task(serve(app, listener, stop, started))
        starting = asyncio.create_task(started.wait())
        await asyncio.wait([task, starting], return_when=asyncio.FIRST_COMPLETED)
        try:
            yield Edge(url, keyturn, app, stop, task)
        finally:
            stop.set()
            await task
