"""Row B9, the research that ships: real files, a real HTTP server, a model on a real socket, what is refused."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from orchestrator.service import workflows
from orchestrator.wire import WorkflowRecord
from tests.harness import Keyturn, running
from tests.rows.model_server import Say, model_server

GRAPHS = Path(__file__).parents[2] / "graphs" / "langgraph.json"


@pytest.fixture
async def keyturn(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Keyturn]:
    monkeypatch.setenv("KEYTURN_DATA_DIR", str(tmp_path / "data"))
    for name in ("MODEL", "PRIVATE", "DIR"):
        monkeypatch.delenv(f"KEYTURN_RESEARCH_{name}", raising=False)
    async with running(database_url, app=GRAPHS) as found, found.working():
        yield found


def told(done: WorkflowRecord, name: str) -> Any:
    assert done.status == "completed", done.error
    assert isinstance(done.result, dict)
    return done.result[name]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The folder for sources, with texts in it."""
    place = tmp_path / "data" / "sources"
    (place / "notes").mkdir(parents=True)
    (place / "notes" / "leases.md").write_text(
        "A lease names the worker that runs a workflow. A lease ends when its worker dies, and another takes over.\n"
        "Workers renew their lease every third of its time. Cats sleep sixteen hours a day, whatever the weather is.\n"
    )
    (place / "quorum.html").write_text(
        "<html><head><title>x</title><style>p {}</style><script>alert('lease')</script></head><body>"
        "<h1>Quorum</h1><p>A quorum is the number of votes that a request needs.</p>"
        "<p>Two people turn two keys: no one of them opens the vault alone.</p></body></html>"
    )
    (place / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "outside.txt").write_text("the secret")
    (place / "link.txt").symlink_to(tmp_path / "outside.txt")
    return place


async def researched(keyturn: Keyturn, *sources: str, report: str = "report.md") -> WorkflowRecord:
    workflow = await keyturn.submit("research", question="What is a lease?", sources=list(sources), report=report)
    return await keyturn.until(workflow, "completed", "failed")


def section(report: str, heading: str) -> list[str]:
    lines = report.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    return [line for line in lines if line]


async def test_b9_a_research_reads_files_and_writes_a_report_that_names_them_with_their_digests(
    keyturn: Keyturn, library: Path, tmp_path: Path
) -> None:
    done = await researched(keyturn, "notes/leases.md", "quorum.html", report="2026/leases.md")
    path = tmp_path / "data" / "reports" / "2026" / "leases.md"
    report = path.read_text()
    assert told(done, "written") == {
        "file": "2026/leases.md", "size": path.stat().st_size, "sources": 2, "not_read": 0,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }  # fmt: skip
    assert report.startswith("# What is a lease?\n")
    said = section(report, "What the sources say")
    assert said[0].startswith("Found by counting (no language model)")
    assert "- A lease names the worker that runs a workflow. (1)" in said
    assert "- A quorum is the number of votes that a request needs. (2)" in said
    assert said[-1].startswith("Key terms: lease, ")
    assert "alert" not in report
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section(report, "Sources")[2:]]
    for row, name in zip(rows, ("notes/leases.md", "quorum.html"), strict=True):
        content = (library / name).read_bytes()
        assert (row[1], row[2], row[6]) == (name, str(len(content)), hashlib.sha256(content).hexdigest())
    assert "## Not read" not in report
    assert [path.name for path in path.parent.iterdir()] == ["leases.md"]
    assert list((tmp_path / "data" / "research").iterdir()) == [], "what was read is not kept"


@pytest.mark.usefixtures("library")
async def test_b9_a_research_tells_how_many_of_its_sources_are_read(keyturn: Keyturn) -> None:
    done = await researched(keyturn, "notes/leases.md", "quorum.html")
    page = await workflows.events_page(keyturn.ctx, keyturn.me, done.workflow_id, 0, 1000)
    last = [event.data for event in page.events if event.type == "progress" and event.data["node"] == "gather"][-1]
    assert (last.get("percent"), last.get("done"), last.get("total")) == (100.0, 2, 2)
    assert last["substeps"] == {"1. notes/leases.md": 100.0, "2. quorum.html": 100.0}


