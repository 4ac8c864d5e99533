"""Messages are queued with what causes them, sent once to the eye of whoever reads them, and never lost in silence."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chores.message import Link
from orchestrator.chores.notify import LEASE, Notifier
from tests.chores.receivers import Answer, LinearWorkspace, SlackWorkspace, mail_server, receiving
from tests.chores.telling import CANARY, Telling, telling, until
from tests.harness import caller
from orchestrator.service import identity
from orchestrator.wire import PersonRequest

SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"


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
  tickets: {{type: linear, key: "env:LINEAR_KEY", team: OPS, url: "{url}/graphql", allow_private: true, allow_http: true}}
routes: [{{channels: [tickets]}}]
"""


def mail(port: int, more: str = "") -> str:
    return f"""
channels:
  mail: {{type: email, host: 127.0.0.1, port: {port}, security: none, from: Keyturn <keyturn@example.org>{more}}}
routes: [{{channels: [mail]}}]
"""


ENVIRONMENT = {
    "HOOK_SECRET": SECRET, "SLACK_TOKEN": "xoxb-very-private", "LINEAR_KEY": "lin_api_very_private",
}  # fmt: skip


async def states(told: Telling) -> list[tuple[str, str]]:
    return [(row["kind"], row["state"]) for row in await told.deliveries()]


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

            await until(first)
            await told.notice("reminder")

            async def second() -> bool:
                return ("reminder", "sent") in await states(told)

            # Far sooner than the fallback that looks for jobs every five seconds.
            await until(second, 2.5)
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
            taken = [request for request in receiver.requests[2:]]
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
                await told.notifier.deliver(row["delivery_id"])
            monkeypatch.undo()
            again = await told.notifier.deliver(row["delivery_id"])
            assert again == told.now + LEASE
            assert len(receiver.requests) == 1
            told.now = again
            assert await told.notifier.deliver(row["delivery_id"]) is None
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
            assert await told.notifier.late() == ([], [row["delivery_id"]])


async def test_mail_goes_to_those_who_can_decide_and_repetitions_share_a_message_id(
    database_url: str, tmp_path: Path
) -> None:
    with mail_server() as mailbox:
        async with telling(database_url, tmp_path, mail(mailbox.port)) as told:
            mailbox.refusals = ["421 too busy"]
            mailbox.lost = 1
            await told.notice("requested")
            await told.run()
            assert len(mailbox.mails) == 4
            assert {view.split()[0] for view in mailbox.readers_view} == {
                "tara@example.org", "theo@example.org", "tom@example.org",
            }  # fmt: skip
            assert len(mailbox.readers_view) == 3
            text = mailbox.mails[0].get_body(("plain",)).get_content()
            for part in ("high", "deploy in production", "It deploys to production", "rita", '"version": "1.2"', "UTC"):
                assert part in text
            assert f"http://127.0.0.1:8001/approvals/{told.approval_id}" in text
            known = {row["external_id"] for row in await told.deliveries()}
            assert known == {str(one["Message-ID"]) for one in mailbox.mails}


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
            assert "approved by tara" in mailbox.mails[0].get_body(("plain",)).get_content()


async def test_a_refused_recipient_is_dead_at_once_and_the_others_get_theirs(database_url: str, tmp_path: Path) -> None:
    with mail_server() as mailbox:
        async with telling(database_url, tmp_path, mail(mailbox.port)) as told:

            async def handle_rcpt(_s: Any, _x: Any, envelope: Any, address: str, _o: Any) -> str:
                if address.startswith("theo"):
                    return "550 unknown"
                envelope.rcpt_tos.append(address)
                return "250 OK"

            mailbox.handle_RCPT = handle_rcpt  # type: ignore[attr-defined]
            await told.notice("requested")
            await told.step()
            assert {row["recipient"]: row["state"] for row in await told.deliveries()} == {
                "tara": "sent", "theo": "dead", "tom": "sent",
            }  # fmt: skip


async def test_a_slack_bot_never_posts_a_message_twice(database_url: str, tmp_path: Path) -> None:
    workspace = SlackWorkspace()
    with receiving(workspace) as receiver:
        async with telling(database_url, tmp_path, bot(receiver.url), ENVIRONMENT) as told:
            await told.notice("requested")
            await told.run()
            await told.notice("reminder")
            receiver.troubles = [Answer(lost=True), Answer(status=500)]
            await told.run()
            assert len(workspace.posted) == 2
            first = workspace.posted[0]
            assert first["channel"] == "C1"
            assert first["blocks"][0]["text"]["text"] == "[high] Decision needed: deploy in production"
            assert first["blocks"][2]["elements"][0]["url"].endswith(told.approval_id)
            assert [row["external_id"] for row in await told.deliveries()] == ["1000.0001", "1001.0001"]


