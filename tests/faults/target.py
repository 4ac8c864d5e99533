"""The world outside: where effects land in fault tests, and how a test holds a node at a named point.

It is a folder and never the database, so that what really happened can be compared with what the tables say. Nodes of
tests/apps/fault_graphs.py write here from worker processes; tests read and hold.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_POLL = 0.01


@dataclass(frozen=True)
class Effect:
    """One call that reached the target. `taken` is false when its key had been used before, so nothing happened."""

    key: str
    what: str
    pid: int
    taken: bool
    at: float

    @property
    def workflow_id(self) -> str:
        return self.key.split(":")[0]


@dataclass(frozen=True)
class Target:
    """A target that honours idempotency keys: a second call with a key is noted and changes nothing."""

    folder: Path

    def prepare(self) -> None:
        for name in ("keys", "held"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    # What nodes do

    def call(self, key: str, what: str = "") -> bool:
        """Apply an effect once per key; returns whether this call did."""
        place = self.folder / "keys" / hashlib.sha256(key.encode()).hexdigest()
        try:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            taken = True
        except FileExistsError:
            taken = False
        self._append("calls", json.dumps([key, what, os.getpid(), taken, time.time()]))
        return taken

    def mark(self, line: str) -> None:
        """Note what happens, in the one order all processes share."""
        self._append("marks", line)

    def _append(self, name: str, line: str) -> None:
        # One short write to a file opened for appending is never torn or interleaved.
        descriptor = os.open(self.folder / name, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)

    async def point(self, name: str) -> None:
        """A point of a node: noted, and not passed while a test holds it."""
        self.mark(f"at {name}")
        while self.is_held(name):  # noqa: ASYNC110 another process lets go
            await asyncio.sleep(_POLL)

    def point_in_thread(self, name: str) -> None:
        """The same for a sync node."""
        self.mark(f"at {name}")
        while self.is_held(name):
            time.sleep(_POLL)

    # What tests do

    def hold(self, *names: str) -> None:
        for name in names:
            (self.folder / "held" / name).touch()

    def release(self, *names: str) -> None:
        for name in names:
            (self.folder / "held" / name).unlink(missing_ok=True)

    def is_held(self, name: str) -> bool:
        return (self.folder / "held" / name).exists()

    def marks(self) -> list[str]:
        return self._lines("marks")

    def calls(self) -> list[Effect]:
        return [Effect(*json.loads(line)) for line in self._lines("calls")]

    def calls_of(self, workflow_id: str) -> list[Effect]:
        return [call for call in self.calls() if call.workflow_id == workflow_id]

    def applied(self) -> Counter[str]:
        """How often each effect really happened, by what it was."""
        return Counter(call.what for call in self.calls() if call.taken)

    def _lines(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    async def until(self, line: str, times: int = 1, seconds: float = 20.0) -> None:
        """Wait until a mark was made `times` times."""
        await self.until_any(line, times=times, seconds=seconds)

    async def until_any(self, *beginnings: str, times: int = 1, seconds: float = 20.0) -> None:
        """Wait until marks that begin with one of these were made `times` times."""
        end = time.monotonic() + seconds
        while (found := sum(line.startswith(beginnings) for line in self.marks())) < times:
            assert time.monotonic() < end, f"{beginnings} seen {found} times, not {times}, in {self.marks()}"
            await asyncio.sleep(_POLL)
