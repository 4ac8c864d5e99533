"""One run of the demo: options, the order of the scenes, interruptions, and what the exit code says."""

from __future__ import annotations

import argparse
import contextlib
import signal
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from orchestrator.cli.demo import operations, outages, proof, several
from orchestrator.cli.demo.children import DemoFailed
from orchestrator.cli.demo.play import PEOPLE, Play, cast_of
from orchestrator.cli.demo.stage import Stage
from orchestrator.cli.demo.telling import Teller, can_ask
from orchestrator.cli.output import complain
from orchestrator.core.errors import KeyturnError
from orchestrator.sdk.client import ClientError

_FAILED: Final = 1
_INTERRUPTED: Final = 130
_WORKERS: Final = 2
# Beside what `keyturn up` keeps.
LOGS: Final = Path(".keyturn") / "demo-logs"
_ENDING: Final = ("SIGINT", "SIGTERM", "SIGHUP")


def run(arguments: Sequence[str]) -> int:
    """Run the demo; 0 when all it shows holds."""
    parser = argparse.ArgumentParser(
        prog="keyturn demo", description="Show everything once, and leave nothing running."
    )
    parser.add_argument("--yes", "-y", action="store_true", help="decide by itself, also on a terminal")
    given = parser.parse_args(arguments)
    teller = Teller(asks=can_ask() and not given.yes)
    began = time.monotonic()
    with _ended_by_signals():
        try:
            code, left_behind = _on_stage(teller)
        except KeyboardInterrupt:
            complain("interrupted; everything that was started has been stopped")
            return _INTERRUPTED
    for thing in left_behind:
        complain(f"could not be cleared away: {thing}")
    if not left_behind:
        teller.heading(f"Nothing is left running. It took {time.monotonic() - began:.0f} seconds.")
    return code or (_FAILED if left_behind else 0)


def _on_stage(teller: Teller) -> tuple[int, list[str]]:
    """Play on a stage that is gone afterwards; returns the exit code and what could not be cleared away."""
    stage = Stage()
    with _undisturbed(stage):
        try:
            code = _played(teller, stage)
        except Exception:
            _keep_logs(stage)
            raise
        if code:
            _keep_logs(stage)
    return code, stage.left_behind


def _keep_logs(stage: Stage) -> None:
    where = LOGS.resolve()
    complain(f"the logs are in {where}" if stage.keep_logs(where) else f"the logs cannot be kept in {where}")


def _played(teller: Teller, stage: Stage) -> int:
    """Play all scenes; a failure is said, with what was expected and did not hold."""
    try:
        _play(teller, stage)
    except (DemoFailed, ClientError, KeyturnError, OSError) as error:
        complain(f"the demo stopped: {error}")
        return _FAILED
    except EOFError:
        complain("the demo stopped: it asked a question and the input has ended; --yes decides without asking")
        return _FAILED
    for expectation in teller.failed:
        complain(f"this did not hold: {expectation}")
    return _FAILED if teller.failed else 0


def _play(teller: Teller, stage: Stage) -> None:
    owner_key = _set_up(teller, stage)
    with cast_of(stage, owner_key) as cast:
        play = Play(stage, teller, cast)
        for person, roles in PEOPLE.items():
            teller.line(f"{person}: {', '.join(roles)}")
        operations.fill(play)
        operations.vacuum(play)
        operations.purge(play)
        operations.terraform(play)
        several.expense(play)
        outages.worker_killed(play)
        outages.rolled_back(play)
        question = outages.postgres_killed(play)
        operations.answer_release_note(play, question)
        outages.stop_service(play)
        proof.show_timelines(play)
        proof.verify_chains(play)
        proof.summarize(play)


def _set_up(teller: Teller, stage: Stage) -> str:
    """Start everything; returns the key of the first person."""
    teller.heading("Keyturn's demo: Postgres, an API and two workers, all on free ports in a folder of its own")
    stage.start_postgres()
    teller.line(f"Postgres runs (pid {stage.postgres.pid}), data in {stage.data_dir}")
    # The API starts while this process prepares the database; it needs the schema only when it is asked something.
    stage.start_api()
    key = stage.prepare()
    teller.line("The schema is there, and the first person has a key.")
    stage.start_workers(_WORKERS)
    for child in stage.children:
        teller.line(f"{child.name} runs (pid {child.pid}){f' on {stage.url}' if child.name == 'api' else ''}")
    return key


@contextlib.contextmanager
def _undisturbed(stage: Stage) -> Generator[None]:
    """The stage, whose clearing away no further signal cuts short."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(stage)
        stack.callback(_catch, signal.SIG_IGN)
        yield


@contextlib.contextmanager
def _ended_by_signals() -> Generator[None]:
    """Inside, a request to end raises KeyboardInterrupt, whichever signal it came by."""
    before = {number: signal.getsignal(number) for number in _caught()}
    _catch(signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _caught() -> list[signal.Signals]:
    return [number for number in signal.Signals if number.name in _ENDING]


def _catch(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for number in _caught():
        signal.signal(number, handler)
