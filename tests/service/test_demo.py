"""`keyturn demo` as a user runs it, in a pipe: it ends well, says what it proved, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(300)
_END_SECONDS = 240
_PROVED = (
    "The low risk was decided automatically, and the decision is on record.",
    "The plan counted 6000 rows, which raised the risk to medium.",
    "The requester cannot approve their own request: 403.",
    "The second decider gets 409 and is told that tom decided.",
    "The 6000 rows are gone, the 2000 others are there.",
    "The cto decides in the second stage, which is not open yet: 403.",
    "It was escalated: fay of finance may fill the first stage too.",
    "Exactly the amount changed, and the risk was judged again: high, now medium.",
    "fay's vote was for the old amount and counts no more.",
    "Who edited a request last cannot approve it: 403.",
    "Two people approved it, one in each stage, neither of them rita, who asked, nor tom, who edited.",
    "Exactly the corrected action ran, once: trip-7 is entered with 480.00 EUR.",
    "It happened exactly once: by its own log, version 1.0 was started once.",
    "The ill version was rolled back, and version 1.0 is healthy again.",
    "The deploy that ran meanwhile went on by itself: version 1.1 is healthy.",
    "What waited for a decision still waits.",
    "The answer reached the graph, which knows nothing of Keyturn, and it went on to its end.",
    "The deployed service is stopped.",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everything of one demo has as its folder for temporary files, or below it."""
    made = Path(tempfile.mkdtemp(prefix="keyturn-test-demo-")).resolve()
    yield made
    shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def demo(folder: Path) -> Generator[subprocess.Popen[str]]:
    """A demo that has been started; it is stopped when the test gives up on it."""
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", "demo"],
        cwd=folder, env={**os.environ, **temporary, "PYTHONIOENCODING": "utf-8"}, text=True, encoding="utf-8",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.terminate()


def left_over(folder: Path) -> list[str]:
    """Processes that came of the demo, and files it made."""
    found = [str(path) for path in folder.iterdir()]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("TMPDIR", "").startswith(str(folder)):
                found.append(f"{process.pid} {process.cmdline()}")
    return found


def test_the_demo_proves_what_it_shows_and_leaves_nothing(folder: Path) -> None:
    with demo(folder) as process:
        said, _ = process.communicate(timeout=_END_SECONDS)
    assert process.returncode == 0, said
    summary = said.partition("\nSummary\n")[2].splitlines()
    for proved in _PROVED:
        assert f" ✓ {proved}" in summary, said
    assert "✗" not in said
    assert re.search(r"(worker-\d) \(pid \d+\) is killed with SIGKILL", said)
    assert re.search(r" ✓ worker-\d took over \d\.\d seconds after the kill", said)
    assert re.search(r" ✓ The audit chains of [89] workflows verify: \d+ events computed again\.", said)
    assert re.search(r"Timeline of “Deploy broken-2\.0” \(wf-\w+\): failed", said)
    applied = " ✓ Exactly that plan was applied, and nothing is left to change."
    skipped = "   Skipped: terraform is not installed on this machine."
    assert (applied if shutil.which("terraform") else skipped) in said.splitlines()
    assert left_over(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupted_demo_leaves_nothing(folder: Path) -> None:
    with demo(folder) as process:
        assert process.stdout is not None
        said = ""
        # Everything runs by then.
        while "rita submits" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=_END_SECONDS)[0]
    assert process.returncode == 130, said
    assert said.endswith("interrupted; everything that was started has been stopped\n")
    assert left_over(folder) == []
