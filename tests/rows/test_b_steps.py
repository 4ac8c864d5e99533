"""Rows B5 and B6: long tasks of steps, their progress as viewers see it, and their ways to end."""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sdk.client import Keyturn
from orchestrator.service import progress, workflows
from orchestrator.service.dispatch import Claimer
from orchestrator.wire_progress import TaskProgress
from tests.apps import long_tasks
from tests.apps.long_tasks import Board, Place
from tests.harness import APPS, caller, running
from tests.harness import Keyturn as Running
from tests.web.edge import served
from tests.web.sse import stream
from tests.web.test_cli import keyturn_command

log = logging.getLogger("keyturn.tests")

# Every promise here is kept in milliseconds; a machine that does ten things at once may take its time.
AT_ONCE = 1.0


@dataclass
class Tasks:
    """A Keyturn with long tasks, and the board of this test."""

    keyturn: Running
    name: str
    board: Board

    async def submit(self, graph: str, **content: object) -> str:
        return await self.keyturn.submit(graph, board=self.name, **content)

    def place(self, name: str) -> Place:
        return self.board.places[name]

    async def progress(self, workflow_id: str) -> TaskProgress:
        return await progress.of_workflow(self.keyturn.ctx, self.keyturn.me, workflow_id)

    async def until_told(self, workflow_id: str, **fields: object) -> TaskProgress:
        """Wait on the event channel until the task's progress has these values."""
        async with asyncio.timeout(20), self.keyturn.ctx.db.listener("keyturn_events") as conn:
            while True:
                found = await self.progress(workflow_id)
                if all(getattr(found, name) == value for name, value in fields.items()):
                    return found
                async for _ in conn.notifies(timeout=0.5, stop_after=1):
                    break

    async def live(self, *, at: datetime | None = None, shown: int = 10) -> list[str]:
        """The live view at some instant."""
        ctx = self.keyturn.ctx if at is None else replace(self.keyturn.ctx, clock=lambda: at)
        found = await progress.live(ctx, self.keyturn.me, shown=shown, seconds=300)
        return [task.workflow_id for task in found.tasks]

    async def cancel(self, workflow_id: str) -> None:
        await workflows.cancel(self.keyturn.ctx, self.keyturn.me, workflow_id, "enough")


class OnMessage(logging.Handler):
    """Calls `then` in the loop, once a message that begins so has been logged."""

    def __init__(self, beginning: str, then: Callable[[], None]) -> None:
        super().__init__()
        self.beginning, self.then = beginning, then
        self.loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self.beginning):
            self.loop.call_soon(self.then)


@pytest.fixture
async def tasks(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Tasks]:
    async with running(database_url, app=APPS / "long_tasks.json") as keyturn:
        name = request.node.name
        board = long_tasks.BOARDS[name] = Board(asyncio.get_running_loop())
        yield Tasks(keyturn, name, board)
        for place in board.places.values():
            place.open()
        del long_tasks.BOARDS[name]


async def test_b5_percent_follows_the_steps_and_sub_steps_by_their_weights(tasks: Tasks) -> None:
    async with tasks.keyturn.working(), served(tasks.keyturn) as edge, edge.http(await edge.key()) as http:
        workflow_id = await tasks.submit("export")

        async def told(percent: float) -> dict[str, Any]:
            await tasks.until_told(workflow_id, percent=percent)
            return (await http.get(f"/workflows/{workflow_id}/progress")).json()

        await tasks.place("collect").until()
        body = await told(6.2)  # a quarter of a quarter
        assert set(body) == {
            "workflowId", "graph", "title", "state", "status", "percent", "message", "elapsedSeconds",
            "remainingSeconds", "createdAt", "startedAt", "finishedAt", "deadlineAt", "steps",
        }  # fmt: skip
        assert (body["state"], body["message"], body["finishedAt"]) == ("running", "collecting", None)
        step = body["steps"][0]
        assert (step["name"], step["title"], step["state"]) == ("collect", "Collect the rows", "running")
        assert (step["percent"], step["done"], step["total"]) == (25.0, 1.0, 4.0)
        assert [one["state"] for one in body["steps"]] == ["running", "pending", "pending"]
        tasks.place("collect").open()
        await tasks.place("copy").until()
        body = await told(31.2)  # and an eighth of two quarters
        assert body["steps"][0]["finishedAt"] is not None
        assert [(one["name"], one["percent"], one["state"]) for one in body["steps"][1]["substeps"]] == [
            ("read", 50.0, "running"),
            ("write", 0.0, "pending"),
        ]
        tasks.place("copy").open()
        body = await told(56.2)
        assert [one["percent"] for one in body["steps"][1]["substeps"]] == [100.0, 50.0]
        assert body["remainingSeconds"] is None or body["remainingSeconds"] >= 0
        tasks.place("copied").open()
        await tasks.keyturn.until(workflow_id, "completed")
        body = await told(100.0)
    assert (body["state"], body["remainingSeconds"]) == ("completed", 0.0)
    assert {one["state"] for one in body["steps"]} == {"completed"}
    assert tasks.board.ran == ["collect", "copy", "seal"]


