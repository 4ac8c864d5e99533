"""An application written for LangGraph alone, in its own folder, is served as it is and governed in every dialect."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import shutil
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import AnswerInvalid
from orchestrator.sdk.client import ApiError, AsyncKeyturn
from orchestrator.wire import ApprovalRecord, PendingApproval, WorkflowRecord
from tests.harness import Keyturn, running

APP = Path(__file__).parents[1] / "apps_foreign" / "bookshop" / "langgraph.json"


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the application writes what it really did."""
    monkeypatch.setenv("BOOKSHOP_JOURNAL", str(tmp_path / "journal"))
    # The application's own .env is read when it is loaded; what it sets must not outlive the test.
    for name in ("BOOKSHOP_NAME", "BOOKSHOP_CURRENCY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path / "journal"


@pytest.fixture
async def keyturn(database_url: str, journal: Path) -> AsyncIterator[Keyturn]:
    async with running(database_url, app=APP) as found:
        yield found


def did(journal: Path) -> list[str]:
    return journal.read_text().splitlines() if journal.exists() else []


def pending(found: WorkflowRecord) -> dict[str, ApprovalRecord]:
    return {str(one.action["operation"]): one for one in found.approvals if one.state == "pending" and one.action}


async def finished(keyturn: Keyturn, workflow: str) -> dict[str, Any]:
    done = await keyturn.until(workflow, "completed", "failed", "rejected")
    assert done.status == "completed", done.error
    assert isinstance(done.result, dict)
    return done.result


def test_the_application_knows_nothing_of_keyturn() -> None:
    for file in APP.parent.rglob("*.py"):
        tree = ast.parse(file.read_text())
        names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not [name for name in names if name.partition(".")[0] in {"orchestrator", "graphs", "tests"}]
        assert "keyturn" not in file.read_text().lower()


async def test_its_env_file_packages_and_factories_are_loaded_as_langgraph_does(keyturn: Keyturn) -> None:
    assert set(keyturn.catalog.entries) == {"orders", "mail", "clerk", "porter"}
    assert os.environ["BOOKSHOP_NAME"] == "The Corner Bookshop"
    assert keyturn.catalog.get("mail").graph.name == "mail of The Corner Bookshop"
    assert keyturn.catalog.get("orders").has("shipping")


async def test_a_decision_payload_and_a_raw_interrupt_in_a_subgraph_are_governed(
    keyturn: Keyturn, journal: Path
) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("orders", title="Dune", copies=8)
        asked = await keyturn.asked(workflow)
        assert (asked.dialect, asked.node, asked.risk_level) == ("keyturn", "review", "medium")
        assert [reason["rule"] for reason in asked.reasons] == ["cost_above_threshold"]
        assert asked.action is not None
        assert asked.action["arguments"] == {"currency": "EUR", "copies": 8}
        assert did(journal) == []
        await keyturn.approve(workflow, who="tom")

        where = await keyturn.asked(workflow)
        assert (where.dialect, where.node, where.kind) == ("raw", "address", "question")
        assert where.description == "Where shall Dune go?"
        assert did(journal) == ["charge 160.0 EUR", "pack"]
        with pytest.raises(AnswerInvalid):
            await keyturn.answer(where.approval_id, "here")
    async with keyturn.working():
        await keyturn.answer(where.approval_id, "1 Harbour Road")
        result = await finished(keyturn, workflow)
    assert did(journal) == ["charge 160.0 EUR", "pack", "post to 1 Harbour Road"]
    assert result["done"][-2:] == ["packed", "posted"]


async def test_a_rejection_comes_back_to_the_graph_where_it_says_so(keyturn: Keyturn, journal: Path) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit("orders", title="Dune", copies=80)
        asked = await keyturn.asked(workflow)
        assert asked.risk_level == "high"
        await keyturn.reject(workflow, reason="too many")
        result = await finished(keyturn, workflow)
    assert result["done"] == ["declined"]
    assert did(journal) == []


async def test_an_agent_inbox_request_is_governed(keyturn: Keyturn, journal: Path) -> None:
    async with keyturn.working():
        sent, kept, changed = [await keyturn.submit("mail", to=name) for name in ("ann", "bob", "cid")]
        for workflow in (sent, kept, changed):
            asked = await keyturn.asked(workflow)
            assert asked.dialect == "agent_inbox"
            assert asked.description == "A mail to a customer"
        await keyturn.approve(sent)
        await keyturn.reject(kept)
        await keyturn.answer((await keyturn.asked(changed)).approval_id, "write it nicer", who="tara")
        results = [await finished(keyturn, workflow) for workflow in (sent, kept, changed)]
    assert [one["sent"] for one in results] == ["accept", "ignore", "response: write it nicer"]
    assert did(journal) == ["mail to ann"]


@pytest.mark.parametrize("graph", ["clerk", "porter"])
async def test_the_tool_calls_of_an_agent_are_governed_in_a_batch_and_call_by_call(
    keyturn: Keyturn, journal: Path, graph: str
) -> None:
    async with keyturn.working():
        workflow = await keyturn.submit(graph, messages=[{"role": "user", "content": "sort it out"}])
        found = pending(await keyturn.until(workflow, "waiting", "failed"))
        assert set(found) == {"refund", "remove_listing"}
        assert {one.dialect for one in found.values()} == {{"clerk": "langchain", "porter": "langchain_call"}[graph]}
        await keyturn.approve(workflow, approval_id=found["refund"].approval_id)
        assert did(journal) == []
        await keyturn.reject(workflow, approval_id=found["remove_listing"].approval_id, reason="it sells well")
        result = await finished(keyturn, workflow)
    assert did(journal) == ["refund A7 12.5"]
    assert "refunded 12.5 for A7" in result["messages"][-1]["content"]
    assert "it sells well" in result["messages"][-1]["content"]


# The same through `keyturn up --app`, as a person would run it


@asynccontextmanager
async def up(folder: Path, journal: Path) -> AsyncGenerator[dict[str, Any]]:
    """A `keyturn up` of the application on a free port; what it says when it is up."""
    command = [sys.executable, "-m", "orchestrator.cli", "up", "--app", "langgraph.json", "--port", "0", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KEYTURN_", "BOOKSHOP_"))}
    process = await asyncio.create_subprocess_exec(
        *command, "--data-dir", str(folder), cwd=APP.parent, stdout=PIPE, stderr=PIPE,
        env={**environment, "BOOKSHOP_JOURNAL": str(journal)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        assert line, (await process.stderr.read()).decode()
        yield json.loads(line)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(30):
            _, told = await process.communicate()
    assert process.returncode == 0, told.decode()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder that the server's own user can enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="keyturn-up-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def one_pending(client: AsyncKeyturn, workflow: str) -> PendingApproval:
    status = await client.wait(workflow, 30, until="settled")
    assert status.status == "waiting", status
    (one,) = [one for one in (await client.pending()).workflows if one.workflow_id == workflow]
    return one


async def test_keyturn_up_serves_the_application_and_governs_it_over_rest(data_dir: Path, journal: Path) -> None:
    async with up(data_dir, journal) as told:
        assert told["graphs"] == ["clerk", "mail", "orders", "porter"]
        key = json.loads(Path(told["credentials"]).read_text())["key"]
        async with AsyncKeyturn(told["url"], key) as owner:
            await owner.put_person("tara", roles=["team_lead"])
            made = await owner.create_key("tara", ["read", "decide"])
            async with AsyncKeyturn(told["url"], made.key) as tara:
                await order_over_rest(owner, tara, journal)
                await mail_over_rest(owner, tara, journal)
                await clerk_over_rest(owner, tara, journal)


async def order_over_rest(owner: AsyncKeyturn, tara: AsyncKeyturn, journal: Path) -> None:
    with pytest.raises(ApiError) as refused:
        await owner.submit("orders", {"copies": "many"})
    assert (refused.value.status, refused.value.code) == (422, "invalid_input")
    workflow = (await owner.submit("orders", {"title": "Dune", "copies": 8})).workflow_id
    asked = await one_pending(owner, workflow)
    with pytest.raises(ApiError) as refused:
        await owner.approve(workflow)
    assert (refused.value.status, refused.value.code) == (403, "self_approval")
    await tara.approve(workflow, digest=asked.digest)
    where = await one_pending(owner, workflow)
    with pytest.raises(ApiError) as refused:
        await owner.answer(where.approval_id, "here")
    assert (refused.value.status, refused.value.code) == (422, "invalid_answer")
    await owner.answer(where.approval_id, "1 Harbour Road")
    assert (await owner.wait(workflow, 30)).status == "completed"
    assert did(journal) == ["charge 160.0 EUR", "pack", "post to 1 Harbour Road"]


async def mail_over_rest(owner: AsyncKeyturn, tara: AsyncKeyturn, journal: Path) -> None:
    workflow = (await owner.submit("mail", {"to": "ann"})).workflow_id
    await one_pending(owner, workflow)
    await tara.reject(workflow, "not needed")
    assert (await owner.wait(workflow, 30)).status == "completed"
    assert "mail to ann" not in did(journal)


async def clerk_over_rest(owner: AsyncKeyturn, tara: AsyncKeyturn, journal: Path) -> None:
    for graph in ("clerk", "porter"):
        workflow = (await owner.submit(graph, {"messages": [{"role": "user", "content": "go"}]})).workflow_id
        status = await owner.wait(workflow, 30, until="settled")
        with pytest.raises(ApiError) as refused:
            await tara.approve(workflow)
        assert (refused.value.status, refused.value.code) == (409, "approval_id_needed")
        for one in status.approvals:
            await tara.approve(workflow, approval_id=one.approval_id)
        assert (await owner.wait(workflow, 30)).status == "completed"
    assert sorted(did(journal)[-4:]) == ["refund A7 12.5"] * 2 + ["remove Dune"] * 2
