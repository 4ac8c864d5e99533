"""From a request to whoever is told of it, through the served API and the real worker, and back by a link in a mail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch
from urllib.parse import urlsplit

import psycopg
import pytest

from orchestrator.service import acting, breaking, identity, policies
from orchestrator.wire import BreakGlassRequest, EditRequest, PersonRequest, PolicyText
from tests.chores.receivers import LinearWorkspace, Mailbox, free_port, mail_server, plain_text, receiving
from tests.chores.telling import ENVIRONMENT, GUARD, write_config
from tests.harness import APPS, PEOPLE, Keyturn, caller, running
from tests.web.edge import Edge, served

RISKY: dict[str, Any] = {"operation": "deploy", "environment": "production"}
POLICIES = """
policies:
  - name: staged
    match: action.operation == 'deploy'
    stages: [[{role: team_lead}], [{role: tech_lead}]]
    request_ttl: 8h
    reminders: [10m]
    escalation: {after: 1h, to: [cto]}
    break_glass: {role: cto, review_within: 1d}
"""


def config(mail: int, tickets: str) -> str:
    return f"""
channels:
  mail: {{type: email, host: 127.0.0.1, port: {mail}, security: none, from: Keyturn <keyturn@example.org>}}
  tickets: {{type: linear, key: "env:LINEAR_KEY", team: OPS, url: "{tickets}/graphql", {GUARD}}}
routes: [{{channels: [mail, tickets]}}]
"""


@dataclass
class Clock:
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now


@contextlib.asynccontextmanager
async def governed(database_url: str, folder: Path, channels: str, **more: Any) -> AsyncGenerator[Keyturn]:
    """A Keyturn with these channels, whose people have addresses."""
    where = write_config(folder, channels) if channels else None
    with patch.dict(os.environ, ENVIRONMENT):
        async with running(database_url, config=where, **more) as keyturn:
            for person, roles in PEOPLE.items():
                request = PersonRequest(person=person, roles=roles, email=f"{person}@example.org")
                await identity.put_person(keyturn.ctx, caller("root"), request)
            yield keyturn


async def until(keyturn: Keyturn, holds: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait on the event channel until `holds` does."""
    async with asyncio.timeout(seconds), keyturn.ctx.db.listener("keyturn_events") as conn:
        while not await holds():
            async for _ in conn.notifies(timeout=0.3, stop_after=1):
                break


def to(mailbox: Mailbox, person: str) -> list[EmailMessage]:
    return [mail for mail in mailbox.mails if mail["To"] == f"{person}@example.org"]


async def test_a_link_from_a_mail_decides_and_everybody_else_is_told(database_url: str, tmp_path: Path) -> None:
    tickets, port = LinearWorkspace(), free_port()
    with mail_server() as mailbox, receiving(tickets) as receiver:
        channels = config(mailbox.port, receiver.url)
        address = f"http://127.0.0.1:{port}"
        async with (
            governed(database_url, tmp_path, channels, public_url=address) as keyturn,
            served(keyturn, port=port) as edge,
            keyturn.working(),
        ):
            workflow_id = await keyturn.submit("governed", **RISKY)

            async def asked() -> bool:
                return len(mailbox.mails) == 3 and len(tickets.issues) == 1

            await until(keyturn, asked)
            assert {str(mail["To"]) for mail in mailbox.mails} == {
                f"{one}@example.org" for one in ("tom", "tara", "theo")
            }
            (mail,) = to(mailbox, "tom")
            found = re.search(r"Approve: +(\S+)", plain_text(mail))
            assert found is not None
            path = urlsplit(found[1]).path
            assert found[1] == address + path
            async with edge.http() as scanner:
                assert (await scanner.get(path)).status_code == 200
                assert (await scanner.post(path)).json()["code"] == "token_wrong_user"
            assert (await keyturn.get(workflow_id)).status == "waiting"
            form = {"key": await edge.key("tom"), "justification": "go"}
            async with edge.http() as browser:
                assert (await browser.post(path, data=form)).status_code == 200
                assert (await browser.post(path, data=form)).status_code == 410
            done = await keyturn.until(workflow_id, "completed")
            assert done.approvals[0].resolved_by == "tom"

            async def settled() -> bool:
                return len(mailbox.mails) == 6 and all("state_id" in one for one in tickets.issues.values())

            await until(keyturn, settled)
            later = mailbox.mails[3:]
            assert {str(one["To"]) for one in later} == {f"{one}@example.org" for one in ("rita", "tara", "theo")}
            assert all(one["Subject"] == "Approved: deploy in production" for one in later)
            (issue,) = tickets.issues.values()
            assert issue["state"] == {"type": "completed"}


async def recipients(keyturn: Keyturn, kind: str) -> list[set[str]]:
    """Who got mail of this kind, one set for each time."""
    async with keyturn.ctx.db.connection() as conn:
        found = await conn.execute(
            b"SELECT array_agg(recipient) AS people FROM keyturn.notices n JOIN keyturn.deliveries d USING (notice_id)"
            b" WHERE n.kind = %s AND d.channel = 'mail' AND d.state = 'sent' GROUP BY n.notice_id ORDER BY n.notice_id",
            [kind],
        )
        return [set(row["people"]) for row in await found.fetchall()]


