"""What requests are judged by, remembered: the rules, the published policies, and who holds which role.

Whoever claims a workflow learns the two numbers that tell whether what is remembered still holds.
"""

from __future__ import annotations

from typing import Final

from orchestrator.config import Governance
from orchestrator.core.asking import Law
from orchestrator.service.books import Books
from orchestrator.store import people
from orchestrator.store.db import Database

_REMEMBER_AT_MOST: Final = 1000


class Laws:
    """The law of each namespace, by the versions of its policies and of its people."""

    def __init__(self, db: Database, governance: Governance, books: Books) -> None:
        self._db = db
        self._governance = governance
        self._books = books
        self._known: dict[str, tuple[tuple[int, int], Law]] = {}

    @property
    def tells(self) -> bool:
        """Whether anybody is ever told of a request."""
        return self._governance.tells

    async def at(self, namespace: str, policy_version: int, people_version: int) -> Law:
        """The law with these published policies and these people, or newer ones. Raises Unavailable."""
        known = self._known.get(namespace)
        if known is not None and known[0][0] >= policy_version and known[0][1] >= people_version:
            return known[1]
        async with self._db.connection() as conn:
            holders = await people.by_role(conn, namespace)
        # Whoever asks may know newer people and older policies than are remembered, and others ask meanwhile.
        (policies, persons), _ = self._known.get(namespace, ((0, 0), None))
        versions = (max(policies, policy_version), max(persons, people_version))
        book = await self._books.at(self._db, namespace, versions[0])
        law = Law(self._governance.rules, book, holders, self._governance.confidence)
        newest = self._known.get(namespace)
        if newest is not None and newest[0][0] > versions[0]:
            return newest[1]
        if len(self._known) >= _REMEMBER_AT_MOST:
            self._known.clear()
        self._known[namespace] = (versions, law)
        return law

    async def refresh(self) -> None:
        """Learn which policies and people have changed since: a workflow may run for long. Raises Unavailable."""
        async with self._db.connection() as conn:
            found = await people.all_versions(conn, list(self._known))
        for namespace, versions in found.items():
            await self.at(namespace, *versions)

    async def now(self, namespace: str) -> Law:
        """The law as of this moment. Raises Unavailable."""
        async with self._db.connection() as conn:
            return await self.at(namespace, *await people.versions(conn, namespace))
