"""One LISTEN connection per process, fanned out to everybody who follows a workflow, or several at once.

A follower holds no database connection while it waits. What is new is read by the follower itself, and here only once
for all who stand at the same place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Generator, Hashable
from typing import Any, Final, TypeVar

from orchestrator.core.errors import Unavailable
from orchestrator.service.feeds import is_topic
from orchestrator.service.horizon import Horizon
from orchestrator.store.db import Database
from orchestrator.store.events import EVENTS_CHANNEL
from orchestrator.store.heads import heads
from orchestrator.web.topics import Topics

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_LOOK_SECONDS: Final = 1.0
_READS_AT_ONCE: Final = 4

_log: Final = logging.getLogger(__name__)

T = TypeVar("T")
# Namespace, workflow or topic, and after what to read; at one place everybody reads the same.
Place = tuple[str, str, Hashable]


class Hub:
    """Wakes followers when a workflow has new events. `run` works until it is cancelled; `stop` ends all streams.

    A topic, whose name begins with `@`, is what several workflows are followed by at once.
    """

    def __init__(self, db: Database, horizon: Horizon) -> None:
        self._db = db
        self._topics = Topics(db, horizon, self._wake)
        self._followers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._heads: dict[str, int] = {}
        self._reads: dict[Place, asyncio.Task[Any]] = {}
        # Streams may never take all connections of the pool from the calls beside them.
        self._turns = asyncio.Semaphore(_READS_AT_ONCE)
        self.stopping = False

    async def run(self) -> None:
        """Listen and look, whatever becomes of the database in between."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again_and_again(self._listen))
            group.create_task(self._again_and_again(self._look))
            group.create_task(self._again_and_again(self._topics.run))

    def stop(self) -> None:
        """Let every stream end now, so that the server can stop."""
        self.stopping = True
        self._wake_all()

    @contextlib.contextmanager
    def follow(self, name: str, namespace: str = "") -> Generator[asyncio.Event]:
        """An event that is set whenever the workflow, or the topic in a namespace, may have something new."""
        woken = asyncio.Event()
        self._followers[name].add(woken)
        if is_topic(name):
            self._topics.followed(name, namespace)
        try:
            yield woken
        finally:
            followers = self._followers[name]
            followers.discard(woken)
            if not followers:
                del self._followers[name]
                self._heads.pop(name, None)
            if is_topic(name):
                self._topics.left(name, namespace)

    async def read(self, place: Place, fetch: Callable[[], Awaitable[T]], *, frugal: bool = False) -> T:
        """What is at `place`, fetched once for all who ask for it at the same time. A `frugal` reading goes together
        with others anyway, and takes no turn.
        """
        task = self._reads.get(place)
        if task is None:
            task = asyncio.create_task(self._in_turn(fetch) if not frugal else _fetched(fetch))
            self._reads[place] = task
            task.add_done_callback(lambda done: self._forget(place, done))
        # One reader who leaves must not take the page away from the others.
        return await asyncio.shield(task)

    async def _in_turn(self, fetch: Callable[[], Awaitable[T]]) -> T:
        async with self._turns:
            return await fetch()

    def _forget(self, place: Place, done: asyncio.Task[Any]) -> None:
        if self._reads.get(place) is done:
            del self._reads[place]
        if not done.cancelled():
            done.exception()  # looked at, as the last reader may have left

    async def _again_and_again(self, work: Callable[[], Awaitable[None]]) -> None:
        pause = _FIRST_PAUSE
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await work()
            except Unavailable as error:
                _log.warning("streams: the database is away (%s), trying again", error.facts.get("cause"))
            except Exception:  # noqa: BLE001 - without this task a process would serve its streams late, for ever
                _log.exception("streams: listening for events failed, trying again")
            lasted = asyncio.get_running_loop().time() - began
            pause = _FIRST_PAUSE if lasted > _LONGEST_PAUSE else min(pause * 2, _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _listen(self) -> None:
        async with self._db.listener(EVENTS_CHANNEL) as conn:
            # What was rung while nobody listened is not rung again.
            self._wake_all()
            self._topics.told_of_all()
            async for notice in conn.notifies():
                workflow_ids = notice.payload.split(",")
                for workflow_id in workflow_ids:
                    self._wake(workflow_id)
                self._topics.told(workflow_ids)

    async def _look(self) -> None:
        """Once a second make good what was never rung: who rings does so after the commit, and may die before."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            followed = [name for name in self._followers if not is_topic(name)]
            if not followed:
                continue
            async with self._db.connection() as conn:
                found = await heads(conn, followed)
            for workflow_id, head in found.items():
                if workflow_id in self._followers and self._heads.get(workflow_id) != head:
                    self._heads[workflow_id] = head
                    self._wake(workflow_id)

    def _wake(self, name: str) -> None:
        # A read that is under way may have begun before what we are told of now: nobody else may join it.
        for place in [place for place in self._reads if place[1] == name]:
            del self._reads[place]
        for woken in self._followers.get(name, ()):
            woken.set()

    def _wake_all(self) -> None:
        self._reads.clear()
        for followers in self._followers.values():
            for woken in followers:
                woken.set()


async def _fetched(fetch: Callable[[], Awaitable[T]]) -> T:
    return await fetch()
