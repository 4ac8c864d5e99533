"""The processes that the demo starts, and finding all that came of them.

Each is known by its pid and, with everything it starts itself, by the folder for temporary files that it was given:
no other process has that folder, so nothing else is ever ended.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

# The variables that say where temporary files go; runbook commands are given them too.
TEMPORARY: Final = ("TMPDIR", "TEMP", "TMP")
_LOOK_SECONDS: Final = 0.05
_GONE_SECONDS: Final = 5.0
_SHOWN_LINES: Final = 8


class DemoFailed(Exception):  # noqa: N818 what the demo says, in the words of the product
    """The demo cannot go on; the message says where and why."""


class Child:
    """One process of ours. Its output goes to `log`."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        windows = sys.platform == "win32"
        with log.open("wb") as output:
            # Away from the terminal's group: Ctrl-C is for the demo, which then ends these in order.
            self._process = subprocess.Popen(  # noqa: S603 our own program and arguments
                [sys.executable, "-m", "orchestrator.cli", *arguments],
                cwd=log.parent,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=not windows,
                creationflags=subprocess.CREATE_NEW_PROCESS_GROUP if sys.platform == "win32" else 0,
            )
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def word(self, before: str, seconds: float) -> str:
        """The word that it prints after `before`; waits for it. DemoFailed when it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # Asked first: what it said before it ended is all there then.
            ended = not self.alive
            for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
                head, found, tail = line.partition(before)
                if found and not head and tail.endswith("\n"):
                    return tail.split()[0]
            if ended:
                raise DemoFailed(f"{self.name} ended before it was ready: {self._last_words()}")
            time.sleep(_LOOK_SECONDS)
        raise DemoFailed(f"{self.name} was not ready after {seconds:g} seconds: {self._last_words()}")

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        self._process.kill()
        self._process.wait()

    def ask_to_end(self) -> None:
        """Ask it to end in good order."""
        if self.alive:
            self._process.terminate()

    def end(self, seconds: float) -> None:
        """Wait for its end, and make it end after `seconds`."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.kill()

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "\n".join(lines[-_SHOWN_LINES:]) or "it said nothing"


def strays(scratch: Path) -> list[psutil.Process]:
    """Every process that runs with `scratch` as its folder for temporary files."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            own = process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE
            if not own and str(scratch) in map(process.environ().get, TEMPORARY):
                found.append(process)
    return found


def end_strays(scratch: Path) -> bool:
    """End what is left of our processes; whether all of it is gone."""
    deadline = time.monotonic() + _GONE_SECONDS
    while found := strays(scratch):
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if time.monotonic() > deadline:
            return False
        psutil.wait_procs(found, timeout=_LOOK_SECONDS)
    return True
