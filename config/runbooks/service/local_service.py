"""A small HTTP service and the commands that deploy, restore, show and stop it: for the runbook beside it.

    python local_service.py deploy  --version 1.0 --port 8099 --state FOLDER [--instead-of VERSION] [--settle SECONDS]
    python local_service.py restore --version 1.0 --port 8099 --state FOLDER
    python local_service.py status  --port 8099 --state FOLDER
    python local_service.py stop    --port 8099 --state FOLDER

The service listens on 127.0.0.1 only. A version whose name starts with `broken` answers its health check with 503.
One instance runs per port; `FOLDER/service-<port>.json` says which, and a token in it tells it from other programs.
`FOLDER/service-<port>.log` has a line for every start. With `--settle` a deploy ends once the new version stayed up.
"""

# ruff: noqa: INP001 a script, started by its path

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import cast

HOST = "127.0.0.1"
START_SECONDS = 15.0
STOP_SECONDS = 5.0
PAUSE_SECONDS = 0.05
WATCH_SECONDS = 0.25


@dataclass(frozen=True)
class Instance:
    """The instance that was started last on a port: its version, its secret mark and its process."""

    version: str
    token: str
    pid: int


class Refused(Exception):  # noqa: N818 it is what the command says, not what went wrong
    """The command was not carried out; the text says why."""


def end(_number: int, _frame: FrameType | None) -> None:
    """Leave, when told to."""
    sys.exit(0)


def serve(version: str, port: int, token: str) -> None:
    """Answer until told to end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Health, or a greeting."""
            healthy = not version.startswith("broken")
            if self.path == "/healthz":
                status = 200 if healthy else 503
                body = {"version": version, "healthy": healthy, "token": token, "pid": os.getpid()}
            else:
                status, body = 200, {"hello": f"this is version {version}"}
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer((HOST, port), Handler)
    signal.signal(signal.SIGTERM, end)
    print(f"version {version} started with pid {os.getpid()}", flush=True)  # noqa: T201 its log is its output
    server.serve_forever()


def ask(port: int) -> dict[str, object] | None:
    """What the service on the port says of itself; None when nothing answers like it."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{HOST}:{port}/healthz", timeout=2) as answer:
            content = answer.read(10_000)
    except urllib.error.HTTPError as error:
        content = error.read(10_000)
    except OSError:
        return None
    try:
        found: object = json.loads(content)
    except ValueError:
        return None
    return cast("dict[str, object]", found) if isinstance(found, dict) and "token" in found else None


def recorded(state: Path, port: int) -> Instance | None:
    """The instance the record names."""
    try:
        return Instance(**json.loads((state / f"service-{port}.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def record(state: Path, port: int, instance: Instance) -> None:
    """Write the record, whole or not at all, readable by its owner only."""
    state.mkdir(parents=True, exist_ok=True)
    scratch = state / f"service-{port}.json.{secrets.token_hex(4)}"
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(asdict(instance), file)
    scratch.replace(state / f"service-{port}.json")


def running(state: Path, port: int) -> Instance | None:
    """The recorded instance, if it is the one that answers on the port."""
    known = recorded(state, port)
    said = ask(port) if known else None
    if known is None or said is None or said.get("token") != known.token:
        return None
    return Instance(known.version, known.token, int(str(said["pid"])))


def taken(port: int) -> bool:
    """Whether anything listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def wait_until(holds: Callable[[], object], seconds: float) -> bool:
    """Whether a function came true in time."""
    latest = time.monotonic() + seconds
    while time.monotonic() < latest:
        if holds():
            return True
        time.sleep(PAUSE_SECONDS)
    return False


def stop(state: Path, port: int) -> Instance | None:
    """End the instance on the port and forget it; None when none of ours runs there."""
    found = running(state, port)
    if found is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGTERM)
        if not wait_until(lambda: not taken(port), STOP_SECONDS):
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
            wait_until(lambda: not taken(port), STOP_SECONDS)
    (state / f"service-{port}.json").unlink(missing_ok=True)
    return found


