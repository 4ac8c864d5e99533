"""Running one program to its end: never a shell, only the environment it is given, a time limit, limited output.

On POSIX the program leads a process group of its own, and ends with everything in it. What it deliberately detaches
(a service in a session of its own) lives on. A program outlives a worker that is killed: see `verified_by`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from orchestrator.core.errors import StepFailed, ToolMissing

# What a program needs to run at all; everything else is passed only when the runbook lists it.
BASE_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT", "COMSPEC", "PATHEXT", "TEMP")
# How long a program that was told to end may take, and how long output may stay open after its end.
GRACE_SECONDS = 2.0
_LINGER_SECONDS = 1.0
_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended, and the start and the end of what it wrote."""

    exit_code: int
    stdout: str
    stderr: str
    shortened: bool


class _Capped:
    """Keeps the first and the last half of `limit` bytes; counts what lies between."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.lost = 0

    def add(self, chunk: bytes) -> None:
        room = self._half - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        excess = len(self._tail) - self._half
        if excess > 0:
            del self._tail[:excess]
            self.lost += excess

    def text(self) -> str:
        head, tail = bytes(self._head), bytes(self._tail)
        if not self.lost:
            return (head + tail).decode(errors="replace")
        middle = f"\n… {self.lost} bytes left out …\n"
        return head.decode(errors="replace") + middle + tail.decode(errors="replace")


def environment(allowed: Sequence[str], added: Mapping[str, str]) -> dict[str, str]:
    """The environment for a program: the basics, the worker's variables named in `allowed`, and `added` on top."""
    names = (*BASE_ENVIRONMENT, *allowed)
    return {name: os.environ[name] for name in names if name in os.environ} | dict(added)


async def run(
    argv: Sequence[str],
    *,
    directory: Path,
    variables: Mapping[str, str],
    seconds: float,
    limit: int,
    grace: float = GRACE_SECONDS,
) -> Finished:
    """Run `argv` in `directory` with exactly `variables`, for at most `seconds`; keep `limit` bytes of each output.

    Raises ToolMissing when there is no such program, StepFailed when it cannot start or runs out of time: then the
    program and its group are asked to end, and killed after `grace` seconds. When the caller is cancelled they are
    killed at once.
    """
    process = _start(argv, directory, variables)
    output, errors = _Capped(limit), _Capped(limit)
    readers = [_read(process.stdout, output), _read(process.stderr, errors)]
    try:
        async with asyncio.timeout(seconds):
            exit_code = await _ended(process)
    except TimeoutError:
        await _end(process, grace)
        await _closed(readers)
        words = errors.text()[-400:].strip() or "none"
        raise StepFailed(f"{argv[0]} was stopped: it ran longer than {seconds:g} s; its last words: {words}") from None
    except BaseException:
        # Cancelled: nothing may go on behind the back of whoever cancelled.
        kill(process)
        raise
    if not await _closed(readers):
        # The program has ended and something it started still holds its output open.
        kill(process)
        await _closed(readers)
    return Finished(exit_code, output.text(), errors.text(), bool(output.lost or errors.lost))


def _start(argv: Sequence[str], directory: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            return subprocess.Popen(  # noqa: S603 an argument list, never a shell
                argv, cwd=directory, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, creationflags=flags,
            )  # fmt: skip
        return subprocess.Popen(  # noqa: S603 an argument list, never a shell
            argv, cwd=directory, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        if not directory.is_dir():
            raise StepFailed(f"{argv[0]} cannot start: there is no folder {directory}") from error
        raise ToolMissing(f"{argv[0]} is not installed on this machine, or not in the PATH of the worker") from error
    except (OSError, ValueError) as error:
        raise StepFailed(f"{argv[0]} cannot start: {error}") from error


def _read(pipe: IO[bytes] | None, into: _Capped) -> threading.Thread:
    def read() -> None:
        if pipe is None:
            return
        with pipe:
            while chunk := os.read(pipe.fileno(), _CHUNK):
                into.add(chunk)

    reader = threading.Thread(target=read, name="keyturn-output", daemon=True)
    reader.start()
    return reader


async def _ended(process: subprocess.Popen[bytes]) -> int:
    """Wait in a thread of its own: the shared pool must not fill up with long commands."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def tell(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    def wait() -> None:
        code = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
            loop.call_soon_threadsafe(tell, code)

    threading.Thread(target=wait, name="keyturn-command", daemon=True).start()
    return await ended


async def _closed(readers: Sequence[threading.Thread]) -> bool:
    """Whether all output has been read within a short time."""
    for reader in readers:
        if reader.is_alive():
            await asyncio.to_thread(reader.join, _LINGER_SECONDS)
    return not any(reader.is_alive() for reader in readers)


async def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """Ask the program and its group to end, then make them, whatever happens meanwhile."""
    try:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await _ended(process)
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the program and everything in its group, at once."""
    if sys.platform == "win32":
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
    else:
        _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    if sys.platform == "win32":
        process.terminate()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        os.killpg(process.pid, how)