async def test_b5_a_change_reaches_a_watcher_while_the_step_that_told_it_still_runs(
    tasks: Tasks,
) -> None:
    took: list[float] = []
    async with tasks.keyturn.working(), served(tasks.keyturn) as edge, edge.http(await edge.key()) as http:
        workflow_id = await tasks.submit("pacing", changes=20)
        next_one, began = tasks.place("next"), tasks.board
        async with stream(http, workflow_id) as live:
            await next_one.until()
            for number in range(20):
                # The step tells the next figure when this is set, and nothing else happens until it has been seen.
                next_one.go.set()
                while (event := await live.next())["event"] != "progress":
                    pass
                took.append(time.monotonic() - began.told_at)
                assert event["data"]["data"]["done"] == number + 1
            rest = await live.rest()
    assert rest[-1]["event"] == "workflow-completed"
    log.info(
        "a change reached its watcher in %.0f ms, the last one in %.0f ms",
        1000 * statistics.median(took),
        1000 * max(took),
    )
    assert statistics.median(took) < AT_ONCE


async def test_b5_nothing_is_promised_of_a_task_that_waits_or_has_told_nothing(tasks: Tasks) -> None:
    workflow_id = await tasks.submit("asking")
    queued = await tasks.progress(workflow_id)
    assert (queued.state, queued.percent, queued.remaining_seconds, queued.started_at) == ("pending", 0.0, None, None)
    tasks.place("collect").open()
    async with tasks.keyturn.working():
        one = await tasks.keyturn.asked(workflow_id)
        waiting = await tasks.progress(workflow_id)
        assert (waiting.state, waiting.remaining_seconds) == ("waiting", None)
        assert [step.state for step in waiting.steps] == ["completed", "waiting", "pending"]
        assert waiting.percent == 50.0
        await tasks.keyturn.answer(one.approval_id, value=True)
        await tasks.keyturn.until(workflow_id, "completed")


async def test_b5_finished_tasks_leave_the_live_view_after_five_minutes(tasks: Tasks) -> None:
    workflow_id = await tasks.submit("flaky")
    assert await tasks.live() == [workflow_id]
    async with tasks.keyturn.working():
        done = await tasks.keyturn.until(workflow_id, "completed")
    assert done.finished_at is not None
    assert await tasks.live(at=done.finished_at + timedelta(seconds=299)) == [workflow_id]
    assert await tasks.live(at=done.finished_at + timedelta(seconds=300)) == []
    waiting = await tasks.submit("asking")
    assert await tasks.live(at=done.finished_at + timedelta(days=9)) == [waiting]


async def test_b5_a_viewer_sees_ten_tasks_of_their_own_the_newest_first(tasks: Tasks) -> None:
    mine = [await tasks.submit("export") for _ in range(12)]
    other = replace(tasks.keyturn, me=caller("tom"))
    theirs = await other.submit("export", board=tasks.name)
    async with served(tasks.keyturn) as edge, edge.client("rita") as rita, edge.client("tom") as tom:
        found = await rita.tasks()
        assert [task.workflow_id for task in found.tasks] == mine[:1:-1]
        assert found.more == 2
        assert [task.workflow_id for task in (await tom.tasks()).tasks] == [theirs]
        assert (await rita.progress(mine[0])).state == "pending"
        async with edge.http(await edge.key("zoe", namespace="elsewhere")) as stranger:
            assert (await stranger.get(f"/workflows/{mine[0]}/progress")).status_code == 404
            assert (await stranger.get("/tasks")).json() == {"tasks": [], "more": 0}


async def test_b5_the_command_line_and_the_clients_show_how_far_tasks_are(tasks: Tasks, tmp_path: Path) -> None:
    async with tasks.keyturn.working(), served(tasks.keyturn) as edge:
        rita = {"KEYTURN_URL": edge.url, "KEYTURN_KEY": await edge.key()}
        workflow_id = await tasks.submit("export")
        await tasks.until_told(workflow_id, percent=6.2)
        listed = await keyturn_command("tasks", cwd=tmp_path, **rita)
        assert listed.code == 0, listed.err
        cells = listed.out.rstrip("\n").split("\t")
        assert (*cells[:3], *cells[4:]) == (workflow_id, "running", "6%", "export", "collecting")
        as_json = json.loads((await keyturn_command("tasks", "--json", cwd=tmp_path, **rita)).out)
        assert as_json["tasks"][0]["workflowId"] == workflow_id
        with Keyturn(edge.url, rita["KEYTURN_KEY"]) as client:
            found = await asyncio.to_thread(client.progress, workflow_id)
            assert (found.workflow_id, found.percent) == (workflow_id, 6.2)
            assert [one.workflow_id for one in (await asyncio.to_thread(client.tasks)).tasks] == [workflow_id]
        for place in ("collect", "copy", "copied"):
            tasks.place(place).open()
        watched = await keyturn_command("watch", workflow_id, cwd=tmp_path, **rita)
    assert watched.code == 0
    assert "message=collecting node=collect percent=25.0" in watched.out
    assert "workflow-completed" in watched.out.splitlines()[-1]


