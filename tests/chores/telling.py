"""A Keyturn that tells people, for tests: its configuration, an approval to tell of, and a clock that tests move."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from orchestrator.chores.app import make_notifier
from orchestrator.chores.guarded_http import Resolver, system_resolver
from orchestrator.chores.message import Links
from orchestrator.chores.notify import Notifier
from orchestrator.service import identity
from orchestrator.store import notices
from orchestrator.wire import PersonRequest
from tests.harness import PEOPLE, Keyturn, caller, running

CONFIG = Path(__file__).resolve().parents[2] / "config"
CANARY = "canary-8f3b1c-do-not-tell"
GUARD = "allow_private: true, allow_http: true"
SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
ENVIRONMENT = {
    "HOOK_SECRET": SECRET, "SLACK_TOKEN": "xoxb-very-private", "LINEAR_KEY": "lin_api_very_private",
}  # fmt: skip


def hook(url: str, more: str = "") -> str:
    return f"""
channels:
  hook:
    type: webhook
    url: {url}/in
    secrets: [env:HOOK_SECRET]
    allow_private: true
    allow_http: true
{more or "routes: [{channels: [hook]}]"}
"""


def bot(url: str) -> str:
    return f"""
channels:
  slack: {{type: slack, token: "env:SLACK_TOKEN", channel: C1, api: "{url}/api", allow_private: true, allow_http: true}}
routes: [{{channels: [slack]}}]
"""


def linear(url: str) -> str:
    return f"""
channels:
  tickets: {{type: linear, key: "env:LINEAR_KEY", team: OPS, url: "{url}/graphql", {GUARD}}}
routes: [{{channels: [tickets]}}]
"""


def mail(port: int, more: str = "") -> str:
    return f"""
channels:
  mail: {{type: email, host: 127.0.0.1, port: {port}, security: none, from: Keyturn <keyturn@example.org>{more}}}
routes: [{{channels: [mail]}}]
"""


@dataclass
class Telling:
    """A Keyturn with one waiting approval, and the notifier that serves it. `now` is its clock."""

    keyturn: Keyturn
    notifier: Notifier
    workflow_id: str
    approval_id: str
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def notice(self, kind: str, *, commit: bool = True, **data: object) -> None:
        """Queue a notice as whoever decides does: in a transaction, by SQL."""
        given = json.dumps([{"kind": kind, "approval_id": self.approval_id, "data": data}])
        with contextlib.suppress(_RolledBackError):
            async with self.keyturn.ctx.db.transaction() as conn:
                await conn.execute(
                    "SELECT keyturn.queue_notices(%s, 'default', %s, %s)", [self.workflow_id, self.now, given]
                )
                if not commit:
                    raise _RolledBackError

    async def run(self, rounds: int = 50) -> None:
        """Do what is due, then move the clock to what is due next, until nothing is left."""
        await self.notifier.fan_out(self.workflow_id)
        for _ in range(rounds):
            queued = [row for row in await self.deliveries() if row["state"] == "queued"]
            if not queued:
                return
            # Of several for one place the later ones wait for the first.
            due = list({(row["channel"], row["recipient"]): row for row in reversed(queued)}.values())
            first = min(row["next_at"] for row in due)
            self.now = max(self.now, first)
            for row in due:
                if row["next_at"] <= self.now:
                    await self.notifier.deliver(row["delivery_id"], row["channel"])
        message = f"still queued after {rounds} rounds"
        raise AssertionError(message)

    async def step(self) -> None:
        """One attempt at each delivery that is due at the present instant."""
        await self.notifier.fan_out(self.workflow_id)
        for row in await self.deliveries():
            await self.notifier.deliver(row["delivery_id"], row["channel"])

    async def deliveries(self) -> list[dict[str, Any]]:
        """All deliveries about the approval."""
        async with self.keyturn.ctx.db.connection() as conn:
            return await notices.deliveries_of(conn, "default", self.approval_id)

    async def events(self, kind: str) -> list[dict[str, Any]]:
        """What the workflow's events of one type say."""
        return await self.rows("SELECT body FROM keyturn.events WHERE type = %s ORDER BY seq", kind)

    async def rows(self, statement: str, *values: object, read: bool = True) -> list[dict[str, Any]]:
        """What a statement gives."""
        async with self.keyturn.ctx.db.connection() as conn:
            found = await conn.execute(statement.encode(), values or None)
            return await found.fetchall() if read else []

    async def jobs(self) -> int:
        """How many chores of ours wait."""
        found = await self.rows("SELECT 1 FROM procrastinate.procrastinate_jobs WHERE status = 'todo'"
                                " AND queue_name = 'notifications'")  # fmt: skip
        return len(found)

    async def until(self, found: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
        """Wait on the event channel until `found` holds."""
        async with asyncio.timeout(seconds), self.keyturn.ctx.db.listener("keyturn_events") as conn:
            while not await found():
                async for _ in conn.notifies(timeout=0.5, stop_after=1):
                    break

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class _RolledBackError(Exception):
    pass


def write_config(folder: Path, channels: str, *, quiet: bool = False) -> Path:
    """The shipped rules with these channels; when `quiet`, nobody is told of anything but what a test queues."""
    shutil.copytree(CONFIG / "hitl", folder / "hitl", dirs_exist_ok=True)
    if quiet:
        rules = folder / "hitl" / "risk-assessment-rules.yaml"
        text = rules.read_text(encoding="utf-8").replace("    approvers:", "    notify: false\n    approvers:")
        rules.write_text(text, encoding="utf-8")
    (folder / "channels.yaml").write_text(channels, encoding="utf-8")
    return folder


@contextlib.asynccontextmanager
async def telling(
    database_url: str,
    folder: Path,
    channels: str,
    environment: Mapping[str, str] | None = None,
    *,
    links: Links | None = None,
    resolver: Resolver = system_resolver,
    arguments: Mapping[str, object] | None = None,
    **overrides: Any,
) -> AsyncGenerator[Telling]:
    """A Keyturn with these channels and a deployment to production that waits for a decision."""
    with patch.dict(os.environ, environment or {}):
        async with running(database_url, config=write_config(folder, channels, quiet=True), **overrides) as keyturn:
            for person, roles in PEOPLE.items():
                request = PersonRequest(person=person, roles=roles, email=f"{person}@example.org")
                await identity.put_person(keyturn.ctx, caller("root"), request)
            workflow_id = await keyturn.submit(
                "governed",
                operation="deploy",
                environment="production",
                arguments=dict(arguments or {"version": "1.2"}),
            )
            async with keyturn.working():
                asked = await keyturn.asked(workflow_id)
            made: list[Telling] = []
            notifier = make_notifier(
                keyturn.ctx.db,
                keyturn.ctx.governance,
                keyturn.settings,
                links=links,
                resolver=resolver,
                clock=lambda: made[0].now,
            )
            made.append(Telling(keyturn, notifier, workflow_id, asked.approval_id))
            yield made[0]


async def states(told: Telling) -> list[tuple[str, str]]:
    return [(row["kind"], row["state"]) for row in await told.deliveries()]
