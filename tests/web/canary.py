"""A whole Keyturn for one test: `keyturn serve` and `keyturn worker` as processes, channels of every kind with their
receivers on real sockets, and a record of everything that any of them showed to anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from psycopg import sql

from orchestrator.service import identity
from orchestrator.wire import KeyRequest, PersonRequest
from tests.chores.receivers import (
    Answer,
    LinearWorkspace,
    Mailbox,
    Receiver,
    Request,
    SlackWorkspace,
    mail_server,
    receiving,
)
from tests.chores.telling import ENVIRONMENT, GUARD, write_config
from tests.harness import APPS, PEOPLE, Keyturn, caller, running
from tests.web.edge import ALL
from tests.web.test_cli import keyturn_command

PROJECT = Path(__file__).resolve().parents[2]
CONTENT_COLUMNS = b"""
SELECT c.table_schema, c.table_name, c.column_name, c.data_type
  FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
 WHERE t.table_type = 'BASE TABLE' AND c.table_schema NOT IN ('pg_catalog', 'information_schema')
"""
COUNT_BYTES = sql.SQL("SELECT count(*) AS n FROM {} WHERE position(convert_to(%s, 'UTF8') IN {}) > 0")
COUNT_TEXT = sql.SQL("SELECT count(*) AS n FROM {} WHERE position(%s IN {}::text) > 0")


@dataclass
class Whole:
    """The running processes and what they said. `shown` is each thing told, by where it was told."""

    keyturn: Keyturn
    url: str
    folder: Path
    receiver: Receiver
    mailbox: Mailbox
    logs: Mapping[str, Path]
    keys: dict[str, str] = field(default_factory=dict[str, str])
    shown: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    async def key(self, person: str) -> str:
        if person not in self.keys:
            request = KeyRequest(person=person, permissions=ALL)
            self.keys[person] = (await identity.create_key(self.keyturn.ctx, caller("root"), request)).key
        return self.keys[person]

    async def call(self, person: str, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        """One request, whose answer is kept."""
        headers = {"Authorization": f"Bearer {await self.key(person)}", **headers}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20, trust_env=False) as http:
            answer = await http.request(method, path, json=body)
        self.shown.append((f"{method} {path}", answer.text))
        return answer

    async def post(self, who: str, path: str, status: int = 200, /, **body: object) -> dict[str, Any]:
        """POST that must be answered with `status`."""
        answer = await self.call(who, "POST", path, body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def command(self, person: str, *words: str) -> None:
        """Run the command line; it may well fail."""
        environment = {"KEYTURN_URL": self.url, "KEYTURN_KEY": await self.key(person)}
        done = await keyturn_command(*words, cwd=self.folder, **environment)
        self.shown.append((f"keyturn {' '.join(words)}", done.out + done.err))

    async def submit(self, graph: str, /, **body: object) -> tuple[str, str]:
        """The workflow, once it is there, and what waits of it for a decision."""
        made = await self.post("rita", "/workflows", 201, graph=graph, **body)
        found = await self.keyturn.until(made["workflow_id"], "waiting")
        return found.workflow_id, found.approvals[0].approval_id

    async def due(self, approval_id: str, column: str, event: str) -> None:
        """Have time come for something, and wait until it is done."""
        async with self.keyturn.ctx.db.connection() as conn:
            past = sql.SQL("UPDATE keyturn.approvals SET {} = now() - interval '1 second' WHERE approval_id = %s")
            await conn.execute(past.format(sql.Identifier(column)), [approval_id])
        found = b"SELECT FROM keyturn.events WHERE type = %s AND body ->> 'request_id' = %s"
        await self._until(found, event, approval_id)

    async def told(self) -> None:
        """Wait until everybody was told of everything."""
        waits = b"""SELECT WHERE NOT EXISTS (SELECT FROM keyturn.notices WHERE fanned_at IS NULL)
                      AND NOT EXISTS (SELECT FROM keyturn.deliveries WHERE state = 'queued')"""
        await self._until(waits)

    async def _until(self, statement: bytes, *values: object) -> None:
        ctx = self.keyturn.ctx
        async with asyncio.timeout(90), ctx.db.listener("keyturn_events") as listening:
            while True:
                async with ctx.db.connection() as conn:
                    if (await conn.execute(statement, values or None)).rowcount:
                        return
                async for _ in listening.notifies(timeout=0.3, stop_after=1):
                    break

    async def kinds(self) -> set[str]:
        """The kinds of message that were sent."""
        async with self.keyturn.ctx.db.connection() as conn:
            rows = await conn.execute(
                b"SELECT DISTINCT n.kind FROM keyturn.notices n JOIN keyturn.deliveries d USING (notice_id)"
                b" WHERE d.state = 'sent'"
            )
            return {row["kind"] for row in await rows.fetchall()}

    def sent(self) -> list[tuple[str, str]]:
        """All that the receivers were told, and what the processes logged."""
        requests = [(one.path, f"{one.headers} {one.body.decode()}") for one in self.receiver.requests]
        mails = [("mail", str(one)) for one in self.mailbox.mails]
        parts = [("mail", part.get_content()) for one in self.mailbox.mails for part in one.walk()
                 if part.get_content_maintype() == "text"]  # fmt: skip
        return [*requests, *mails, *parts, *((name, file.read_text()) for name, file in self.logs.items())]

    async def columns_with(self, text: str) -> dict[str, int]:
        """How many rows hold `text`, by column, in all tables of the database."""
        found: dict[str, int] = {}
        async with self.keyturn.ctx.db.connection() as conn:
            for row in await (await conn.execute(CONTENT_COLUMNS)).fetchall():
                count = COUNT_BYTES if row["data_type"] == "bytea" else COUNT_TEXT
                table = sql.Identifier(row["table_schema"], row["table_name"])
                counted = await conn.execute(count.format(table, sql.Identifier(row["column_name"])), [text])
                one = await counted.fetchone()
                if one and one["n"]:
                    found[f"{row['table_schema']}.{row['table_name']}.{row['column_name']}"] = one["n"]
        return found


def channels(url: str, port: int) -> str:
    return f"""