async def test_a_slack_webhook_gets_blocks_of_plain_text(database_url: str, tmp_path: Path) -> None:
    with receiving() as receiver:
        channels = """
channels: {slack: {type: slack, url: "env:SLACK_URL", allow_private: true, allow_http: true}}
routes: [{channels: [slack]}]
"""
        environment = {"SLACK_URL": f"{receiver.url}/services/T0/B0/very-private"}
        arguments = {"note": "<!channel> &"}
        async with telling(database_url, tmp_path, channels, environment, arguments=arguments) as told:
            receiver.troubles = [Answer(status=500)]
            await told.notice("requested")
            await told.run()
            body = receiver.requests[-1].json
            assert {block["type"] for block in body["blocks"]} == {"header", "section", "actions"}
            assert body["blocks"][1]["text"]["type"] == "plain_text"
            assert "<!channel>" not in body["text"]
            assert receiver.requests[-1].path == "/services/T0/B0/very-private"


async def test_linear_has_one_issue_an_approval_and_it_ends_when_that_is_settled(
    database_url: str, tmp_path: Path
) -> None:
    workspace = LinearWorkspace()
    with receiving(workspace) as receiver:
        async with telling(database_url, tmp_path, linear(receiver.url), ENVIRONMENT) as told:
            await told.notice("requested")
            lost: list[bool] = []

            def respond(request: Any) -> Answer:
                answer = workspace(request)
                if "issueCreate" in request.json["query"] and not lost:
                    lost.append(True)
                    return Answer(lost=True)
                if "commentCreate" in request.json["query"] and len(lost) == 1:
                    lost.append(True)
                    return Answer(lost=True)
                return answer

            receiver.respond = respond
            await told.run()
            assert len(workspace.issues) == 1
            (issue,) = workspace.issues.values()
            assert issue["title"] == "[high] Decision needed: deploy in production"
            assert told.approval_id in issue["description"]
            assert issue["priority"] == 2
            await told.keyturn.approve(told.workflow_id)
            await told.notice("settled")
            await told.run()
            assert len(workspace.issues) == len(workspace.comments) == 1
            (issue,) = workspace.issues.values()
            assert (issue["state"]["type"], issue["state_id"]) == ("completed", "s2")
            assert [row["external_id"] for row in await told.deliveries()] == ["OPS-1", "OPS-1"]
            assert len(lost) == 2


async def test_linear_says_why_and_its_key_is_not_repeated(database_url: str, tmp_path: Path) -> None:
    with receiving(LinearWorkspace()) as receiver:
        wrong = {"LINEAR_KEY": "lin_api_wrong_one"}
        async with telling(database_url, tmp_path, linear(receiver.url), wrong, notify_attempts=1) as told:
            await told.notice("requested")
            await told.run()
            (row,) = await told.deliveries()
            assert (row["state"], row["last_error"]) == ("dead", "127.0.0.1 answered 401")


async def test_apprise_sends_everything_else_and_its_failure_is_tried_again(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    channels = """
channels: {other: {type: apprise, url: "env:APPRISE_URL"}}
routes: [{channels: [other]}]
"""
    with receiving() as receiver:
        environment = {"APPRISE_URL": f"json://user:very-private@127.0.0.1:{receiver.port}/in"}
        async with telling(database_url, tmp_path, channels, environment) as told:
            receiver.troubles = [Answer(status=500)]
            await told.notice("requested")
            await told.run()
            assert await states(told) == [("requested", "sent")]
            assert receiver.requests[-1].json["title"] == "[high] Decision needed: deploy in production"
            assert told.approval_id in receiver.requests[-1].json["message"]
    assert "very-private" not in caplog.text


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
            assert CANARY not in shown + "".join(one.get_body(("plain",)).get_content() for one in mailbox.mails)
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
            mails = {str(one["To"]): one.get_body(("plain",)).get_content() for one in mailbox.mails}
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
                assert "links/" not in mail_.get_body(("plain",)).get_content()


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


async def test_a_person_without_an_address_is_not_mailed(database_url: str, tmp_path: Path) -> None:
    with mail_server() as mailbox:
        async with telling(database_url, tmp_path, mail(mailbox.port)) as told:
            request = PersonRequest(person="tom", roles=["team_lead"])
            await identity.put_person(told.keyturn.ctx, caller("root"), request)
            await told.notice("requested")
            await told.run()
            assert {row["recipient"] for row in await told.deliveries()} == {"tara", "theo"}
