"""The scenes with an outage: a worker killed in the middle of a step, an ill version, and Postgres killed."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Final, cast

import httpx

from orchestrator.cli.demo.children import DemoFailed
from orchestrator.cli.demo.operations import applied, ask_release_note, rows_older, show_gate
from orchestrator.cli.demo.play import WAIT_SECONDS, Play
from orchestrator.cli.demo.stage import LEASE_SECONDS
from orchestrator.store import demo, effects
from orchestrator.store.db import Params
from orchestrator.wire import EventRecord

SETTLE_SECONDS: Final = 3
RECENT_DAYS: Final = 30
_LOOK_SECONDS: Final = 0.05
# A claim is tried once a second, and the machine may be busy.
_SLACK_SECONDS: Final = 3.0
_UNPROCESSABLE: Final = 422
_STOP_SECONDS: Final = 20.0


def worker_killed(play: Play) -> None:
    """A worker dies in the middle of an apply; another one finishes it, and the effect happened once."""
    tell = play.teller
    tell.scene("Deploy, and the worker is killed in the middle of it")
    workflow_id = _deploy(play, "1.0", "Deploy 1.0")
    began = _until_deploying(play, workflow_id, "1.0")
    holder = play.stage.workers[began.actor.removeprefix("worker:")]
    holder.kill()
    killed = time.monotonic()
    tell.line(f"Version 1.0 is up, its step is not over. {holder.name} (pid {holder.pid}) is killed with SIGKILL.")
    taken = play.event(
        workflow_id, lambda event: event.type == "workflow-started" and event.actor != began.actor, began.seq
    )
    seconds, taker = time.monotonic() - killed, play.stage.name_of(taken.actor)
    tell.check(
        f"{taker} took over {seconds:.1f} seconds after the kill (a lease is {LEASE_SECONDS:g} seconds).",
        held=seconds <= LEASE_SECONDS + _SLACK_SECONDS,
    )
    ended = play.finished(workflow_id)
    tell.check(f"{taker} finished it: version 1.0 is healthy.", held=applied(ended) and _served(play) == "1.0")
    _check_once(play, workflow_id, "1.0", at_least=2)


def rolled_back(play: Play) -> None:
    """The new version fails its health check, and the version before it is put back."""
    tell = play.teller
    tell.scene("Deploy of an ill version: rolled back")
    workflow_id = _deploy(play, "broken-2.0", "Deploy broken-2.0", settle=0)
    ended = play.finished(workflow_id)
    error = ended.error or {}
    tell.line(f"{ended.status} ({error.get('code')}): {error.get('detail')}")
    tell.check(
        "The ill version was rolled back, and version 1.0 is healthy again.",
        held=(ended.status, error.get("code"), _served(play)) == ("failed", "rolled_back", "1.0"),
    )


def postgres_killed(play: Play) -> str:
    """Postgres dies while one workflow runs and two wait; returns the one that asks a question, which waits on."""
    tell = play.teller
    tell.scene("Postgres is killed while work runs and waits")
    purge = play.operate(f"Purge production after {RECENT_DAYS} days", "purge-old-rows", table=demo.TABLE,
                         keep_days=RECENT_DAYS, environment="production")  # fmt: skip
    show_gate(play, play.gate(purge))
    question = ask_release_note(play)
    deploy = _deploy(play, "1.1", "Deploy 1.1")
    _until_deploying(play, deploy, "1.1")
    _kill_postgres(play)
    ended = play.finished(deploy)
    tell.check("The deploy that ran meanwhile went on by itself: version 1.1 is healthy.",
               held=applied(ended) and _served(play) == "1.1")  # fmt: skip
    _check_once(play, deploy, "1.1")
    waiting = {one.workflow_id for one in play.cast["cleo"].pending().workflows}
    tell.check("What waited for a decision still waits.", held={purge, question} <= waiting)
    _decide_critical(play, purge)
    return question


def stop_service(play: Play) -> None:
    """Stop the service that was deployed."""
    script = play.stage.config_dir / "runbooks" / "service" / "local_service.py"
    state = play.stage.data_dir / "services"
    command = [sys.executable, str(script), "stop", f"--port={play.stage.service_port}", f"--state={state}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_STOP_SECONDS, check=False)  # noqa: S603 ours
    play.teller.check("The deployed service is stopped.", held=done.returncode == 0 and _served(play) is None)


def _deploy(play: Play, version: str, title: str, settle: int = SETTLE_SECONDS) -> str:
    """Submit a deploy to production and approve it; returns the workflow."""
    workflow_id = play.operate(title, "deploy-local-service", version=version, port=play.stage.service_port,
                               environment="production", settle_seconds=settle)  # fmt: skip
    asked = play.gate(workflow_id)
    play.teller.line(f"It waits: {asked.description}. Risk {asked.risk_level}.")
    play.decide(workflow_id, "tara", "Tested yesterday.", ask=False)
    return workflow_id


def _until_deploying(play: Play, workflow_id: str, version: str) -> EventRecord:
    """Wait until the new version answers and its step is not over; returns the beginning of that step."""
    began = play.event(workflow_id, lambda event: event.type == "step-started" and event.data.get("node") == "apply")
    deadline = time.monotonic() + WAIT_SECONDS
    while _served(play) != version:
        if time.monotonic() > deadline:
            raise DemoFailed(f"version {version} does not answer on port {play.stage.service_port}")
        time.sleep(_LOOK_SECONDS)
    return began


def _served(play: Play) -> str | None:
    """The version that answers on the service's port; None when nothing does."""
    try:
        address = f"http://127.0.0.1:{play.stage.service_port}/healthz"
        found = cast("dict[str, object]", httpx.get(address, trust_env=False, timeout=2.0).json())
    except (httpx.TransportError, ValueError):
        return None
    return str(found.get("version"))


