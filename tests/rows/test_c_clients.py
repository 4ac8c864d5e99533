"""Sessions from Python and from the command line."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestrator.sdk.client import ApiError, Keyturn
from tests.harness import APPS, running
from tests.web.edge import Edge, served
from tests.web.test_cli import keyturn_command


async def test_c4_another_client_goes_on_with_a_session_where_the_first_has_left_it(database_url: str) -> None:
    async with running(database_url, app=APPS / "sessions.json") as keyturn, served(keyturn) as edge:
        first = await edge.key("rita")

        def begin() -> str:
            with Keyturn(edge.url, first) as client:
                begun = client.create_session("clerk", message="travel", title="Holidays", idempotency_key="k")
                again = client.create_session("clerk", message="travel", title="Holidays", idempotency_key="k")
                assert (again.session_id, again.replayed) == (begun.session_id, True)
                assert begun.workflow_id is not None
                client.wait(begun.workflow_id, 20)
                return begun.session_id

        async with keyturn.working(), edge.client("tom") as other:
            session = await asyncio.to_thread(begin)
            (found,) = (await other.session(session)).pending
            taken = await other.say(session, "Rome", approval_id=found.approval_id)
            heard: list[str] = []
            async for event in other.follow_session(session, timeout=20):
                heard.append(event.type)
                if event.type == "workflow-completed":
                    break
            assert taken.did == "answered"
            assert heard.index("confirmation-required") < heard.index("confirmation-resolved")
            told = (await other.messages(session)).messages
            assert [one.content for one in told] == ["travel", "Where to?", "Rome", "off to Rome"]
            with pytest.raises(ApiError) as refused:
                await other.say(session, "more")
            assert refused.value.code == "not_owner"

        def leave() -> str:
            with Keyturn(edge.url, first) as client:
                (open_now,) = client.sessions().sessions
                ended = client.end_session(open_now.session_id, "enough")
                assert client.sessions().sessions == []
                assert [one.session_id for one in client.sessions(ended=True).sessions] == [session]
                return ended.state

        assert await asyncio.to_thread(leave) == "ended"


async def test_c1_a_session_is_held_on_the_command_line(database_url: str, tmp_path: Path) -> None:
    async with running(database_url, app=APPS / "sessions.json") as keyturn, served(keyturn) as edge:
        key = await edge.key("rita")

        async def told(edge: Edge, *words: str, code: int = 0) -> list[str]:
            done = await keyturn_command("session", *words, cwd=tmp_path, KEYTURN_URL=edge.url, KEYTURN_KEY=key)
            assert done.code == code, (done.out, done.err)
            return (done.out or done.err).splitlines()

        async with keyturn.working():
            session, *_ = await told(edge, "start", "clerk", "--title", "A wall")
            asked = await told(edge, "send", session, "count")
            assert asked[0] == "assistant question: How many?"
            assert asked[1].startswith("waits: How many?")
            assert await told(edge, "send", session, "4") == ["assistant result: counted 4"]
            assert await told(edge, "send", session, "recall") == ["assistant result: count / recall"]
        shown = await told(edge, "show", session)
        assert shown[-4:] == [
            "rita answer: 4", "assistant result: counted 4", "rita message: recall", "assistant result: count / recall"
        ]  # fmt: skip
        assert any(session in line for line in await told(edge, "list"))
        assert await told(edge, "end", session, "--reason", "enough") == [f"{session}: ended"]
        assert "session_ended" in (await told(edge, "send", session, "hello", code=1))[0]
        assert not any(session in line for line in await told(edge, "list"))
        assert any(session in line for line in await told(edge, "list", "--all"))
