"""The executors against real targets: a Postgres, an HTTP server on a socket, programs, and Terraform where it is."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.core.errors import InvalidInput, StepFailed, ToolMissing
from orchestrator.sdk.executors import Command, Context, Http, Secrets, execute

needs_terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed here")


def accept(_result: Mapping[str, object]) -> None:
    """Any result will do."""


@pytest.fixture
def context(tmp_path: Path) -> Context:
    values = {"keyturn.runbooks": str(tmp_path), "keyturn.data_dir": str(tmp_path / "data")}
    return Context("step", "wf_1", "", values, tmp_path, tmp_path / "data", 20.0, Secrets(), accept)


def python(code: str, *arguments: str, **more: Any) -> Command:
    return Command(argv=(sys.executable, "-c", code, *arguments), **more)


# Commands


async def test_a_command_gets_its_arguments_whole_and_no_shell_reads_them(context: Context) -> None:
    attack = "$(touch pwned); `touch pwned` | cat > pwned & \"'\n*"
    show = python("import sys, json; print(json.dumps(sys.argv[1:]))", "${v}", "x=${v}", output="json")
    found = await execute(show, replace(context, values={**context.values, "v": attack}))
    assert found["json"] == [attack, f"x={attack}"]
    assert list(context.folder.iterdir()) == []


async def test_a_command_sees_only_the_allowed_environment(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOWED", "yes")
    monkeypatch.setenv("KEYTURN_DATABASE_URL", "postgresql://me:hidden-password@host/db")
    show = python("import os, json; print(json.dumps(dict(os.environ)))", output="json",
                  environment=("ALLOWED", "NOT_SET"), variables={"ADDED": "v-${keyturn.workflow_id}"})  # fmt: skip
    values = {**context.values, "keyturn.workflow_id": "wf_1"}
    seen: Any = (await execute(show, replace(context, key="wf_1:apply:1", values=values)))["json"]
    assert seen["ALLOWED"] == "yes"
    assert seen["ADDED"] == "v-wf_1"
    assert seen["KEYTURN_IDEMPOTENCY_KEY"] == "wf_1:apply:1"
    assert set(seen) & {"KEYTURN_DATABASE_URL", "NOT_SET"} == set()
    reading: Any = (await execute(show, replace(context, values=values)))["json"]
    assert "KEYTURN_IDEMPOTENCY_KEY" not in reading


async def test_another_exit_code_fails_with_the_last_words_and_no_secret(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOY_TOKEN", "canary-token")
    broken = python("import sys; print('used canary-token, password=canary-two', file=sys.stderr); sys.exit(3)")
    with pytest.raises(StepFailed, match=r"ended with exit code 3: used «hidden»") as failed:
        await execute(broken, replace(context, secrets=Secrets()))
    assert "canary" not in failed.value.detail
    fine = python("import sys; sys.exit(3)", exit_codes=(0, 3))
    assert (await execute(fine, context))["exit_code"] == 3


async def test_output_is_capped_and_secrets_are_hidden_in_it(context: Context) -> None:
    flood = python("import sys; print('first', 'x' * 300_000, 'last'); sys.stderr.write('api_key: canary\\n' * 9000)")
    found = await execute(flood, replace(context, secrets=Secrets(["canary-parameter"])))
    stdout, stderr = str(found["stdout"]), str(found["stderr"])
    assert found["shortened"] is True
    assert len(stdout) < 66_000
    assert stdout.startswith("first xx")
    assert stdout.endswith("xx last\n")
    assert "bytes left out" in stdout
    assert "canary" not in stderr


async def test_a_timeout_kills_the_whole_process_group(context: Context, tmp_path: Path) -> None:
    # The program ignores being asked to end, and so does its child.
    code = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
                          "print('up', flush=True); time.sleep(60)"], stdout=subprocess.PIPE)
child.stdout.readline()
pathlib.Path("pids.new").write_text(f"{child.pid}")
pathlib.Path("pids.new").rename("pids")
time.sleep(60)
"""
    started = time.monotonic()
    with pytest.raises(StepFailed, match="ran longer than 2 s"):
        await execute(python(code), replace(context, seconds=2.0))
    assert time.monotonic() - started < 15
    await gone(int((tmp_path / "pids").read_text()))


async def test_cancelling_kills_the_process_group(context: Context, tmp_path: Path) -> None:
    code = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path("pids.new").write_text(f"{os.getpid()} {child.pid}")
pathlib.Path("pids.new").rename("pids")
time.sleep(60)
"""
    running = asyncio.create_task(execute(python(code), context))
    while not (tmp_path / "pids").exists():  # noqa: ASYNC110 the other side is a process
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    for pid in (tmp_path / "pids").read_text().split():
        await gone(int(pid))


async def test_a_child_that_keeps_the_output_open_neither_blocks_nor_stays(context: Context, tmp_path: Path) -> None:
    code = """
import pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path("pids").write_text(str(child.pid))
print("done")
"""
    assert (await execute(python(code), context))["stdout"] == "done\n"
    await gone(int((tmp_path / "pids").read_text()))


async def gone(pid: int) -> None:
    """Return once the process has ended; the test's own time limit is the bound."""
    while True:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        await asyncio.sleep(0.01)


async def test_a_missing_program_is_said_to_be_missing(context: Context) -> None:
    with pytest.raises(ToolMissing, match="no-such-program is not installed on this machine"):
        await execute(Command(argv=("no-such-program",)), context)
    with pytest.raises(StepFailed, match="there is no folder"):
        await execute(python("", directory="${keyturn.runbooks}/nowhere"), context)
    with pytest.raises(StepFailed, match="did not print JSON"):
        await execute(python("print('{')", output="json"), context)


# HTTP


class Seen:
    """What a server got."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.port = 0


@pytest.fixture
def server() -> Iterator[Seen]:
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.requests.append((self.command, self.path, dict(self.headers.items()), body))
            status = int(self.path.strip("/").split("/")[0])
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/stolen")
            content = b"x" * 2_000_000 if "/big" in self.path else json.dumps(
                {"token": "canary-in-json", "said": self.headers.get("Authorization"), "n": 1}
            ).encode()  # fmt: skip
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if "/slow" in self.path:
                time.sleep(2)
            try:
                self.wfile.write(content)
            except OSError:
                return

        do_GET = do_POST = handle_any  # noqa: N815 the base class's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class's name
            """Stay quiet."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen.port = running.server_port
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield seen
    running.shutdown()
    thread.join()
    running.server_close()


def request(server: Seen, path: str, **more: Any) -> Http:
    return Http.model_validate(
        {"url": f"http://127.0.0.1:{server.port}{path}", "hosts": (f"127.0.0.1:{server.port}",), **more}
    )


async def test_a_request_carries_json_and_the_idempotency_key_and_hides_its_secrets(
    context: Context, server: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_PASS", "canary-header-value")
    values = {**context.values, "n": 5, "list": [1, "two"]}
    call = request(server, "/200", method="POST", json={"n": "${n}", "all": "${list}", "text": "n=${n}"},
                   headers={"Authorization": "Bearer ${env.SERVICE_PASS}", "X-N": "${n}"})  # fmt: skip
    found = await execute(call, replace(context, key="wf_1:apply:1:apply:0", values=values))
    method, _path, headers, body = server.requests[0]
    assert (method, json.loads(body)) == ("POST", {"n": 5, "all": [1, "two"], "text": "n=5"})
    assert headers["Idempotency-Key"] == "wf_1:apply:1:apply:0"
    assert headers["Authorization"] == "Bearer canary-header-value"
    assert headers["X-N"] == "5"
    assert found["status"] == 200
    assert "canary" not in json.dumps(found)


async def test_redirects_and_other_status_codes_fail(context: Context, server: Seen) -> None:
    with pytest.raises(StepFailed, match=r"answered 302 \(redirects are not followed\), expected 2xx"):
        await execute(request(server, "/302"), context)
    with pytest.raises(StepFailed, match="answered 503"):
        await execute(request(server, "/503"), context)
    with pytest.raises(StepFailed, match="answered 200, expected 204, 404"):
        await execute(request(server, "/200", status=(204, 404)), context)
    assert (await execute(request(server, "/404", status=(204, 404)), context))["status"] == 404
    assert len(server.requests) == 4


async def test_a_host_that_is_not_allowed_is_never_called(context: Context, server: Seen) -> None:
    other = request(server, "/200", hosts=("127.0.0.1:1", "localhost:*"))
    with pytest.raises(InvalidInput, match="is not allowed; allowed: 127"):
        await execute(other, context)
    with pytest.raises(InvalidInput, match="line break"):
        await execute(request(server, "/200", headers={"X": "${v}"}), with_values(context, v="a\r\nX-Evil: 1"))
    with pytest.raises(StepFailed, match="the worker's environment has no NOT_THERE"):
        await execute(request(server, "/200", headers={"X": "${env.NOT_THERE}"}), context)
    assert server.requests == []


async def test_a_slow_or_absent_server_fails_in_time_and_a_big_answer_is_cut(context: Context, server: Seen) -> None:
    with pytest.raises(StepFailed, match="GET http://127"):
        await execute(request(server, "/200/slow"), replace(context, seconds=0.2))
    with pytest.raises(StepFailed, match=r"GET http://127\.0\.0\.1:1/"):
        await execute(Http(url="http://127.0.0.1:1/", hosts=("127.0.0.1:*",)), context)
    big = await execute(request(server, "/200/big"), context)
    assert (len(str(big["body"])), big["shortened"], big["json"]) == (65_536, True, None)


def with_values(context: Context, **values: object) -> Context:
    return replace(context, values={**context.values, **values})
