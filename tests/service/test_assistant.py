"""The shipped tools do what they say on real files, a real database and a real socket; the assistant uses them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest

from graphs import assistant, tools
from orchestrator.core.errors import InvalidInput
from orchestrator.engine.host import SegmentHost
from orchestrator.service import conversing, sessions
from orchestrator.service.sessions import Limits
from orchestrator.wire import WorkflowRecord
from orchestrator.wire_sessions import MessageRequest, SessionRequest
from tests.harness import Keyturn, running

GRAPHS = Path(__file__).parents[2] / "graphs" / "langgraph.json"


@pytest.fixture
async def keyturn(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Keyturn]:
    monkeypatch.setenv("KEYTURN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("KEYTURN_CONNECTION_EXPENSES", database_url)
    monkeypatch.delenv("KEYTURN_ASSISTANT_MODEL", raising=False)
    async with running(database_url, app=GRAPHS) as found, found.working():
        yield found


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """What a real HTTP server got, by recipient."""
    got: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append((self.path.rsplit("/", 1)[-1], body))
            self.send_response(500 if self.path.endswith("broken") else 200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("KEYTURN_NOTIFY_URL", f"json://127.0.0.1:{server.server_port}/to/{{recipient}}")
    yield got
    server.shutdown()
    thread.join()
    server.server_close()


async def ended(keyturn: Keyturn, message: str, *, reject: bool = False) -> WorkflowRecord:
    workflow = await keyturn.submit("assistant", message=message)
    while (found := await keyturn.until(workflow, "waiting", "completed", "failed")).status == "waiting":
        for one in found.approvals:
            if one.state == "pending":
                await (keyturn.reject if reject else keyturn.approve)(workflow, approval_id=one.approval_id)
    assert found.status == "completed", found.error
    return found


def calls(done: WorkflowRecord) -> list[dict[str, str]]:
    assert isinstance(done.result, dict)
    return done.result["calls"]


def only(done: WorkflowRecord) -> dict[str, Any]:
    (one,) = calls(done)
    assert one["status"] == "success", one
    return json.loads(one["result"])


async def test_a_contract_is_signed_and_the_signature_proves_it(keyturn: Keyturn, tmp_path: Path) -> None:
    done = await ended(keyturn, "Sign contract nda-7 between Ann and Bob: Neither tells anybody.")
    record = only(done)
    place = tmp_path / "data" / "contracts"
    assert (place / "nda-7.txt").read_text() == "Contract nda-7\n\nBetween Ann, Bob\n\nNeither tells anybody.\n"
    assert json.loads((place / "nda-7.sig.json").read_text()) == record
    assert tools.verify_contract("nda-7")
    assert (tmp_path / "data" / "keys" / "contracts.pem").stat().st_mode & 0o077 == 0
    (place / "nda-7.txt").write_text("Contract nda-7\n\nBetween Ann, Bob\n\nBoth tell everybody.\n")
    assert not tools.verify_contract("nda-7")
    (one,) = done.approvals
    assert (one.risk_level, one.state) == ("high", "executed")


async def test_a_deleted_project_is_in_the_trash_and_comes_back(keyturn: Keyturn, tmp_path: Path) -> None:
    project = tmp_path / "data" / "projects" / "alpha"
    project.mkdir(parents=True)
    (project / "plan.txt").write_text("the plan")
    ticket = only(await ended(keyturn, "delete project alpha"))["ticket"]
    assert not project.exists()
    assert (project.parent / ".trash" / ticket / "plan.txt").read_text() == "the plan"
    assert only(await ended(keyturn, f"restore project {ticket}")) == {"project": "alpha"}
    assert (project / "plan.txt").read_text() == "the plan"


async def test_a_rejected_call_changes_nothing_and_is_told(keyturn: Keyturn, tmp_path: Path) -> None:
    project = tmp_path / "data" / "projects" / "alpha"
    project.mkdir(parents=True)
    done = await ended(keyturn, "delete project alpha", reject=True)
    assert project.is_dir()
    told = "delete_project was rejected by tara: not today; it did not run"
    assert calls(done) == [{"tool": "delete_project", "status": "error", "result": told}]
    assert isinstance(done.result, dict)
    assert done.result["reply"] == f"[scripted (no language model)] delete_project: {told}"
    assert done.result["model"] == assistant.SCRIPTED


async def test_an_expense_is_entered_once_with_its_amount_judged(keyturn: Keyturn, database_url: str) -> None:
    done = await ended(keyturn, "approve expense trip-9 of 1500.5 USD for Ann Lee")
    assert only(done) == {"claim": "trip-9", "payee": "Ann Lee", "amount": "1500.50", "currency": "USD"}
    (one,) = done.approvals
    assert one.risk_level == "high", "the amount is its estimated cost"
    assert one.action is not None
    assert one.action["estimated_cost"] == 1500.5
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        rows = await (await conn.execute("SELECT claim, amount::text FROM public.keyturn_expenses")).fetchall()
    assert rows == [("trip-9", "1500.50")]


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # one of Apprise's own plugins
async def test_a_message_goes_to_everybody_once_and_a_failure_is_told(
    keyturn: Keyturn, mailbox: list[tuple[str, Any]]
) -> None:
    done = await ended(keyturn, "notify ann@example.com, bob, broken and ann@example.com: Tonight - We move the shop.")
    assert only(done) == {"sent": ["ann@example.com", "bob"], "failed": ["broken"]}
    assert sorted(name for name, _ in mailbox) == ["ann@example.com", "bob", "broken"]
    assert mailbox[0][1]["title"] == "Tonight"
    assert mailbox[0][1]["message"] == "We move the shop."


async def test_all_calls_of_a_turn_are_asked_at_once(keyturn: Keyturn, tmp_path: Path) -> None:
    for name in ("alpha", "beta"):
        (tmp_path / "data" / "projects" / name).mkdir(parents=True)
    workflow = await keyturn.submit("assistant", message="delete project alpha; delete project beta")
    found = await keyturn.until(workflow, "waiting", "completed", "failed")
    pending = {str(one.action and one.action["target"]): one for one in found.approvals if one.state == "pending"}
    assert set(pending) == {"alpha", "beta"}
    await keyturn.approve(workflow, approval_id=pending["alpha"].approval_id)
    await keyturn.reject(workflow, approval_id=pending["beta"].approval_id)
    done = await keyturn.until(workflow, "completed", "failed")
    assert [one["status"] for one in calls(done)] == ["success", "error"]
    assert [one.name for one in (tmp_path / "data" / "projects").iterdir() if one.name != ".trash"] == ["beta"]


@pytest.mark.parametrize(
    ("message", "happened"),
    [
        ("sign contract nda-7 between Ann and Bob: Terms.", "contracts/nda-7.sig.json"),
        ("delete project alpha", "projects/.trash/alpha.*/plan.txt"),
        ("approve expense trip-9 of 20 for Ann", None),
    ],
)
async def test_what_happened_before_a_worker_died_is_found_at_the_target_and_not_done_again(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, happened: str | None
) -> None:
    data = tmp_path / "data"
    (data / "projects" / "alpha").mkdir(parents=True)
    (data / "projects" / "alpha" / "plan.txt").write_text("the plan")
    monkeypatch.setenv("KEYTURN_DATA_DIR", str(data))
    monkeypatch.setenv("KEYTURN_CONNECTION_EXPENSES", database_url)
    async with running(database_url, app=GRAPHS) as keyturn:
        done, never = asyncio.Event(), asyncio.Event()

        async def die(*_: object) -> None:
            done.set()
            await never.wait()

        workflow = await keyturn.submit("assistant", message=message)
        with monkeypatch.context() as dying:
            # The worker ends after the effect and before it could write that down.
            dying.setattr(SegmentHost, "finish_effect", die)
            async with keyturn.working(lease_seconds=1.0) as worker:
                worker.drain_seconds = 0.0
                await keyturn.asked(workflow)
                await keyturn.approve(workflow)
                await asyncio.wait_for(done.wait(), 20)
        if happened:
            assert len(list(data.glob(happened))) == 1
        async with keyturn.working():
            found = await keyturn.until(workflow, "waiting", "completed", "failed")
    assert found.status == "completed", found.error
    assert only(found)
    assert [one.state for one in found.approvals] == ["executed"]


@pytest.mark.parametrize("name", ["..", "../alpha", "/etc", ".trash", "a/b", "", "a\0b", "link"])
def test_no_name_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(InvalidInput, match="is no name of a project"):
        tools.entry(tmp_path.resolve(), name, "project")


async def test_the_script_says_what_it_is(keyturn: Keyturn) -> None:
    done = await ended(keyturn, "What is the weather like?")
    assert isinstance(done.result, dict)
    assert done.result["reply"].startswith("[scripted (no language model)] I know only: sign contract")
    assert calls(done) == []
    assert assistant.graph().nodes["think"].metadata == {"model": assistant.SCRIPTED}


async def test_a_model_that_cannot_be_loaded_is_named_with_what_to_do(
    keyturn: Keyturn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYTURN_ASSISTANT_MODEL", "anthropic:some-model")
    workflow = await keyturn.submit("assistant", message="delete project alpha")
    failed = await keyturn.until(workflow, "completed", "failed")
    assert failed.error is not None
    assert failed.error["code"] == "invalid_input"
    assert "KEYTURN_ASSISTANT_MODEL is anthropic:some-model" in str(failed.error["detail"])
    assert "pip install langchain" in str(failed.error["detail"])


async def test_in_a_session_the_assistant_does_what_was_said_last_and_not_what_was_done_before(
    keyturn: Keyturn,
) -> None:
    begun = await sessions.start(
        keyturn.ctx, keyturn.me, SessionRequest(graph="assistant", message="delete project apollo"), Limits(600, 5)
    )
    assert begun.workflow_id is not None
    asked = await keyturn.asked(begun.workflow_id)
    await keyturn.reject(begun.workflow_id, approval_id=asked.approval_id)
    await keyturn.until(begun.workflow_id, "completed")
    said = MessageRequest(content="delete project zeus")
    taken = await conversing.send(keyturn.ctx, keyturn.me, begun.session_id, said)
    again = await keyturn.asked(taken.workflow_id)
    assert again.action is not None
    assert again.action["arguments"] == {"project": "zeus"}
    await keyturn.reject(taken.workflow_id, approval_id=again.approval_id)
    done = await keyturn.until(taken.workflow_id, "completed")
    assert [one["tool"] for one in calls(done)] == ["delete_project"]
    assert "rejected" in calls(done)[0]["result"]
