"""Messages are queued with what causes them, sent once to the eye of whoever reads them, and never lost in silence."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chores.message import Link
from orchestrator.chores.notify import LEASE, Notifier
from tests.chores.receivers import Answer, LinearWorkspace, SlackWorkspace, mail_server, plain_text, receiving
from tests.chores.telling import CANARY, ENVIRONMENT, SECRET, hook, mail, states, telling


async def test_a_transaction_that_rolls_back_queues_nothing(database_url: str, tmp_path: Path) -> None:
    with receiving() as receiver:
        async with telling(database_url, tmp_path, hook(receiver.url), ENVIRONMENT) as told:
            await told.notice("requested", commit=False)
            assert await told.rows("SELECT 1 FROM keyturn.notices") == []
            assert await told.jobs() == 0
            await told.notice("requested")
            assert len(await told.rows("SELECT 1 FROM keyturn.notices")) == 1
            assert await told.jobs() == 1


async def test_a_worker_sends_a_queued_message_at_once(database_url: str, tmp_path: Path) -> None:
    with receiving() as receiver:
        async with telling(database_url, tmp_path, hook(receiver.url), ENVIRONMENT) as told, told.keyturn.working():
            # Once the worker's chores are up, so that what follows is heard of by NOTIFY.
            await told.notice("requested")

            async def first() -> bool:
                return await states(told) == [("requested", "sent")]

            await told.until(first)
            await told.notice("reminder")

            async def second() -> bool:
                return ("reminder", "sent") in await states(told)

            # Far sooner than the fallback that looks for jobs every five seconds.
            await told.until(second, 2.5)
            assert len(receiver.requests) == 2
            assert [event["body"]["kind"] for event in await told.events("notification-sent")] == [
                "requested",
                "reminder",
            ]
            done = await told.rows("SELECT 1 FROM procrastinate.procrastinate_jobs WHERE queue_name = 'notifications'"
                                   " AND status NOT IN ('succeeded', 'doing')")  # fmt: skip
            assert done == []


async def test_a_receiver_that_was_down_gets_every_message_once_and_in_order(database_url: str, tmp_path: Path) -> None:
    with receiving() as receiver:
        async with telling(database_url, tmp_path, hook(receiver.url), ENVIRONMENT) as told:
            receiver.troubles = [Answer(status=500), Answer(status=503), Answer(lost=True)]
            await told.notice("requested")
            await told.notice("settled")
            await told.run()
            assert await states(told) == [("requested", "sent"), ("settled", "sent")]
            taken = list(receiver.requests[2:])
            # The third was taken although its answer was lost; its repetition has the same id.
            assert [one.json["type"] for one in taken] == ["approval.requested"] * 2 + ["approval.settled"]
            ids = [one.headers["webhook-id"] for one in taken]
            assert ids[0] == ids[1] != ids[2]
            (sent, _) = await told.events("notification-sent")
            assert sent["body"]["attempts"] == 4
            assert await told.events("notification-failed") == []


async def test_nothing_listens_for_a_while_and_then_the_message_arrives(database_url: str, tmp_path: Path) -> None:
    with receiving() as receiver:
        url, port = receiver.url, receiver.port
    async with telling(database_url, tmp_path, hook(url), ENVIRONMENT) as told:
        await told.notice("requested")
        await told.step()
        (row,) = await told.deliveries()
        assert (row["state"], row["attempts"]) == ("queued", 1)
        assert row["last_error"] == "127.0.0.1: ConnectError"
        assert 3.7 <= (row["next_at"] - told.now).total_seconds() <= 6.3
        await told.step()  # not due yet
        assert (await told.deliveries())[0]["attempts"] == 1
        told.later(10)
        with receiving(port=port) as receiver:
            await told.step()
            assert len(receiver.requests) == 1
        assert await states(told) == [("requested", "sent")]


async def test_an_attempt_that_was_cut_off_is_repeated_after_its_lease_under_the_same_id(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver:
        async with telling(database_url, tmp_path, hook(receiver.url), ENVIRONMENT) as told:
            await told.notice("requested")
            await told.notifier.fan_out(told.workflow_id)
            (row,) = await told.deliveries()

            async def dies(*_: object) -> None:
                raise KeyboardInterrupt

            # The message has been taken, and the worker dies before it can say so.
            monkeypatch.setattr(Notifier, "_sent", dies)
            with pytest.raises(KeyboardInterrupt):
                await told.notifier.deliver(row["delivery_id"], row["channel"])
            monkeypatch.undo()
            again = await told.notifier.deliver(row["delivery_id"], row["channel"])
            assert again == told.now + LEASE
            assert len(receiver.requests) == 1
            assert again is not None
            told.now = again
            assert await told.notifier.deliver(row["delivery_id"], row["channel"]) is None
            assert len({one.headers["webhook-id"] for one in receiver.requests}) == 1
            assert await states(told) == [("requested", "sent")]


async def test_a_delivery_is_dead_after_its_last_attempt_and_says_so(database_url: str, tmp_path: Path) -> None:
    with receiving(lambda _: Answer(status=500)) as receiver:
        async with telling(database_url, tmp_path, hook(receiver.url), ENVIRONMENT, notify_attempts=4) as told:
            await told.notice("requested")
            await told.run()
            (row,) = await told.deliveries()
            assert (row["state"], row["attempts"], row["last_error"]) == ("dead", 4, "127.0.0.1 answered 500")
            assert len(receiver.requests) == 4
            (failed,) = await told.events("notification-failed")
            assert failed["body"]["request_id"] == told.approval_id
            assert failed["body"]["error"] == "127.0.0.1 answered 500"
            # A dead delivery does not hold up the next one.
            await told.notice("settled")
            receiver.respond = lambda _: Answer()
            await told.run()
            assert await states(told) == [("requested", "dead"), ("settled", "sent")]


async def test_the_back_off_doubles_with_some_chance_and_obeys_retry_after(database_url: str, tmp_path: Path) -> None:
    answers = [Answer(status=500)] * 4 + [Answer(status=429, headers={"Retry-After": "600"})]
    with receiving() as receiver:
        async with telling(database_url, tmp_path, hook(receiver.url), ENVIRONMENT, notify_backoff_seconds=8) as told:
            receiver.troubles = list(answers)
            await told.notice("requested")
            await told.notifier.fan_out(told.workflow_id)
            waits: list[float] = []
            for _ in answers:
                await told.step()
                (row,) = await told.deliveries()
                waits.append((row["next_at"] - told.now).total_seconds())
                told.now = row["next_at"]
            for wait, middle in zip(waits[:4], (8, 16, 32, 64), strict=True):
                assert middle * 0.75 <= wait <= middle * 1.25
            assert waits[4] == pytest.approx(600, abs=1)


async def test_fanning_out_twice_writes_nothing_twice(database_url: str, tmp_path: Path) -> None:
    with receiving() as receiver:
        async with telling(database_url, tmp_path, hook(receiver.url), ENVIRONMENT) as told:
            await told.notice("requested")
            await told.notifier.fan_out(told.workflow_id)
            await told.notifier.fan_out(told.workflow_id)
            await told.rows("UPDATE keyturn.notices SET fanned_at = NULL RETURNING 1")
            await told.notifier.fan_out(told.workflow_id)
            assert len(await told.deliveries()) == 1


async def test_lost_jobs_are_made_again(database_url: str, tmp_path: Path) -> None:
    with receiving() as receiver:
        async with telling(database_url, tmp_path, hook(receiver.url), ENVIRONMENT) as told:
            await told.notice("requested")
            assert await told.notifier.late() == ([], [])
            told.later(301)
            assert await told.notifier.late() == ([told.workflow_id], [])
            await told.notifier.fan_out(told.workflow_id)
            told.later(301)
            (row,) = await told.deliveries()
            assert await told.notifier.late() == ([], [(row["delivery_id"], row["channel"])])


async def test_whoever_settles_knows_and_the_requester_and_the_others_are_told(
    database_url: str, tmp_path: Path
) -> None:
    with mail_server() as mailbox:
        async with telling(database_url, tmp_path, mail(mailbox.port)) as told:
            assert await told.keyturn.approve(told.workflow_id, "tara") == "resolved"
            await told.notice("settled")
            await told.run()
            assert sorted(str(one["To"]).partition("@")[0] for one in mailbox.mails) == ["rita", "theo", "tom"]
            assert mailbox.mails[0]["Subject"] == "Approved: deploy in production"
            assert "approved by tara" in plain_text(mailbox.mails[0])


async def test_a_secret_in_the_arguments_is_in_no_message_row_or_log(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    slack, tickets = SlackWorkspace(), LinearWorkspace()

    def both(request: Any) -> Answer:
        if "graphql" in request.path:
            return tickets(request)
        return slack(request) if "/api/" in request.path else Answer()

    with receiving(both) as receiver, mail_server() as mailbox:
        url = receiver.url
        guard = "allow_private: true, allow_http: true"
        channels = f"""