async def test_b9_a_research_goes_on_without_sources_that_cannot_be_read_and_tells_why(
    keyturn: Keyturn, library: Path, tmp_path: Path
) -> None:
    (library / "long.txt").write_text("x" * (1024 * 1024 + 1))
    outside = ("../../outside.txt", "/etc/passwd", "link.txt", "notes/../../outside.txt", "file:///etc/passwd")
    done = await researched(keyturn, *outside, "nothing.txt", "picture.png", "long.txt", "notes", "quorum.html")
    assert told(done, "written")["not_read"] == 9
    report = (tmp_path / "data" / "reports" / "report.md").read_text()
    missed = "\n".join(section(report, "Not read"))
    for reason in (
        "is no name of a file in the folder", "passes through a link", "it must be https://", "there is no such file",
        "it is no text", "it is longer than 1,048,576 bytes",
    ):  # fmt: skip
        assert reason in missed
    assert "the secret" not in report
    assert "root:" not in report
    assert len(section(report, "Sources")) == 3


async def test_b9_a_research_fails_when_nothing_can_be_read_and_a_retry_reads_again(
    keyturn: Keyturn, library: Path, tmp_path: Path
) -> None:
    failed = await researched(keyturn, "late.txt", "missing.txt")
    assert failed.error is not None
    assert failed.error["code"] == "step_failed"
    assert "none of the sources could be read; late.txt: there is no such file" in str(failed.error["detail"])
    (library / "late.txt").write_text("It came late, and yet it tells what a lease is good for.")
    await workflows.retry(keyturn.ctx, keyturn.me, failed.workflow_id)
    done = await keyturn.until(failed.workflow_id, "completed")
    assert told(done, "written")["not_read"] == 1
    assert (tmp_path / "data" / "reports" / "report.md").exists()


PAGE = b"<body><p>A lease is what a worker holds while it runs a workflow.</p></body>"
ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/page": (200, {"Content-Type": "text/html; charset=utf-8"}, PAGE),
    "/moved": (302, {"Location": "/page"}, b""),
    "/gone": (404, {}, b""),
    "/picture": (200, {"Content-Type": "image/png"}, b"x"),
    "/long": (200, {"Content-Type": "text/plain"}, b"x" * (1024 * 1024 + 1)),
    "/latin": (
        200,
        {"Content-Type": "text/plain; charset=ISO-8859-1"},
        "Caf\xe9 owners hold no lease either.".encode("latin-1"),
    ),
}


