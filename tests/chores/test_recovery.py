"""Chores outlive the workers that took them, tell delegates too, and their statements have their indexes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import pytest
from procrastinate.exceptions import AlreadyEnqueued

from orchestrator.chores import app as chores
from orchestrator.chores.notify import PAUSE
from orchestrator.store import notices
from orchestrator.store.db import Database
from tests.chores.receivers import Answer, mail_server, receiving
from tests.chores.telling import ENVIRONMENT, GUARD, hook, mail, states, telling


async def rescue_soon(database_url: str) -> None:
    """Have the next worker look for what was lost, where that does not wait already: it is done every minute."""
    app = chores.make_app(database_url)
    async with app.open_async():
        with contextlib.suppress(AlreadyEnqueued):
            await app.configure_task(chores.RESCUE, queueing_lock=chores.RESCUE).defer_async(timestamp=0)


async def test_a_job_of_a_dead_worker_is_put_back_and_its_message_sent(database_url: str, tmp_path: Path) -> None:
    with receiving() as receiver:
        async with telling(database_url, tmp_path, hook(receiver.url), ENVIRONMENT) as told:
            await told.notice("requested")
            # Whoever took the job has not been heard of since.
            await told.rows(
                "UPDATE procrastinate.procrastinate_jobs SET status = 'doing'"
                " WHERE task_name = 'keyturn:fan-out' RETURNING id"
            )
            await rescue_soon(database_url)
            async with told.keyturn.working():

                async def sent() -> bool:
                    return await states(told) == [("requested", "sent")]

                await told.until(sent)
            assert len(receiver.requests) == 1


async def test_notices_and_deliveries_whose_jobs_are_gone_are_sent_all_the_same(
    database_url: str, tmp_path: Path
) -> None:
    with receiving() as receiver:
        async with telling(database_url, tmp_path, hook(receiver.url), ENVIRONMENT) as told:
            told.later(-900)
            await told.notice("requested")
            await told.rows("DELETE FROM procrastinate.procrastinate_jobs RETURNING id")
            await rescue_soon(database_url)
            async with told.keyturn.working():

                async def sent() -> bool:
                    return await states(told) == [("requested", "sent")]

                await told.until(sent)


async def test_a_worker_that_stops_leaves_its_delivery_to_the_next(database_url: str, tmp_path: Path) -> None:
    taken = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            taken.set()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, telling(database_url, tmp_path, hook(url), ENVIRONMENT) as told:
        await told.notice("requested")
        async with told.keyturn.working():
            async with asyncio.timeout(20):
                await taken.wait()
        (row,) = await told.deliveries()
        assert row["state"] == "queued"
        # Its job waits: for the next worker, or for who puts back what a dead one had.
        left = await told.rows(
            "SELECT 1 FROM procrastinate.procrastinate_jobs WHERE task_name = 'keyturn:deliver'"
            " AND status IN ('todo', 'doing')"
        )
        assert len(left) == 1


async def test_who_stands_in_for_an_approver_is_told_too(database_url: str, tmp_path: Path) -> None:
    with mail_server() as mailbox:
        async with telling(database_url, tmp_path, mail(mailbox.port)) as told:
            await told.rows(
                "INSERT INTO keyturn.people (namespace, person, email) VALUES ('default', 'root', 'root@example.org')"
                " RETURNING 1"
            )
            for principal, delegate, age in (("tom", "cleo", "0"), ("theo", "rita", "0"), ("tara", "root", "2 days")):
                await told.rows(
                    "INSERT INTO keyturn.delegations (namespace, delegation_id, from_person, to_person, starts_at,"
                    " ends_at, created_by, created_at) VALUES ('default', %s, %s, %s, now() - interval '3 days',"
                    " now() + interval '1 day' - %s::interval, 'root', now()) RETURNING 1",
                    principal, principal, delegate, age,
                )  # fmt: skip
            await told.notice("requested")
            await told.run()
            assert {row["recipient"] for row in await told.deliveries()} == {"cleo", "tara", "theo", "tom"}


STATEMENTS = [
    "WAITING", "ADDRESSES", "ADMINS", "CLAIM", "AGAIN", "SUBJECT", "SENT", "FAILED", "WAKE_NEXT", "LATE_NOTICES",
    "LATE_DELIVERIES", "OF_APPROVAL",
]  # fmt: skip


@pytest.mark.parametrize("name", STATEMENTS)
async def test_every_statement_has_an_index(database_url: str, name: str) -> None:
    values: dict[str, str] = {
        "people": "ARRAY['a']", "now": "now()", "lease": "interval '1 minute'", "pause": "interval '1 minute'",
        "late": "interval '1 minute'", "notice": "1", "attempts": "1", "last": "false", "first": "1", "longest": "1",
        "asked": "1",
    }  # fmt: skip
    statement = re.sub(r"%\((\w+)\)s", lambda found: values.get(found[1], "'x'"), getattr(notices, name))
    db = Database(database_url, min_size=1, max_size=1)
    await db.open()
    try:
        async with db.connection() as conn:
            rows = await (await conn.execute(f"EXPLAIN {statement}".encode())).fetchall()
    finally:
        await db.close()
    plan = "\n".join(row["QUERY PLAN"] for row in rows)
    assert "Index" in plan
    assert "Seq Scan" not in plan


async def test_a_receiver_that_hangs_does_not_hold_up_the_other_channels(database_url: str, tmp_path: Path) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with receiving() as receiver:
            channels = f"""
