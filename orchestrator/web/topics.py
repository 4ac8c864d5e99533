"""Which feeds over several workflows an event concerns: they are woken, and only they.

Before they are, it is looked how far the events of all workflows are complete; they read no further than that.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from orchestrator.service.feeds import topics
from orchestrator.service.horizon import Horizon
from orchestrator.store import feeds
from orchestrator.store.db import Database

# Feeds are woken no more often than that, however much happens.
_APART_SECONDS: Final = 0.02
_LOOK_SECONDS: Final = 1.0
_REMEMBERED: Final = 20_000
_MOST_CHANGED: Final = 5_000


class Topics:
    """Wakes the followers of topics. `run` works until it is cancelled, and may be run again after it failed."""

    def __init__(self, db: Database, horizon: Horizon, wake: Callable[[str], None]) -> None:
        self._db = db
        self._horizon = horizon
        self._wake = wake
        # How many follow each topic, and in which namespaces.
        self._followed: Counter[str] = Counter()
        self._namespaces: Counter[str] = Counter()
        self._changed: set[str] = set()
        self._due: set[str] = set()
        self._rung = asyncio.Event()
        # To what topics a workflow belongs, which never changes.
        self._belongs: dict[str, list[str]] = {}
        self._looked = 0

    def followed(self, topic: str, namespace: str) -> None:
        """Somebody follows `topic` from now on: what happened just before is looked for once more."""
        self._followed[topic] += 1
        self._namespaces[namespace] += 1
        self._due.add(topic)
        self._rung.set()

    def left(self, topic: str, namespace: str) -> None:
        """They do no more."""
        for counter, name in ((self._followed, topic), (self._namespaces, namespace)):
            counter[name] -= 1
            if not counter[name]:
                del counter[name]

    def told(self, workflow_ids: Iterable[str]) -> None:
        """Something happened in these workflows."""
        if self._followed:
            self._changed.update(workflow_ids)
            self._rung.set()

    def told_of_all(self) -> None:
        """Something may have happened anywhere."""
        if self._followed:
            self._due.update(self._followed)
            self._rung.set()

    async def run(self) -> None:
        """Wake whom it concerns when something happens, and once a second whom nobody told of what did."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ring())
            group.create_task(self._look())

    async def _ring(self) -> None:
        while True:
            await self._rung.wait()
            self._rung.clear()
            changed, self._changed = self._changed, set()
            due, self._due = self._due, set()
            try:
                # After this, whatever was told of so far is known to be there.
                await self._horizon.reach()
                due |= await self._concerned(changed)
            except BaseException:
                self._changed |= changed
                self._due |= due
                self._rung.set()
                raise
            for topic in due:
                self._wake(topic)
            await asyncio.sleep(_APART_SECONDS)

    async def _concerned(self, workflow_ids: set[str]) -> set[str]:
        """The topics that workflows belong to and somebody follows."""
        if len(self._belongs) > _REMEMBERED:
            self._belongs.clear()
        if unknown := [one for one in workflow_ids if one not in self._belongs]:
            async with self._db.connection() as conn:
                found = await feeds.belongs(conn, unknown)
            self._belongs.update((str(row["workflow_id"]), topics(row)) for row in found)
        named = (topic for one in workflow_ids for topic in self._belongs.get(one, ()))
        return {topic for topic in named if topic in self._followed}

    async def _look(self) -> None:
        """Make good what was never rung: who rings does so after the commit, and may die before."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self._followed:
                self._looked = 0
                continue
            reached = await self._horizon.reach()
            if self._looked and reached > self._looked:
                async with self._db.connection() as conn:
                    changed = await feeds.changed(conn, self._namespaces, self._looked, reached, _MOST_CHANGED)
                if sum(changed.values()) < _MOST_CHANGED:
                    self.told(changed)
                else:
                    self.told_of_all()
            elif not self._looked:
                self.told_of_all()
            self._looked = reached