channels:
  hook: {{type: webhook, url: "{url}/in", secrets: ["env:HOOK_SECRET"], {guard}}}
  slack: {{type: slack, token: "env:SLACK_TOKEN", channel: C1, api: "{url}/api", {guard}}}
  tickets: {{type: linear, key: "env:LINEAR_KEY", team: OPS, url: "{url}/graphql", {guard}}}
  mail: {{type: email, host: 127.0.0.1, port: {mailbox.port}, security: none, from: k@example.org}}
  other: {{type: apprise, url: "env:APPRISE_URL"}}
routes: [{{channels: [hook, slack, tickets, mail, other]}}]
"""
        environment = {**ENVIRONMENT, "APPRISE_URL": f"json://127.0.0.1:{receiver.port}/apprise"}
        arguments = {"db": {"password": CANARY}, "command": f"deploy --key {CANARY}", "version": "1.2"}
        async with telling(database_url, tmp_path, channels, environment, arguments=arguments) as told:
            receiver.troubles = [Answer(status=500)]
            mailbox.refusals = ["421 busy"]
            for kind in ("requested", "reminder", "settled", "break_glass", "unroutable"):
                await told.notice(kind, justification=f"it is {CANARY}")
            await told.run(200)
            assert {row["state"] for row in await told.deliveries()} == {"sent"}
            sent = b"".join(one.body for one in receiver.requests) + b"".join(mailbox.raw)
            shown = "".join(str(one) for one in mailbox.mails)
            assert b"1.2" in sent
            assert CANARY.encode() not in sent
            assert CANARY not in shown + "".join(plain_text(one) for one in mailbox.mails)
            rows = await told.rows("SELECT row_to_json(d)::text AS row FROM keyturn.deliveries d"
                                   " UNION ALL SELECT row_to_json(j)::text FROM procrastinate.procrastinate_jobs j"
                                   " UNION ALL SELECT body::text FROM keyturn.events")  # fmt: skip
            kept = json.dumps(rows)
            for private in (CANARY, "xoxb-very-private", "lin_api_very_private", SECRET):
                assert private not in kept
                assert private not in caplog.text


async def test_signed_links_go_to_one_person_who_may_decide_and_are_kept_nowhere(
    database_url: str, tmp_path: Path
) -> None:
    asked: list[Link] = []

    async def links(link: Link) -> str:
        asked.append(link)
        return f"https://k.example/links/{link.person}-{link.verdict}" if link.verdict else "https://k.example/page"

    with mail_server() as mailbox, receiving() as receiver:
        channels = f"""
