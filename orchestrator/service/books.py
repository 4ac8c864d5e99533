"""Published policies, compiled once: a book never changes, so it is remembered by its number."""

from __future__ import annotations

import asyncio
from typing import Final

from orchestrator.core.policy_file import PolicyBook
from orchestrator.store import policies
from orchestrator.store.db import Database, Params

_REMEMBER_AT_MOST: Final = 256
_NONE: Final = PolicyBook()


class Books:
    """The books of all namespaces, as they are needed."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], PolicyBook] = {}

    async def at(self, db: Database, namespace: str, version: int) -> PolicyBook:
        """The book of that number; an empty one for 0, which says that none is published. Raises Unavailable."""
        if version == 0:
            return _NONE
        known = self._known.get((namespace, version))
        if known is not None:
            return known
        async with db.connection() as conn:
            row = await policies.get(conn, namespace, version)
        return await self._made(namespace, row)

    async def newest(self, db: Database, namespace: str) -> PolicyBook:
        """The book that is published now. Raises Unavailable."""
        async with db.connection() as conn:
            version = await policies.newest_version(conn, namespace)
            known = self._known.get((namespace, version))
            row = None if known or version == 0 else await policies.get(conn, namespace, version)
        return known or await self._made(namespace, row)

    async def _made(self, namespace: str, row: Params | None) -> PolicyBook:
        if row is None:
            return _NONE
        # A large one takes a while to read.
        book = await asyncio.to_thread(book_of, row)
        if len(self._known) >= _REMEMBER_AT_MOST:
            self._known.clear()
        return self._known.setdefault((namespace, book.version), book)


def book_of(row: Params) -> PolicyBook:
    """A published book. Its roles were checked when it was published; the levels may name others by now."""
    book = PolicyBook.load(row["text"], f"policies version {row['version']}", None)
    return book.numbered(row["version"], {name: int(number) for name, number in row["versions"].items()})
