"""Each kind of channel on real sockets: what arrives, once to the eye of whoever reads it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from orchestrator.service import identity
from orchestrator.wire import PersonRequest
from tests.chores.receivers import Answer, LinearWorkspace, SlackWorkspace, mail_server, plain_text, receiving
from tests.chores.telling import ENVIRONMENT, bot, linear, mail, states, telling
from tests.harness import caller


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
            text = plain_text(mailbox.mails[0])
            for part in ("high", "deploy in production", "It deploys to production", "rita", '"version": "1.2"', "UTC"):
                assert part in text
            assert f"http://127.0.0.1:8001/approvals/{told.approval_id}" in text
            known = {row["external_id"] for row in await told.deliveries()}
            assert known == {str(one["Message-ID"]) for one in mailbox.mails}


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


async def test_a_person_without_an_address_is_not_mailed(database_url: str, tmp_path: Path) -> None:
    with mail_server() as mailbox:
        async with telling(database_url, tmp_path, mail(mailbox.port)) as told:
            request = PersonRequest(person="tom", roles=["team_lead"])
            await identity.put_person(told.keyturn.ctx, caller("root"), request)
            await told.notice("requested")
            await told.run()
            assert {row["recipient"] for row in await told.deliveries()} == {"tara", "theo"}
