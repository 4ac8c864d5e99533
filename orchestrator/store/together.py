"""Statements of one kind that many ask for at once, sent together: one round trip, one transaction, one flush to disk.

Nobody waits for others to come: what is asked for while others are under way goes with the next. Nobody waits for the
row of another either: where one is locked, or something of one kind cannot be stored, each is sent by itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from orchestrator.core.errors import Unavailable

Connection = AsyncConnection[DictRow]
Item = TypeVar("Item")
Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

# So many go together, and so many times at once. Of 16 workflows under way, more would all wait for one another, and
# fewer would cost more each: docs/decisions/0004-sent-together.md.
_MOST = 8
_AT_ONCE = 2


class Statement(Protocol[Item_contra, Result_co]):
    """Does what it can of `items`, all in one transaction; what came of each, None for what was not done. Unless it may
    `wait`, what another transaction holds is not done.
    """

    async def __call__(
        self, conn: Connection, items: Sequence[Item_contra], /, *, wait: bool
    ) -> Sequence[Result_co | None]:
        """Run on a connection in autocommit."""
        ...


@dataclass(frozen=True, slots=True)
class _Asked(Generic[Item, Result]):
    item: Item
    answer: asyncio.Future[Result | None]


class Together(Generic[Item, Result]):
    """One kind of statement, on connections that `lend` gives."""

    def __init__(
        self, lend: Callable[[], AbstractAsyncContextManager[Connection]], statement: Statement[Item, Result]
    ) -> None:
        self._lend = lend
        self._statement = statement
        self._asked: list[_Asked[Item, Result]] = []
        self._sending: list[asyncio.Task[None]] = []

    async def send(self, item: Item, *, alone: bool = False) -> Result | None:
        """What came of `item`, None if it was not done; with `alone` it waits for no others, nor they for it."""
        if not alone:
            loop = asyncio.get_running_loop()
            asked: _Asked[Item, Result] = _Asked(item, loop.create_future())
            self._asked.append(asked)
            self._sending = [task for task in self._sending if not task.done()]
            if len(self._sending) < _AT_ONCE:
                # In a context of its own: it sends for many.
                self._sending.append(loop.create_task(self._send_all(), context=contextvars.Context()))
            answer = await asked.answer
            if answer is not None:
                return answer
        async with self._lend() as conn:
            (answer,) = await self._statement(conn, [item], wait=True)
        return answer

    async def settled(self, seconds: float) -> None:
        """Wait until nothing is under way, for so many seconds."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=seconds)

    async def _send_all(self) -> None:
        batch: Sequence[_Asked[Item, Result]] = ()
        try:
            while self._asked:
                # Whoever was cancelled while waiting asks for nothing any more.
                batch = _open(self._asked[:_MOST])
                del self._asked[:_MOST]
                if batch:
                    await self._send(batch)
        finally:
            # Only where this task was cancelled does anybody still wait for it.
            for one in batch:
                one.answer.cancel()

    async def _send(self, batch: Sequence[_Asked[Item, Result]]) -> None:
        try:
            async with self._lend() as conn:
                answers = await self._statement(conn, [one.item for one in batch], wait=False)
            answered = list(zip(batch, answers, strict=True))
        except Exception as error:  # noqa: BLE001 by itself, each tells whose it was
            for one in _open(batch):
                if _is_away(error):
                    one.answer.set_exception(copy.copy(error))
                else:
                    one.answer.set_result(None)
        else:
            for one, answer in answered:
                if not one.answer.done():
                    one.answer.set_result(answer)


def _is_away(error: Exception) -> bool:
    """Whether the database is away; what it says itself, but that it goes away, concerns one of the items."""
    state = getattr(error.__cause__, "sqlstate", None)
    return isinstance(error, Unavailable) and (state is None or state.startswith(("08", "57P")))


def _open(batch: Sequence[_Asked[Item, Result]]) -> list[_Asked[Item, Result]]:
    return [one for one in batch if not one.answer.done()]
