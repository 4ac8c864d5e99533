"""A research whose worker dies by SIGKILL while it reads: what was read is not read again, and the report is whole."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.faults.conftest import Farm

GRAPH = Path(__file__).parents[2] / "graphs" / "research.py"


@dataclass
class Site:
    """A real HTTP server that answers `/slow` only when it is let."""

    port: int = 0
    asked: list[str] = field(default_factory=list[str])
    let: Event = field(default_factory=Event)


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            if self.path == "/slow":
                found.let.wait(60)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(f"This is what the page {self.path} has to say about it.".encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class's name
            pass

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # whoever asked is dead
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.port = server.server_port
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.let.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.faults
async def test_b9_killed_while_it_reads_a_research_reads_only_what_it_had_not_read(
    farm: Farm, site: Site, tmp_path: Path
) -> None:
    app = tmp_path / "app.json"
    environment = {"KEYTURN_DATA_DIR": str(tmp_path / "data"), "KEYTURN_RESEARCH_PRIVATE": "true"}
    app.write_text(json.dumps({"graphs": {"research": f"{GRAPH}:graph"}, "env": environment}))
    doomed = farm.worker(app=app, lease_seconds=1.0)
    await farm.offered("research")
    sources = [f"http://127.0.0.1:{site.port}/{name}" for name in ("first", "slow", "third")]
    workflow = await farm.keyturn.submit("research", question="What is it?", sources=sources, report="report.md")
    await farm.until(lambda: site.asked == ["/first", "/slow"])
    await doomed.kill()
    site.let.set()
    farm.worker(app=app)
    await farm.completed(workflow)
    assert site.asked == ["/first", "/slow", "/slow", "/third"]
    report = (tmp_path / "data" / "reports" / "report.md").read_text()
    assert all(f"page /{name} has to say about it. ({number})" in report
               for number, name in enumerate(("first", "slow", "third"), 1))  # fmt: skip