channels:
  hook: {{type: webhook, url: "{url}/in", secrets: ["env:HOOK_SECRET"], {GUARD}}}
  slack: {{type: slack, token: "env:SLACK_TOKEN", channel: C1, api: "{url}/api", {GUARD}}}
  tickets: {{type: linear, key: "env:LINEAR_KEY", team: OPS, url: "{url}/graphql", {GUARD}}}
  mail: {{type: email, host: 127.0.0.1, port: {port}, security: none, from: k@example.org}}
  other: {{type: apprise, url: "env:APPRISE_URL"}}
routes: [{{channels: [hook, slack, tickets, mail, other]}}]
"""


def receivers() -> Any:
    """Answers of all kinds of HTTP receivers; the first request at each address is refused with what it said itself."""
    slack, tickets, seen = SlackWorkspace(), LinearWorkspace(), set[str]()

    def answer(request: Request) -> Answer:
        if request.path not in seen:
            seen.add(request.path)
            return Answer(status=500, body={"errors": [{"message": request.body.decode()}]})
        if "graphql" in request.path:
            return tickets(request)
        return slack(request) if "/api/" in request.path else Answer()

    return answer


@contextlib.asynccontextmanager
async def process(log: Path, environment: Mapping[str, str], *words: str) -> AsyncGenerator[dict[str, Any]]:
    """A command of Keyturn's, running while the block runs; yields what it says of itself when it has started."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    with log.open("wb") as errors:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "orchestrator.cli", *words, "--json", cwd=PROJECT, env={**clean, **environment},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        assert child.stdout is not None
        try:
            line = await asyncio.wait_for(child.stdout.readline(), 40)
            assert line, log.read_text()
            yield json.loads(line)
        finally:
            if child.returncode is None:
                child.terminate()
            await asyncio.wait_for(child.wait(), 20)


@contextlib.asynccontextmanager
async def whole(database_url: str, folder: Path) -> AsyncGenerator[Whole]:
    """Everything, running while the block runs."""
    with receiving(receivers()) as receiver, mail_server() as mailbox:
        config = write_config(folder, channels(receiver.url, mailbox.port))
        app = APPS / "canary.json"
        environment = {
            **ENVIRONMENT, "APPRISE_URL": f"json://127.0.0.1:{receiver.port}/apprise", "KEYTURN_LOG_LEVEL": "debug",
            "KEYTURN_DATABASE_URL": database_url, "KEYTURN_CONFIG_DIR": str(config), "KEYTURN_APP": str(app),
            "KEYTURN_NOTIFY_BACKOFF_SECONDS": "0.1", "KEYTURN_PORT": "0", "PYTHONPATH": str(PROJECT),
            "KEYTURN_DATA_DIR": str(folder),
        }  # fmt: skip
        logs = {name: folder / f"{name}.log" for name in ("api", "worker")}
        async with running(database_url, app=app) as keyturn:
            for person, roles in PEOPLE.items():
                request = PersonRequest(person=person, roles=roles, email=f"{person}@example.org")
                await identity.put_person(keyturn.ctx, caller("root"), request)
            async with (
                process(logs["api"], environment, "serve") as api,
                process(logs["worker"], environment, "worker"),
            ):
                yield Whole(keyturn, api["url"], folder, receiver, mailbox, logs)