channels:
  mail: {{type: email, host: 127.0.0.1, port: {mailbox.port}, security: none, from: k@example.org}}
  hook: {{type: webhook, url: "{receiver.url}", secrets: ["env:HOOK_SECRET"], allow_private: true, allow_http: true}}
routes: [{{channels: [mail, hook]}}]
"""
        async with telling(database_url, tmp_path, channels, ENVIRONMENT, links=links) as told:
            await told.notice("requested")
            await told.run()
            mails = {str(one["To"]): plain_text(one) for one in mailbox.mails}
            assert "Approve:      https://k.example/links/tom-approve" in mails["tom@example.org"]
            assert "links/tom" not in mails["tara@example.org"]
            assert "links/" not in receiver.requests[0].body.decode()
            wanted = next(link for link in asked if link.person == "tom")
            assert (wanted.approval_id, wanted.revision) == (told.approval_id, 1)
            assert wanted.expires_at is not None
            assert "links/" not in json.dumps(
                await told.rows("SELECT row_to_json(d)::text AS d FROM keyturn.deliveries d")
            )
            mailbox.mails.clear()
            # Nothing is left to decide: no link that decides.
            await told.keyturn.approve(told.workflow_id)
            await told.notice("reminder")
            await told.run()
            for mail_ in mailbox.mails:
                assert "links/" not in plain_text(mail_)


async def test_a_route_tells_by_kind_level_role_and_environment(database_url: str, tmp_path: Path) -> None:
    with receiving() as receiver:
        routes = """
  other: {type: apprise, url: "env:OTHER"}
routes:
  - {channels: [hook], kinds: [settled]}
  - {channels: [hook], levels: [critical]}
  - {channels: [hook], roles: [cto]}
  - {channels: [hook], environments: ["staging*"]}
  - {channels: [hook], namespaces: [elsewhere]}
"""
        environment = {**ENVIRONMENT, "OTHER": "json://127.0.0.1:9"}
        async with telling(database_url, tmp_path, hook(receiver.url, routes), environment) as told:
            await told.notice("requested")
            await told.run()
            assert await told.deliveries() == []
            await told.notice("escalated", roles=["cto", "tech_lead"])
            await told.run()
            (row,) = await told.deliveries()
            assert row["people"] == ["cleo", "tara", "theo"]