async def test_b5_a_graph_without_a_plan_becomes_a_task_when_it_tells_its_progress(tasks: Tasks) -> None:
    workflow_id = await tasks.submit("no_plan")
    assert await tasks.live() == []
    async with tasks.keyturn.working():
        await tasks.keyturn.until(workflow_id, "completed")
    assert await tasks.live() == [workflow_id]
    found = await tasks.progress(workflow_id)
    assert [(step.name, step.state, step.message) for step in found.steps] == [("talk", "completed", "talking")]


@pytest.mark.parametrize("graph", ["timed", "timed_thread"])
async def test_b6_a_step_that_takes_too_long_times_out_and_nothing_follows(tasks: Tasks, graph: str) -> None:
    async with tasks.keyturn.working():
        workflow_id = await tasks.submit(graph)
        ended = await tasks.keyturn.until(workflow_id, "failed")
    assert ended.reason == "step_timed_out"
    found = await tasks.progress(workflow_id)
    assert [step.state for step in found.steps] == ["timed_out", "pending"]
    assert "seal" not in tasks.board.ran
    if graph == "timed":
        assert tasks.board.ran == ["cancelled"]


async def test_b6_a_thread_that_ran_out_of_time_stops_at_its_next_progress_and_never_runs_beside_the_next_attempt(
    tasks: Tasks,
) -> None:
    async with tasks.keyturn.working():
        workflow_id = await tasks.submit("timed_thread")
        await tasks.keyturn.until(workflow_id, "failed")
        # The first attempt's thread was never let go, so the second did not even begin.
        assert tasks.place("block").come == 1
        tasks.place("block").open()
        await asyncio.to_thread(tasks.place("block").left.wait, 20)
    assert tasks.board.ran == ["stopped"]


async def test_b6_a_step_that_fails_is_tried_again_and_a_refusal_is_not(tasks: Tasks) -> None:
    async with tasks.keyturn.working():
        workflow_id = await tasks.submit("flaky", refuse=True)
        ended = await tasks.keyturn.until(workflow_id, "failed")
    assert ended.reason == "rejected"
    assert tasks.board.ran == ["try", "try", "try", "refuse"]
    page = await workflows.events_page(tasks.keyturn.ctx, tasks.keyturn.me, workflow_id, 0, 100)
    told = [event.data for event in page.events if event.type == "progress"]
    assert [one.get("attempt", 1) for one in told] == [1, 2, 3]
    first, _ = (await tasks.progress(workflow_id)).steps
    assert (first.state, first.attempt, first.attempts) == ("completed", 3, 3)


async def test_b6_the_total_time_out_of_the_steps_ends_the_task_as_timed_out(tasks: Tasks) -> None:
    async with tasks.keyturn.working():
        workflow_id = await tasks.submit("short")
        submitted = await tasks.keyturn.get(workflow_id)
        assert submitted.deadline_at == submitted.created_at + timedelta(seconds=0.5)
        await tasks.keyturn.until(workflow_id, "timed_out")
        found = await tasks.progress(workflow_id)
        assert found.state == "timed_out"
        assert [step.state for step in found.steps] == ["timed_out", "cancelled"]
    assert tasks.board.ran == ["cancelled"]


async def test_b6_a_deadline_given_at_submission_goes_before_the_total_time_out(tasks: Tasks) -> None:
    async with served(tasks.keyturn) as edge, edge.client() as client:
        asked = await client.submit("short", {"board": tasks.name}, deadline=60)
    found = await tasks.keyturn.get(asked.workflow_id)
    assert found.deadline_at == found.created_at + timedelta(seconds=60)


