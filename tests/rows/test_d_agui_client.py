"""AG-UI with the client that AG-UI's users have: `@ag-ui/client` from npm, run by Node against a served Keyturn."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from orchestrator.service import policies
from orchestrator.wire import PolicyText
from tests.conftest import REPOSITORY
from tests.harness import APPS, caller, running
from tests.node.node import printed, run_script
from tests.web.agui import check, parsed
from tests.web.edge import served

POLICIES = """
policies:
  - name: vault
    match: action.target.startsWith('vault')
    stages: [[{any_of: [team_lead, tech_lead], count: 2}]]
"""
SCENARIOS = [
    "text", "interrupt", "wrongId", "parallel", "uncovered", "cancelled", "quorum", "legacy", "racing", "failing",
]  # fmt: skip


@pytest.mark.timeout(240)
async def test_d1_d2_d3_d6_d7_the_npm_client_runs_is_asked_answers_and_decides_no_more_than_its_key_may(
    database_url: str, node_modules: Path
) -> None:
    async with AsyncExitStack() as on:
        keyturn = await on.enter_async_context(running(database_url, app=APPS / "agui.json"))
        edge = await on.enter_async_context(served(keyturn))
        await policies.publish(keyturn.ctx, caller("root"), PolicyText(text=POLICIES))
        await on.enter_async_context(keyturn.working())
        keys = {person: await edge.key(person) for person in ("rita", "tom", "tara")}
        keys["reader"] = await edge.key("tara", ("read", "submit"))
        done = await run_script("agui.mjs", {"KEYTURN_URL": edge.url, "KEYTURN_KEYS": json.dumps(keys)}, seconds=100)
        assert done == SCENARIOS


@pytest.mark.timeout(240)
async def test_d2_d3_the_clients_of_the_documentation_run_as_they_stand_there(
    database_url: str, node_modules: Path
) -> None:
    page = (REPOSITORY / "docs" / "ag-ui.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(js|sh) run\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    async with AsyncExitStack() as on:
        keyturn = await on.enter_async_context(running(database_url, app=REPOSITORY / "graphs" / "langgraph.json"))
        edge = await on.enter_async_context(served(keyturn))
        await on.enter_async_context(keyturn.working())
        env = {"URL": edge.url, "KEY": await edge.key("rita"), "no_proxy": "127.0.0.1"}
        told = (await printed(["node", "--input-type=module", "--eval", blocks["js"]], env)).splitlines()
        assert told[:4] == ["· take", "· classify", "· clarify", "> " + told[3][2:]]
        assert told[-1] == "Ideas 0.85"
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        runs = (await printed(["sh", "-c", blocks["sh"]], env)).split('data: {"type":"RUN_STARTED"')[1:]
        asked, answered = [parsed(f'data: {{"type":"RUN_STARTED"{one}'.encode()) for one in runs]
        for events in (asked, answered):
            check(events)
        assert asked[-1]["outcome"]["type"] == "interrupt"
        assert answered[-1]["result"]["category"] == "Ideas"
