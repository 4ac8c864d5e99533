"""The application: routes, limits, problems and measurements put together, and what it opens and closes.

It serves the API only. A worker may run beside it in the same process, but knows nothing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.config import load_governance
from orchestrator.core.canonical import redact
from orchestrator.service.context import Clock, Context, database_clock
from orchestrator.service.identity import Keyring
from orchestrator.settings import Settings
from orchestrator.store.db import Database
from orchestrator.telemetry import Telemetry
from orchestrator.web import (
    admin,
    approvals,
    audit,
    cases,
    delegations,
    feeds,
    health,
    inbox,
    langgraph_api,
    links,
    policies,
    progress,
    sessions,
    stream,
    waiting,
    workflows,
)
from orchestrator.web.agui import routes as agui
from orchestrator.web.auth import authenticated
from orchestrator.web.counting import Counting
from orchestrator.web.hub import Hub
from orchestrator.web.limits import Limits
from orchestrator.web.openapi import DescribedApp
from orchestrator.web.parts import Parts
from orchestrator.web.problems import install_problems

# All that needs a key. approvals first: `/workflows/pending` is not a workflow.
_ROUTERS = (
    approvals.router,
    workflows.router,
    stream.router,
    waiting.router,
    admin.router,
    delegations.router,
    policies.router,
    audit.router,
    agui.router,
    progress.router,
    sessions.router,
    feeds.router,
    cases.router,
    inbox.router,
    *langgraph_api.routers,
)


def create_app(settings: Settings, *, context: Context | None = None, clock: Clock = database_clock) -> FastAPI:
    """The API over `context`, or over a database of its own that it opens from `settings` when it starts.

    Raises InvalidInput when there is neither, and InvalidDocument when a configuration file is wrong.
    """
    redact.configure(settings.secret_key_names)
    owned = context is None
    if context is None:
        context = Context(_database(settings), load_governance(settings.config_dir), clock)
    telemetry = Telemetry()
    hub = Hub(context.db, context.horizon)
    parts = Parts(settings, context, Keyring(context), hub, telemetry, Counting(context, telemetry))

    # No interactive pages: they load their scripts from elsewhere.
    app = DescribedApp(
        title="Keyturn",
        version=version("keyturn"),
        lifespan=lambda _app: _open(parts, owned=owned),
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    app.state.parts = parts
    app.include_router(health.router)
    # A link is its own credential.
    app.include_router(links.router)
    for router in _ROUTERS:
        app.include_router(router, dependencies=[Depends(authenticated)])
    install_problems(app)
    app.add_middleware(Limits)
    app.add_middleware(Measured, telemetry=telemetry)
    if settings.browser_origins:
        # A key is sent by a script that knows it; no cookie of ours goes along by itself.
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.browser_origins, allow_methods=["*"], allow_headers=["*"],
            expose_headers=["Content-Location", "Location", "Retry-After"],
        )  # fmt: skip
    return app


@contextlib.asynccontextmanager
async def _open(parts: Parts, *, owned: bool) -> AsyncGenerator[None]:
    """Listen while the application runs; a database of its own (`owned`) is opened and closed with it."""
    if owned:
        # Not waited for: a process that starts before its database answers 503 until that is there.
        await parts.context.db.pool.open()
    listening = asyncio.create_task(parts.hub.run(), name="hub")
    try:
        yield
    finally:
        parts.hub.stop()
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        if owned:
            await parts.context.db.close()


def stop_streams(app: FastAPI) -> None:
    """Let every live stream end: a server that is to stop waits for its connections."""
    parts: Parts = app.state.parts
    parts.hub.stop()


class Measured:
    """ASGI middleware that counts answers and times how long each took to begin."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note when its answer begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                seconds = time.perf_counter() - began
                self._telemetry.answered(str(scope["method"]), _route(scope), int(message["status"]), seconds)
            await send(message)

        await self._app(scope, receive, noting)


def _route(scope: Scope) -> str:
    route: Any = scope.get("route")
    return str(getattr(route, "path", "unmatched"))


def _operation_id(route: APIRoute) -> str:
    return f"{route.tags[0] if route.tags else 'other'}_{route.name}"


def _database(settings: Settings) -> Database:
    return Database(
        settings.require_database_url(),
        min_size=settings.pool_min,
        max_size=settings.pool_max,
        timeout=settings.pool_timeout_seconds,
        connect_seconds=settings.connect_timeout_seconds,
        statement_seconds=settings.statement_timeout_seconds,
    )
