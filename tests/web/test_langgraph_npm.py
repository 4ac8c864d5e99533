"""The LangGraph API through the npm client, as Agent Inbox, Agent Chat UI and programs of one's own call it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.apps.dialect_graphs import CALLS
from tests.harness import APPS, running
from tests.node.node import FOLDER, run_script
from tests.web.test_langgraph_api import People, people


@pytest.fixture
async def at(database_url: str, node_modules: Path) -> AsyncIterator[People]:
    CALLS.clear()
    async with running(database_url, app=APPS / "dialects.json") as keyturn, people(keyturn) as found:
        yield found


async def play(at: People, scenario: str) -> Any:
    env = {"KEYTURN_URL": at.edge.url, "KEYTURN_KEYS": json.dumps(at.keys), "SCENARIO": scenario}
    return await run_script("langgraph_api.mjs", env)


async def test_an_agents_thread_from_its_first_input_to_its_last_word(at: People) -> None:
    found = await play(at, "life")
    assert (found["events"][0], found["events"][-1], found["joined"]) == ("metadata", "end", "end")
    assert (found["run"], found["last"], found["status"], found["newest"]) == (True, "done", "idle", True)


async def test_of_four_racing_resumes_one_counts_and_the_others_learn_whose(at: People) -> None:
    found = await play(at, "race")
    (by,) = found["won"]
    assert found["lost"] == [{"status": 409, "code": "already_resolved", "resolved_by": by}] * 3


async def test_what_is_wrong_is_refused_with_a_code_and_a_right_answer_works_after_all(at: People) -> None:
    found = await play(at, "refusals")
    assert found["approved"] is True
    assert found["codes"] == {
        "unknown": [404, "unknown_interrupt"],
        "malformed": [422, "invalid_answer"],
        "goto": [422, "unsupported"],
        "input": [409, "thread_busy"],
        "self": [403, "self_approval"],
        "fork": [422, "unsupported"],
        "stranger": [401, "unauthenticated"],
    }


async def test_agent_inbox_finds_what_waits_answers_it_and_ignores_it(at: People) -> None:
    found = await play(at, "inbox")
    assert (found["info"], found["found"], found["left"], found["end"]) == (True, 2, 0, "end")
    assert found["shown"]["action_request"] == {"action": "send", "args": {"to": "ann"}}
    assert found["nodes"] == ["ask"]
    assert found["answers"] == [[{"type": "accept", "args": None}]]
    assert found["turns"] == [{"table": "a"}, {"table": "b"}]
    assert found["words"][0] == "deleted a"
    assert CALLS == ["delete a"]


async def test_agent_chat_ui_talks_decides_and_lists_its_threads(at: People) -> None:
    found = await play(at, "chat")
    assert (found["info"], found["first"], found["second"], found["last"]) == (True, "end", "end", "done")
    assert (found["asked"], found["next"], found["resolved"]) == (1, True, [422, "unsupported"])
    assert found["threads"] == ["human"]


async def test_the_clients_in_the_documentation_run_as_they_stand(database_url: str, node_modules: Path) -> None:
    page = (APPS.parents[1] / "docs" / "langgraph-api.md").read_text(encoding="utf-8")
    script = re.findall(r"^```(python|js)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in script] == ["python", "js"]
    app = APPS.parents[1] / "graphs" / "langgraph.json"
    async with running(database_url, app=app) as keyturn, people(keyturn) as found:
        env = {**os.environ, "URL": found.edge.url, "KEY": found.keys["rita"]}
        for language, text in script:
            # A module that Node reads from its input finds packages below the working directory.
            command = [sys.executable, "-c", text] if language == "python" else ["node", "--input-type=module"]
            process = await asyncio.create_subprocess_exec(
                *command, cwd=FOLDER, env=env, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            async with asyncio.timeout(60):
                told, wrong = await process.communicate(text.encode())
            assert process.returncode == 0, wrong.decode()
            assert "Publish this release note?" in told.decode()
            assert "- Faster start" in told.decode().partition("published")[2]
