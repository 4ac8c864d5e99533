"""Long tasks that tests lead by the hand: each comes to places at which it waits until it is told to go on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langgraph.graph import END, START, StateGraph

from orchestrator.sdk import ActionRejected, Step, Substep, confirm, idempotency_key, progress, steps
from tests.apps.graphs_for_tests import State

Input = Mapping[str, Any]


@dataclass
class Place:
    """Where a task waits. `come` counts those that came; `go` lets all of them on, also those in threads."""

    come: int = 0
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    go_thread: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    async def enter(self) -> None:
        """A task is here."""
        async with self.arrived:
            self.come += 1
            self.arrived.notify_all()

    async def wait(self) -> None:
        """What a task does here."""
        await self.enter()
        await self.go.wait()

    async def until(self, count: int = 1) -> None:
        """Wait until so many tasks came here."""
        async with asyncio.timeout(20), self.arrived:
            await self.arrived.wait_for(lambda: self.come >= count)

    def open(self) -> None:
        """Let them go on."""
        self.go.set()
        self.go_thread.set()


@dataclass
class Board:
    """What the tasks of one test share: their places, and what ran, in order."""

    loop: asyncio.AbstractEventLoop
    places: defaultdict[str, Place] = field(default_factory=lambda: defaultdict(Place))
    ran: list[str] = field(default_factory=list)
    told_at: float = 0.0


BOARDS: dict[str, Board] = {}


def board(state: Input) -> Board:
    """The board of the test that submitted this."""
    return BOARDS[state["board"]]


def ran(state: Input, what: str) -> None:
    """Note what ran."""
    board(state).ran.append(f"{state.get('label', '')}{what}")


async def collect(state: Input) -> Input:
    progress(done=1, total=4, message="collecting")
    await board(state).places["collect"].wait()
    ran(state, "collect")
    return {"rows": 4}


async def copy(state: Input) -> None:
    progress(substep="read", percent=50)
    await board(state).places["copy"].wait()
    progress(substep="read", percent=100)
    progress(substep="write", done=1, total=2, message="writing")
    await board(state).places["copied"].wait()
    ran(state, "copy")


async def seal(state: Input) -> Input:
    ran(state, "seal")
    return {"sealed": idempotency_key()}


export = steps(
    [
        Step("collect", collect, title="Collect the rows"),
        Step("copy", copy, weight=2, substeps=[Substep("read", title="Read"), Substep("write", weight=3)]),
        Step("seal", seal),
    ]
)


def block(state: Input) -> Input:
    place, loop = board(state).places["block"], board(state).loop
    progress(10, message="blocking")
    asyncio.run_coroutine_threadsafe(place.enter(), loop).result()
    place.go_thread.wait(20)
    try:
        progress(20)
        ran(state, "block")
    except asyncio.CancelledError:
        ran(state, "stopped")
        raise
    finally:
        place.left.set()
    return {}


blocking = steps([Step("block", block), Step("seal", seal)])


async def stuck(state: Input) -> None:
    try:
        await board(state).places["stuck"].wait()
    except asyncio.CancelledError:
        ran(state, "cancelled")
        raise


timed = steps([Step("stuck", stuck, timeout=0.2), Step("seal", seal)])
timed_thread = steps([Step("block", block, timeout=0.3, retries=1), Step("seal", seal)])
short = steps([Step("stuck", stuck), Step("seal", seal)], timeout=0.5)


async def fail_twice(state: Input) -> None:
    progress(40, message="trying")
    ran(state, "try")
    if board(state).ran.count("try") < 3:
        raise ValueError("not yet")


async def refuse(state: Input) -> None:
    ran(state, "refuse")
    if state.get("refuse"):
        raise ActionRejected("no")


flaky = steps([Step("fail_twice", fail_twice, retries=2), Step("refuse", refuse, retries=5)])


async def pace(state: Input) -> None:
    place = board(state).places["next"]
    await place.enter()
    for number in range(state["changes"]):
        await place.go.wait()
        place.go.clear()
        board(state).told_at = time.monotonic()
        progress(done=number + 1, total=state["changes"])


pacing = steps([Step("pace", pace)])


def ask_first(state: Input) -> None:
    progress(50, message="asking")
    confirm("Shall it go on?")
    ran(state, "asked")


asking = steps([Step("collect", collect), Step("ask_first", ask_first), Step("seal", seal)])


async def talk(state: State) -> State:
    progress(30, message="talking")
    return {"log": ["talk"]}


def ways(state: State) -> str:
    return "talk" if not state.get("log") else END


def _no_plan() -> Any:
    builder = StateGraph(State)
    builder.add_node("talk", talk)
    builder.add_conditional_edges(START, ways)
    builder.add_edge("talk", END)
    return builder.compile()


no_plan = _no_plan()


async def repeat(state: Input) -> None:
    secret = str(state["password"])
    progress(substep=f"log in with {secret}", percent=50, message=f"{'x' * 495} {secret}")
    progress(substep=f"{'y' * 95} {secret}", percent=50)
    await board(state).places["repeat"].wait()


indiscreet = steps([Step("repeat", repeat)])
