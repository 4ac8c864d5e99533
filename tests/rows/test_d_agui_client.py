"""AG-UI with the client that AG-UI's users have: `@ag-ui/client` from npm, run by Node against a served Keyturn."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

from orchestrator.service import policies
from orchestrator.wire import PolicyText
from tests.harness import APPS, caller, running
from tests.node.node import run_script
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