@pytest.fixture
def site() -> Iterator[tuple[int, list[str]]]:
    """A real HTTP server: its port, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, headers, body = ANSWERS[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    thread.join()
    server.server_close()


async def test_b9_a_research_reads_addresses_and_none_of_ones_own_network_unless_that_is_allowed(
    keyturn: Keyturn,
    library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    site: tuple[int, list[str]],
) -> None:
    port, asked = site
    named = [f"http://127.0.0.1:{port}{path}" for path in ANSWERS]
    own = [f"http://localhost:{port}/page", f"https://127.0.0.1:{port}/page", f"https://[::1]:{port}/page"]
    await researched(keyturn, "quorum.html", *named, *own, report="refused.md")
    assert asked == []
    refused = "\n".join(section((tmp_path / "data" / "reports" / "refused.md").read_text(), "Not read"))
    assert refused.count(r"KEYTURN\_RESEARCH\_PRIVATE=true") == len(named + own)
    assert "127.0.0.1 is at an address that is not allowed" in refused
    monkeypatch.setenv("KEYTURN_RESEARCH_PRIVATE", "true")
    done = await researched(keyturn, *named, "https://user:word@example.org/", report="allowed.md")
    assert asked == list(ANSWERS), "each once"
    assert told(done, "written")["not_read"] == 5
    report = (tmp_path / "data" / "reports" / "allowed.md").read_text()
    said = section(report, "What the sources say")
    assert "- A lease is what a worker holds while it runs a workflow. (1)" in said
    assert "- Caf\xe9 owners hold no lease either. (6)" in said
    assert hashlib.sha256(PAGE).hexdigest() in report
    missed = "\n".join(section(report, "Not read"))
    for reason in ("it answered 302: redirects are not followed", "it answered 404", "it is no text (image/png)",
                   "it is longer than", "no user or password"):  # fmt: skip
        assert reason in missed


async def test_b9_what_sources_say_stands_in_the_report_as_text(
    keyturn: Keyturn, library: Path, tmp_path: Path
) -> None:
    (library / "bad.txt").write_text(
        "A lease <img src=x onerror=alert(1)> ![p](https://evil.example/?q=1) `code` | cell | <b>bold</b>.\n"
    )
    await researched(keyturn, "bad.txt")
    report = (tmp_path / "data" / "reports" / "report.md").read_text()
    assert r"\<img src=x onerror=alert(1)\> \!\[p\](https://evil.example/?q=1) \`code\` \| cell" in report
    assert "<" not in report.replace("\\<", "")


async def test_b9_a_report_that_is_there_is_never_replaced(keyturn: Keyturn, library: Path, tmp_path: Path) -> None:
    reports = tmp_path / "data" / "reports"
    reports.mkdir(parents=True)
    (reports / "report.md").write_text("mine")
    for name in ("report.md", "../report.md", "report.html"):
        failed = await researched(keyturn, "quorum.html", report=name)
        assert failed.error is not None
        assert failed.error["code"] == "invalid_input"
    assert (reports / "report.md").read_text() == "mine"


async def test_b9_a_model_writes_the_summary_where_one_is_configured(
    keyturn: Keyturn, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with model_server() as model:
        model.says.append(Say(text="A lease is a worker's claim (1). <script>x</script>"))
        monkeypatch.setenv("KEYTURN_RESEARCH_MODEL", "compatible:tiny")
        monkeypatch.setenv("KEYTURN_MODEL_URL", model.url)
        done = await researched(keyturn, "notes/leases.md", "quorum.html")
    assert told(done, "written")["sources"] == 2
    report = (tmp_path / "data" / "reports" / "report.md").read_text()
    assert section(report, "Summary by compatible:tiny") == [
        r"A lease is a worker's claim (1). \<script\>x\</script\>",
    ]
    assert section(report, "What the sources say")[0].startswith("Found by counting")
    (asked,) = model.heard
    assert asked.endswith("Question: What is a lease?")
    assert "<source number=2>\nQuorum\n\nA quorum is" in asked


async def test_b9_a_model_that_does_not_answer_fails_the_task_and_a_retry_asks_again(
    keyturn: Keyturn, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with model_server() as model:
        model.says.extend([Say(status=500), Say(status=500), Say(text="Now it answers.")])
        monkeypatch.setenv("KEYTURN_RESEARCH_MODEL", "compatible:tiny")
        monkeypatch.setenv("KEYTURN_MODEL_URL", model.url)
        failed = await researched(keyturn, "notes/leases.md")
        assert failed.status == "failed"
        await workflows.retry(keyturn.ctx, keyturn.me, failed.workflow_id)
        done = await keyturn.until(failed.workflow_id, "completed")
    assert told(done, "outcome") == "written"


async def test_b9_a_model_that_is_not_installed_is_named_with_what_to_do(
    keyturn: Keyturn, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYTURN_RESEARCH_MODEL", "anthropic:some-model")
    failed = await researched(keyturn, "quorum.html")
    assert failed.error is not None
    assert failed.error["code"] == "invalid_input"
    assert "KEYTURN_RESEARCH_MODEL is anthropic:some-model" in str(failed.error["detail"])


async def test_b9_a_trigger_puts_a_gate_before_a_research(
    database_url: str, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documented = (GRAPHS.parents[1] / "docs" / "tasks-shipped.md").read_text().partition("```yaml triggers\n")[2]
    shutil.copytree(GRAPHS.parents[1] / "config", tmp_path / "config")
    triggers = tmp_path / "config" / "hitl" / "interrupt-triggers.yaml"
    triggers.write_text(documented.partition("```")[0])
    monkeypatch.setenv("KEYTURN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("KEYTURN_RESEARCH_MODEL", raising=False)
    async with running(database_url, app=GRAPHS, config=tmp_path / "config") as keyturn, keyturn.working():
        workflow = await keyturn.submit("research", question="Why?", sources=["quorum.html"], report="report.md")
        asked = await keyturn.asked(workflow)
        assert asked.action is not None
        assert asked.action["arguments"] == {"sources": ["quorum.html"]}
        assert not (tmp_path / "data" / "reports").exists()
        await keyturn.approve(workflow)
        await keyturn.until(workflow, "completed")
