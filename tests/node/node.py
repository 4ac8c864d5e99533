"""Runs scripts of this folder with Node: real npm clients, as `npm ci` installs them from the lock file beside this.

A test asks for the fixture `node_modules` (tests/conftest.py) and awaits `run_script`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parent
MODULES = FOLDER / "node_modules"
# Inside what git ignores, and outlives what npm removes before it installs.
LOCK = FOLDER / ".installing"
STAMP = MODULES / ".installed-from"


def install() -> Path:
    """Install what the lock file names, once; skips the test where Node or npm is missing."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Node 18 or newer; on Debian: apt-get install nodejs npm)")
    wanted = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    with alone():
        if not (STAMP.is_file() and STAMP.read_text(encoding="utf-8") == wanted):
            # No package may run a program of its own at its installation.
            command = [str(shutil.which("npm")), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(
                command, cwd=FOLDER, capture_output=True, text=True, encoding="utf-8", check=False, timeout=100
            )
            assert done.returncode == 0, f"npm ci failed:\n{done.stderr}"
            STAMP.write_text(wanted, encoding="utf-8")
    return MODULES


@contextlib.contextmanager
def alone() -> Generator[None]:
    """One process at a time installs, as the tests run in several."""
    with LOCK.open("w") as file:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def run_script(name: str, env: dict[str, str], *, seconds: float = 60.0) -> Any:
    """Run `tests/node/<name>` with `env` added; returns the JSON on the last line of what it printed.

    The server that a script speaks to may run in this process: nothing here blocks.
    """
    process = await asyncio.create_subprocess_exec(
        "node",
        str(FOLDER / name),
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            stdout, stderr = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, f"{name} ended with {process.returncode}:\n{stderr.decode()}\n{stdout.decode()}"
    lines = stdout.decode().splitlines()
    assert lines, f"{name} printed nothing:\n{stderr.decode()}"
    return json.loads(lines[-1])