channels:
  stuck: {{type: webhook, url: "http://127.0.0.1:{port}", secrets: ["env:HOOK_SECRET"], {GUARD}}}
  hook: {{type: webhook, url: "{receiver.url}", secrets: ["env:HOOK_SECRET"], {GUARD}}}
routes: [{{channels: [stuck, hook]}}]
"""
            async with telling(database_url, tmp_path, channels, ENVIRONMENT, notify_timeout_seconds=0.2) as told:
                notifier = told.notifier
                await told.notice("requested")
                await told.step()
                assert notifier.failing == {"stuck"}
                notifier.running["stuck"] = 2
                told.later(60)
                (stuck,) = [row for row in await told.deliveries() if row["channel"] == "stuck"]
                assert await notifier.deliver(stuck["delivery_id"], "stuck") == told.now + PAUSE
                (stuck,) = [row for row in await told.deliveries() if row["channel"] == "stuck"]
                assert stuck["attempts"] == 1
                assert {row["channel"]: row["state"] for row in await told.deliveries()} == {
                    "stuck": "queued", "hook": "sent",
                }  # fmt: skip


async def test_what_waits_behind_a_failed_message_is_looked_at_when_that_is_due(
    database_url: str, tmp_path: Path
) -> None:
    with receiving() as receiver:
        channels = hook(receiver.url)
        async with telling(database_url, tmp_path, channels, ENVIRONMENT, notify_backoff_seconds=600) as told:
            receiver.troubles = [Answer(status=500)]
            await told.notice("requested")
            await told.step()
            await told.notice("settled")
            await told.notifier.fan_out(told.workflow_id)
            first, second = await told.deliveries()
            assert await told.notifier.deliver(second["delivery_id"], "hook") == first["next_at"]
            told.now = first["next_at"]
            before = await told.jobs()
            assert await told.notifier.deliver(first["delivery_id"], "hook") is None
            # The second is woken as soon as the first has arrived.
            assert await told.jobs() == before + 1


async def test_a_worker_repeats_a_failed_attempt_when_it_is_due_and_leaves_no_job_behind(
    database_url: str, tmp_path: Path
) -> None:
    with receiving() as receiver:
        async with telling(database_url, tmp_path, hook(receiver.url), ENVIRONMENT, notify_backoff_seconds=0.1) as told:
            receiver.troubles = [Answer(status=500)]
            async with told.keyturn.working():
                await told.notice("requested")

                async def sent() -> bool:
                    return await states(told) == [("requested", "sent")]

                await told.until(sent)

                async def tidy() -> bool:
                    return not await told.rows(
                        "SELECT 1 FROM procrastinate.procrastinate_jobs WHERE queue_name = 'notifications'"
                    )

                await told.until(tidy)
            assert len({one.headers["webhook-id"] for one in receiver.requests}) == 1
            assert [row["attempts"] for row in await told.deliveries()] == [2]
