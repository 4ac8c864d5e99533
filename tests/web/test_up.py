"""`keyturn up` as people run it: one process with everything in it, that survives its Postgres and stops in order."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from orchestrator.core.anchors import check_anchor
from orchestrator.sdk.client import AsyncKeyturn
from orchestrator.service.signing import ensure_key
from tests.harness import APPS

PROJECT = Path(__file__).resolve().parents[2]


@dataclass
class Up:
    """A running `keyturn up` and what it said so far."""

    process: asyncio.subprocess.Process
    said: list[str]
    data_dir: Path

    @property
    def credentials(self) -> dict[str, str]:
        """What it wrote for the command line."""
        return json.loads((self.data_dir / "credentials.json").read_text())

    def client(self, key: str | None = None) -> AsyncKeyturn:
        """A client with the first key, or another."""
        return AsyncKeyturn(self.credentials["url"], key or self.credentials["key"])

    @property
    def postmaster(self) -> int:
        """The process id of its Postgres."""
        return int((self.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def environment(data_dir: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    return {**clean, "KEYTURN_DATA_DIR": str(data_dir), "KEYTURN_LEASE_SECONDS": "3"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator.cli", *arguments]


@asynccontextmanager
async def up(data_dir: Path, *arguments: str) -> AsyncGenerator[Up]:
    """Run `keyturn up` on a free port while the block runs; then SIGTERM, which it must obey with exit code 0."""
    process = await asyncio.create_subprocess_exec(
        *command("up", "--port", "0", *arguments), cwd=PROJECT, env=environment(data_dir),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    found = Up(process, [], data_dir)
    try:
        async with asyncio.timeout(60):
            while not found.said or not found.said[-1].startswith("Stop it"):
                line = await process.stdout.readline()
                assert line, found.said
                found.said.append(line.decode().rstrip())
        yield found
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 40) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder that Postgres' own user can reach, which pytest's folders are not."""
    folder = Path(tempfile.mkdtemp(prefix="keyturn-up-"))
    yield folder / "data"
    shutil.rmtree(folder, ignore_errors=True)


async def test_one_command_serves_survives_and_stops(data_dir: Path) -> None:
    async with up(data_dir, "--app", str(APPS / "langgraph.json")) as one:
        file = data_dir / "credentials.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        first = one.credentials
        assert first["person"] == "owner"
        assert any("governed" in line for line in one.said)
        assert first["key"] not in "\n".join(one.said)

        anchor_key = data_dir / "anchor-key.pem"
        assert stat.S_IMODE(anchor_key.stat().st_mode) == 0o600

        second = await asyncio.create_subprocess_exec(
            *command("up", "--port", "0"), cwd=PROJECT, env=environment(data_dir),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, complaint = await asyncio.wait_for(second.communicate(), 30)
        assert second.returncode == 1
        assert f"{data_dir} is already in use by another Keyturn (pid {one.process.pid})" in complaint.decode()

        owner = one.client()
        await owner.put_person("tara", roles=["tech_lead"])
        waiting = await owner.submit("governed", {"operation": "deploy", "environment": "production"})
        assert (await owner.wait(waiting.workflow_id, 20, until="settled")).status == "waiting"

        postmaster = one.postmaster
        os.kill(postmaster, signal.SIGKILL)
        # Tried again while Postgres comes back, and the same server goes on with its work.
        async with asyncio.timeout(30):
            while not (await owner.ready()).ready or one.postmaster == postmaster:
                assert one.process.returncode is None
        made = await owner.create_key("tara", ["read", "decide"])
        tara = one.client(made.key)
        assert (await tara.approve(waiting.workflow_id, "go")).code == "resolved"
        done = await owner.wait(waiting.workflow_id, 20)
        assert done.status == "completed", done.error
        postmaster = one.postmaster
        anchor = b"".join([piece async for piece in owner.anchor_audit()]).decode().splitlines()
        assert check_anchor(anchor, ensure_key(anchor_key)).chains == 2
        assert (await owner.verify_audit()).ok
        await owner.close()
        await tara.close()
    assert not psutil.pid_exists(postmaster)

    file.chmod(0o600)
    async with up(data_dir, "--app", str(APPS / "langgraph.json")) as two:
        assert two.credentials["key"] == first["key"]
        again = two.client()
        assert (await again.status(waiting.workflow_id)).status == "completed"
        await again.close()
        file.unlink()

    async with up(data_dir) as three:
        assert three.credentials["key"] != first["key"]
        last = three.client()
        assert (await last.workflows()).workflows
        assert "operation" in "\n".join(three.said)
        await last.close()