async def test_each_kind_of_message_reaches_those_it_is_for(database_url: str, tmp_path: Path) -> None:
    clock, tickets = Clock(), LinearWorkspace()
    with mail_server() as mailbox, receiving(tickets) as receiver:
        channels = config(mailbox.port, receiver.url)
        async with governed(database_url, tmp_path, channels, app=APPS / "canary.json") as made:
            keyturn = replace(made, ctx=replace(made.ctx, clock=clock))
            ctx = keyturn.ctx
            await policies.publish(ctx, caller("root"), PolicyText(text=POLICIES))

            async def told(kind: str, *groups: set[str]) -> None:
                async def now() -> bool:
                    return await recipients(keyturn, kind) == list(groups)

                try:
                    await until(keyturn, now, 15)
                except TimeoutError:
                    assert (kind, await recipients(keyturn, kind)) == (kind, list(groups))

            async with keyturn.working():
                workflow_id = await keyturn.submit("risky", action=RISKY)
                approval_id = (await keyturn.asked(workflow_id)).approval_id
                await told("requested", {"tom", "tara"})
                edited = EditRequest(action={**RISKY, "target": "db1"})
                await acting.edit(ctx, caller("rita"), approval_id, edited)
                await told("revised", {"tom", "tara", "theo"})
                clock.now += timedelta(minutes=11)
                await told("reminder", {"tom", "tara", "theo"})
                # The first stage is complete: those who decide in the next one are told.
                await keyturn.approve(workflow_id, "tom", revision=2)
                await told("requested", {"tom", "tara"}, {"tara", "theo"})
                clock.now += timedelta(hours=1)
                await told("escalated", {"cleo"})
                glass = BreakGlassRequest(justification="it burns")
                await breaking.break_glass(ctx, caller("cleo"), approval_id, glass)
                await told("break_glass", {"tara", "theo"})
                await told("settled", {"rita", "tom", "tara", "theo"})
                await keyturn.until(workflow_id, "failed", "completed")
                clock.now += timedelta(days=1, minutes=1)
                await told("review_due", {"tom", "tara", "theo"})
            (issue,) = tickets.issues.values()
            assert issue["state"] == {"type": "completed"}
            assert len(tickets.comments) >= 5


async def decided(edge: Edge, keyturn: Keyturn, waiting: list[str]) -> list[float]:
    """Seconds that each decision by the API took."""
    times: list[float] = []
    async with edge.http(await edge.key("tara")) as tara:
        for workflow_id in waiting:
            began = time.perf_counter()
            answer = await tara.post(f"/workflows/{workflow_id}/approve", json={"justification": "go"})
            times.append(time.perf_counter() - began)
            assert answer.json()["code"] == "resolved"
    return times


async def waiting(keyturn: Keyturn, count: int) -> list[str]:
    made = [await keyturn.submit("governed", **RISKY) for _ in range(count)]
    for workflow_id in made:
        await keyturn.asked(workflow_id)
    return made


@contextlib.asynccontextmanager
async def hanging() -> AsyncGenerator[tuple[int, asyncio.Event]]:
    """A port that takes connections and never says anything; the event is set by the first one."""
    taken, ended, held = asyncio.Event(), asyncio.Event(), list[asyncio.Task[None]]()

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(cast("asyncio.Task[None]", asyncio.current_task()))
        taken.set()
        await ended.wait()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], taken
        ended.set()
        await asyncio.gather(*held)


async def test_receivers_that_hang_do_not_make_a_decision_take_longer(database_url: str, tmp_path: Path) -> None:
    async with governed(database_url, tmp_path, "") as keyturn, served(keyturn) as edge, keyturn.working():
        alone = await decided(edge, keyturn, await waiting(keyturn, 20))
    async with hanging() as (port, taken):
        channels = config(port, f"http://127.0.0.1:{port}")
        async with governed(database_url, tmp_path, channels) as keyturn, served(keyturn) as edge, keyturn.working():
            asked = await waiting(keyturn, 20)
            await asyncio.wait_for(taken.wait(), 20)
            stuck = await decided(edge, keyturn, asked)
            assert await recipients(keyturn, "requested") == []
    # Waiting for one attempt would take ten seconds, a thousand times as long.
    assert statistics.median(stuck) < 10 * statistics.median(alone)
    assert max(stuck) < 5


@pytest.mark.parametrize("told", [False, True])
async def test_a_decision_has_as_many_statements_whether_somebody_is_told_or_not(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    port = free_port()
    channels = config(port, f"http://127.0.0.1:{port}") if told else ""
    async with governed(database_url, tmp_path, channels) as keyturn:
        async with keyturn.working():
            (workflow_id,) = await waiting(keyturn, 1)
        sent: list[str] = []
        execute = psycopg.AsyncCursor[Any].execute

        async def counted(self: Any, query: Any, *given: Any, **more: Any) -> Any:
            sent.append(str(query))
            return await execute(self, query, *given, **more)

        monkeypatch.setattr(psycopg.AsyncCursor, "execute", counted)
        await keyturn.approve(workflow_id)
        monkeypatch.undo()
        assert len(sent) == 2, sent
        async with keyturn.ctx.db.connection() as conn:
            written = await conn.execute(b"SELECT FROM keyturn.notices WHERE kind = 'settled'")
            assert written.rowcount == told