async def test_b6_five_run_at_once_over_all_workers(tasks: Tasks) -> None:
    ctx, catalog = tasks.keyturn.ctx, tasks.keyturn.catalog
    tasks.place("copy").open()
    tasks.place("copied").open()
    ids = [await tasks.submit("export") for _ in range(8)]
    async with tasks.keyturn.working(), tasks.keyturn.working():
        await tasks.place("collect").until(5)
        third = Claimer(ctx, "a third", catalog, 3.0, 16)
        claimed, third.busy = await third.claim(0, 0), True
        while third.busy:  # another worker was counting
            claimed += await third.claim(0, 0)
        assert claimed == []
        states = [(await tasks.keyturn.get(one)).status for one in ids]
        assert sorted(states) == ["ready"] * 3 + ["running"] * 5
        assert tasks.place("collect").come == 5
        tasks.place("collect").open()
        for one in ids:
            await tasks.keyturn.until(one, "completed")
    assert tasks.board.ran.count("seal") == 8


async def test_b6_a_queued_task_that_is_cancelled_never_starts(tasks: Tasks) -> None:
    workflow_id = await tasks.submit("export")
    await tasks.cancel(workflow_id)
    tasks.place("collect").open()
    async with tasks.keyturn.working():
        await tasks.keyturn.until(await tasks.submit("flaky"), "completed")
    found = await tasks.progress(workflow_id)
    assert (found.state, {step.state for step in found.steps}) == ("cancelled", {"cancelled"})
    assert "collect" not in tasks.board.ran


async def test_b6_a_waiting_task_that_is_cancelled_goes_no_further(tasks: Tasks) -> None:
    tasks.place("collect").open()
    async with tasks.keyturn.working():
        workflow_id = await tasks.submit("asking")
        await tasks.keyturn.asked(workflow_id)
        await tasks.cancel(workflow_id)
        await tasks.keyturn.until(await tasks.submit("flaky"), "completed")
    found = await tasks.progress(workflow_id)
    assert [step.state for step in found.steps] == ["completed", "cancelled", "cancelled"]
    assert "asked" not in tasks.board.ran


@pytest.mark.parametrize(("graph", "place"), [("export", "collect"), ("blocking", "block")])
async def test_b6_cancel_inside_a_step_tells_its_watchers_at_once(tasks: Tasks, graph: str, place: str) -> None:
    async with tasks.keyturn.working(), served(tasks.keyturn) as edge, edge.http(await edge.key()) as http:
        workflow_id = await tasks.submit(graph)
        async with stream(http, workflow_id) as live:
            await tasks.place(place).until()
            began = time.monotonic()
            assert (await http.post(f"/workflows/{workflow_id}/cancel", json={"reason": "no"})).status_code == 200
            # The step itself is not let go: whoever blocks in it cannot keep the end from being told.
            rest = await live.rest()
            took = time.monotonic() - began
        assert rest[-1]["event"] == "workflow-cancelled"
        assert took < AT_ONCE
        body = (await http.get(f"/workflows/{workflow_id}/progress")).json()
        assert (body["state"], body["remainingSeconds"]) == ("cancelled", None)
        assert [one["state"] for one in body["steps"]][:2] == ["cancelled", "cancelled"]
        tasks.place(place).open()
        if graph == "blocking":
            await asyncio.to_thread(tasks.place(place).left.wait, 20)
            assert tasks.board.ran == ["stopped"]
        await tasks.keyturn.until(await tasks.submit("flaky"), "completed")
    assert "seal" not in tasks.board.ran


async def test_b6_a_stopping_worker_hands_its_tasks_over_at_the_next_barrier(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "keyturn.worker")
    async with tasks.keyturn.working(lease_seconds=120.0):
        workflow_id = await tasks.submit("export")
        await tasks.place("collect").until()
        draining = OnMessage("draining", tasks.place("collect").open)
        logging.getLogger("keyturn.worker").addHandler(draining)
    logging.getLogger("keyturn.worker").removeHandler(draining)
    # It drained: the step it was in is finished, and the next one has not begun.
    found = await tasks.progress(workflow_id)
    assert (found.status, found.percent) == ("ready", 25.0)
    assert [step.state for step in found.steps] == ["completed", "pending", "pending"]
    assert tasks.place("copy").come == 0
    tasks.place("copy").open()
    tasks.place("copied").open()
    async with tasks.keyturn.working():
        await tasks.keyturn.until(workflow_id, "completed")
    assert tasks.board.ran == ["collect", "copy", "seal"]


async def test_b6_a_task_that_failed_goes_on_from_the_step_that_failed(tasks: Tasks) -> None:
    async with tasks.keyturn.working():
        workflow_id = await tasks.submit("timed")
        await tasks.keyturn.until(workflow_id, "failed")
        tasks.place("stuck").open()
        await workflows.retry(tasks.keyturn.ctx, tasks.keyturn.me, workflow_id)
        await tasks.keyturn.until(workflow_id, "completed")
    assert tasks.board.ran == ["cancelled", "seal"]
    assert (await tasks.progress(workflow_id)).percent == 100.0
