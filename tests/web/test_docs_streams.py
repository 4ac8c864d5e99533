"""The clients in docs/streams.md do what the page says, and its table has every type of event there is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.harness import Keyturn
from tests.web.edge import Edge, served
from tests.web.test_feeds import committed, in_case

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "streams.md").read_text(encoding="utf-8")
# What concerns a namespace and no workflow.
_ELSEWHERE = {
    "delegation-created",
    "delegation-ended",
    "policy-published",
    "person-changed",
    "key-created",
    "key-revoked",
}
_DRIVER = """
import { follow } from "./client.mjs";
const { URL: url, KEY: key, LAST: last, COUNT: count } = process.env;
const seen = [];
const at = await follow(url, key, (event) => { seen.push(event); return seen.length < Number(count); }, last);
console.log(JSON.stringify({ at, seen }));
process.exit(0);
"""


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


async def ran(*command: str, folder: Path, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    return out.decode()


async def test_the_python_client_of_the_page_confirms_and_ends(edge: Edge, keyturn: Keyturn, tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(block("python").replace("http://127.0.0.1:8001", edge.url), encoding="utf-8")
    async with keyturn.working():
        await in_case(keyturn, "claim-17", "yes_or_no")
        told = await ran(sys.executable, "client.py", folder=tmp_path, KEYTURN_KEY=await edge.key("tara"))
    kinds = [line.split()[2] for line in told.splitlines()]
    assert kinds[0] == "workflow-submitted"
    assert {"confirmation-required", "confirmation-resolved"} < set(kinds)
    assert kinds[-1] == "workflow-completed"


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node to run it with")
async def test_the_javascript_client_of_the_page_goes_on_over_a_restart(keyturn: Keyturn, tmp_path: Path) -> None:
    (tmp_path / "client.mjs").write_text(block("js"), encoding="utf-8")
    (tmp_path / "driver.mjs").write_text(_DRIVER, encoding="utf-8")
    workflow_id = await in_case(keyturn, "c")
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(served(keyturn))
        address, key = f"{first.url}/cases/c/events", await first.key()
        running = asyncio.create_task(
            ran("node", "driver.mjs", folder=tmp_path, URL=address, KEY=key, LAST="", COUNT="4")
        )
        await committed(keyturn, workflow_id, "one", text="line\nend \u2028 \u00fc")
        # It is connected by now, or will be to the next one.
        await asyncio.sleep(1)
        first.stop.set()
        await first.task
        await committed(keyturn, workflow_id, "two")
        await stack.enter_async_context(served(keyturn, port=int(first.url.rpartition(":")[2])))
        await committed(keyturn, workflow_id, "three")
        found = json.loads(await running)
    assert [one["type"] for one in found["seen"]] == ["workflow-submitted", "one", "two", "three"]
    assert found["seen"][1]["data"]["text"] == "line\nend \u2028 \u00fc"
    assert found["at"] == str(found["seen"][-1]["position"])


def test_the_table_of_types_has_every_one_that_the_code_writes() -> None:
    told = {
        name
        for line in PAGE.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([a-z-]+)`", line.split("|")[1])
    }
    sources = [file.read_text(encoding="utf-8") for file in (REPOSITORY / "orchestrator").rglob("*.py")]
    written = {name for text in sources for name in re.findall(r"Event\(\s*\"([a-z-]+)\"", text)}
    assert written - _ELSEWHERE <= told