def start(state: Path, port: int, version: str) -> Instance:
    """Start an instance away from this process, and wait until it answers."""
    if taken(port):
        raise Refused(f"another program uses {HOST}:{port}")
    token = secrets.token_hex(8)
    # Recorded before it runs: if this command is killed here, the next one still knows the instance by its token.
    record(state, port, Instance(version, token, 0))
    command = [sys.executable, str(Path(__file__).resolve()), "serve", "--version", version, "--port", str(port)]
    with (state / f"service-{port}.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 our own program and arguments
            [*command, "--token", token], cwd=state, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=sys.platform != "win32",
            creationflags=0x00000208 if sys.platform == "win32" else 0,  # detached, in a group of its own
        )  # fmt: skip
    wait_until(lambda: process.poll() is not None or running(state, port), START_SECONDS)
    if process.poll() is not None or running(state, port) is None:
        process.kill()
        process.wait()
        (state / f"service-{port}.json").unlink(missing_ok=True)
        raise Refused(f"version {version} did not start; see {state / f'service-{port}.log'}")
    record(state, port, Instance(version, token, process.pid))
    return Instance(version, token, process.pid)


def watch(state: Path, port: int, version: str, seconds: float) -> None:
    """See to it that `version` stays up for a while."""
    latest = time.monotonic() + seconds
    while time.monotonic() < latest:
        time.sleep(WATCH_SECONDS)
        present = running(state, port)
        if present is None or present.version != version:
            raise Refused(f"version {version} did not stay up; see {state / f'service-{port}.log'}")


def deploy(state: Path, port: int, version: str, instead_of: str | None, settle: float = 0.0) -> str:
    """Put `version` on the port in place of `instead_of` ("" for nothing); nothing happens when it runs already.

    After a start it is watched for `settle` seconds.
    """
    present = running(state, port)
    if present and present.version == version:
        return f"version {version} runs already"
    found = present.version if present else ""
    if instead_of is not None and found != instead_of:
        raise Refused(f"{found or 'nothing'} runs on port {port}, and {instead_of or 'nothing'} was expected")
    stop(state, port)
    started = start(state, port, version)
    watch(state, port, version, settle)
    return f"version {version} runs with pid {started.pid}"


def restore(state: Path, port: int, version: str) -> str:
    """Put an earlier version back; with "" nothing is left running."""
    if version:
        return deploy(state, port, version, None)
    return "stopped" if stop(state, port) else "nothing was running"


def status(state: Path, port: int) -> str:
    """As JSON: the version that runs ("" for none), and the same in words."""
    present = running(state, port)
    if present is None and taken(port):
        raise Refused(f"another program uses {HOST}:{port}")
    words = f"version {present.version}" if present else "nothing"
    return json.dumps({"version": present.version if present else "", "running": words})


def main() -> int:
    """Carry out one command; 0 when it was done, 1 when it was refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["deploy", "restore", "status", "stop", "serve"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", type=Path, default=Path(".keyturn/services"))
    parser.add_argument("--version", default="")
    parser.add_argument("--instead-of")
    parser.add_argument("--settle", type=float, default=0.0)
    parser.add_argument("--token", default="")
    given = parser.parse_args()
    state = given.state.resolve()
    if given.command == "serve":
        serve(given.version, given.port, given.token)
        return 0
    try:
        if given.command == "deploy":
            said = deploy(state, given.port, given.version, given.instead_of, given.settle)
        elif given.command == "restore":
            said = restore(state, given.port, given.version)
        elif given.command == "stop":
            said = "stopped" if stop(state, given.port) else "nothing was running"
        else:
            said = status(state, given.port)
    except Refused as error:
        print(error, file=sys.stderr)  # noqa: T201 a command line speaks by printing
        return 1
    print(said)  # noqa: T201 the same
    return 0


if __name__ == "__main__":
    sys.exit(main())