def _check_once(play: Play, workflow_id: str, version: str, at_least: int = 1) -> None:
    """The ledger has the step once and finished, and by its own log the service was started once.

    `at_least` so often the step must have been begun.
    """
    ledger = play.stage.look(lambda conn: effects.of_workflow(conn, workflow_id))
    (entry,) = [row for row in ledger if row["name"] == "apply:0"]
    log = play.stage.data_dir / "services" / f"service-{play.stage.service_port}.log"
    starts = log.read_text(encoding="utf-8").count(f"version {version} started ")
    play.teller.line(f"Ledger: {entry['key']} is {entry['state']}, begun {_times(int(entry['attempts']))}")
    once = entry["state"] == "finished" and starts == 1 and int(entry["attempts"]) >= at_least
    play.teller.check(f"It happened exactly once: by its own log, version {version} was started {_times(starts)}.",
                      held=once and _bound(ledger))  # fmt: skip


def _bound(ledger: list[Params]) -> bool:
    """Whether one effect used the approval, and every effect of the workflow is finished."""
    used = [row for row in ledger if row["approval_id"] is not None]
    return len(used) == 1 and all(row["state"] == "finished" for row in ledger)


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _kill_postgres(play: Play) -> None:
    """End Postgres as a crash would, see the API say so, and start it again."""
    tell, server = play.teller, play.stage.postgres
    tell.line(f"Postgres (pid {server.pid}) is killed.")
    server.kill()
    asked = time.monotonic()
    answer = play.cast["owner"].ready()
    tell.check(f"Meanwhile the API answers that the database is away, in {time.monotonic() - asked:.2f} seconds.",
               held=not answer.ready and not answer.database)  # fmt: skip
    began = time.monotonic()
    server.start()
    deadline = began + WAIT_SECONDS
    while not play.cast["owner"].ready().ready:
        if time.monotonic() > deadline:
            raise DemoFailed("the API does not find the database again")
        time.sleep(_LOOK_SECONDS)
    tell.line(f"Postgres was started again; the API found it after {time.monotonic() - began:.1f} seconds.")


def _decide_critical(play: Play, workflow_id: str) -> None:
    """The request of critical risk: it needs words, and the CTO's are good."""
    tell, before = play.teller, rows_older(play, RECENT_DAYS)
    blank = play.refusal(workflow_id, "cleo")
    tell.check("A critical risk is approved only with a justification: 422.",
               held=(blank.status, blank.code) == (_UNPROCESSABLE, "justification_required"))  # fmt: skip
    approved = play.decide(workflow_id, "cleo", "Retention is 30 days; legal agreed.")
    ended = play.finished(workflow_id)
    left = rows_older(play, RECENT_DAYS)
    if approved:
        tell.check(f"The {before} rows are gone.", held=applied(ended) and before > 0 and left == 0)
    else:
        tell.check("Rejected: not one row was deleted.", held=ended.status == "rejected" and left == before)
