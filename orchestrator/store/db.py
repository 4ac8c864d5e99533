"""The connection pool and its rules: time-outs, dead-peer detection, and what an unreachable database looks like.

No statement of an aggregate lives here, and nothing above the store imports psycopg's errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable, Generator
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from orchestrator.core.errors import LeaseLost, MigrationFault, NotStorable, Unavailable
from orchestrator.store.together import Connection, Item, Result, Statement, Together

Params = dict[str, Any]

# What SQL takes as `now`: None lets the database say; a test returns an instant instead.
Clock = Callable[[], datetime | None]

# Wake the listeners of several channels.
RING = "SELECT pg_notify(c, p) FROM unnest(%(channels)s::text[], %(payloads)s::text[]) AS r (c, p)"
_PAYLOAD_LIMIT = 7000
# A patient ring waits so many seconds, so that several go in one notification; watchers hear of it within 100 ms.
_PATIENCE = 0.03

SEARCH_PATH = "keyturn,langgraph,procrastinate,public"
# A half-open connection must be noticed within 5 s: keepalives find an idle one, tcp_user_timeout a busy one.
_LINK: Params = {
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
    "connect_timeout": 3,
}
_RETRY_AFTER = 1
# SQLSTATEs of a table, a schema and a function that are not there.
_NOT_THERE = ("42P01", "3F000", "42883")


def database_clock() -> datetime | None:
    """The clock of a real deployment: let the database say."""
    return None


def link_options(application: str, statement_seconds: float = 30.0) -> Params:
    """Connection keywords every connection of ours uses; `application` shows in pg_stat_activity."""
    # Every statement of ours has its index, and a plan made while tables are small is kept when they no longer are. And
    # only plain index scans mark what is dead, of which every workflow leaves some in the indexes of ready and leased.
    # (What has no other plan looks costly then, which must not have it compiled.)
    options = (
        f"-c search_path={SEARCH_PATH} -c statement_timeout={int(statement_seconds * 1000)}"
        " -c idle_in_transaction_session_timeout=10000 -c timezone=UTC -c enable_seqscan=off"
        " -c enable_bitmapscan=off -c jit=off"
    )
    return {**_LINK, "options": options, "application_name": application}


class Database:
    """A pool of autocommit connections. `timeout` is how many seconds a caller waits for a free one."""

    def __init__(
        self,
        url: str,
        *,
        min_size: int = 2,
        max_size: int = 12,
        timeout: float = 0.8,
        connect_seconds: int = 3,
        statement_seconds: float = 30.0,
    ) -> None:
        self.url = url
        # What is rung with where somebody here has heard it already.
        self.mark = secrets.token_hex(8)
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            connection_class=AsyncConnection[DictRow],
            kwargs={
                **link_options("keyturn", statement_seconds),
                "connect_timeout": connect_seconds,
                "autocommit": True,
                "row_factory": dict_row,
                "prepare_threshold": 2,
            },
            min_size=min_size,
            max_size=max_size,
            timeout=timeout,
            reconnect_timeout=2.0,
            open=False,
        )
        self._rung: set[tuple[str, str]] = set()
        self._ringing: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._near: dict[str, list[Callable[[], None]]] = {}
        self._together: dict[object, Together[Any, Any]] = {}

    def ring(self, channel: str, payload: str, *, patient: bool = False) -> None:
        """Wake listeners of `channel`, after a commit and outside of it. A `patient` ring waits some milliseconds for
        others to go with it, and so does one that has woken somebody in this process at once: it carries our `mark`.

        NOTIFY inside a transaction makes commits queue behind one lock. A ring that is lost with a process is made
        good by the listeners, who look for themselves once a second.
        """
        if near := self._near.get(channel):
            payload = self.mark
            for wake in near:
                wake()
        elif not patient:
            self._hurry.set()
        self._rung.add((channel, payload))
        if self._ringing is None or self._ringing.done():
            self._ringing = asyncio.get_running_loop().create_task(self._ring_all())

    @contextlib.contextmanager
    def hearing(self, channel: str, wake: Callable[[], None]) -> Generator[None]:
        """Call `wake` for every ring from here on `channel` while the block runs, not by way of Postgres."""
        near = self._near.setdefault(channel, [])
        near.append(wake)
        try:
            yield
        finally:
            near.remove(wake)

    async def _ring_all(self) -> None:
        while self._rung:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._hurry.wait()
            self._hurry.clear()
            rung, self._rung = self._rung, set()
            pairs = [(channel, part) for channel in {c for c, _ in rung} for part in _packed(channel, rung)]
            with contextlib.suppress(Unavailable):
                async with self.connection() as conn:
                    await conn.execute(
                        RING, {"channels": [c for c, _ in pairs], "payloads": [part for _, part in pairs]}
                    )

    @property
    def pool(self) -> AsyncConnectionPool[Connection]:
        """For LangGraph's saver, which takes a pool."""
        return self._pool

    async def open(self) -> None:
        """Open the pool; raises Unavailable when the database does not answer."""
        try:
            await self._pool.open(wait=True, timeout=10.0)
        except (PoolTimeout, psycopg.OperationalError) as error:
            raise _unavailable(error) from error

    async def close(self) -> None:
        """Send what is still to ring, and close every connection."""
        self._hurry.set()
        if self._ringing is not None:
            await asyncio.wait([self._ringing], timeout=2.0)
        for kind in self._together.values():
            await kind.settled(2.0)
        await self._pool.close()

    async def together(self, statement: Statement[Item, Result], item: Item, *, alone: bool = False) -> Result | None:
        """What came of `statement` for `item`, in one transaction with what others ask of it at the same time; None
        if it was not done. `alone` is for what is so large that others should not wait for it. Raises Unavailable.
        """
        kind = self._together.get(statement)
        if kind is None:
            kind = self._together[statement] = Together(self.connection, statement)
        return await kind.send(item, alone=alone)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """A connection for single statements, each its own transaction. Raises Unavailable."""
        with translated():
            # As the pool's own context, without the layer it adds to each of the hot path's statements.
            conn = await self._pool.getconn()
            try:
                async with conn:
                    yield conn
            finally:
                await self._pool.putconn(conn)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """A connection inside one transaction: all of the block commits, or none of it. Raises Unavailable."""
        async with self.connection() as conn, conn.transaction():
            yield conn

    @contextlib.asynccontextmanager
    async def pipeline(self, begin: LiteralString = "BEGIN") -> AsyncGenerator[Connection]:
        """A transaction whose statements are sent together until the block reads what one of them gave.

        What follows the last reading is sent with its COMMIT: psycopg's own transaction would wait three times there.
        Where the block fails, the pool's connection rolls back.
        """
        async with self.connection() as conn:
            async with conn.pipeline():
                await conn.execute(begin)
                yield conn
                done = await conn.execute("COMMIT")
            if done.statusmessage != "COMMIT":
                detail = "the transaction had failed before its end; nothing of it was stored, try again"
                raise Unavailable(detail, retry_after=_RETRY_AFTER)

    def snapshot(self) -> contextlib.AbstractAsyncContextManager[Connection]:
        """A transaction that only reads, all of it as of one moment."""
        return self.pipeline("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    @contextlib.asynccontextmanager
    async def listener(self, *channels: LiteralString) -> AsyncGenerator[Connection]:
        """A connection of its own, outside the pool, that listens on `channels`."""
        with translated():
            conn = await AsyncConnection[DictRow].connect(
                self.url, **link_options("keyturn-listen"), autocommit=True, row_factory=dict_row
            )
            try:
                for channel in channels:
                    await conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                yield conn
            finally:
                await conn.close()


def _packed(channel: str, rung: set[tuple[str, str]]) -> list[str]:
    """The payloads of a channel as comma-separated lists that fit a notification."""
    parts: list[list[str]] = [[]]
    size = 0
    for payload in sorted(p for c, p in rung if c == channel):
        if size + len(payload) > _PAYLOAD_LIMIT:
            parts.append([])
            size = 0
        parts[-1].append(payload)
        size += len(payload) + 1
    return [",".join(part) for part in parts]


@contextlib.contextmanager
def translated() -> Generator[None]:
    """Turn psycopg's ways of saying "gone" into Unavailable, and our own fence into LeaseLost."""
    try:
        yield
    except (PoolTimeout, PoolClosed) as error:
        raise _unavailable(error) from error
    except psycopg.Error as error:
        if error.sqlstate == "KT001":
            raise LeaseLost(str(error).splitlines()[0]) from error
        if error.sqlstate in _NOT_THERE:
            detail = f"the database is not migrated ({str(error).splitlines()[0]}); run `keyturn migrate`"
            raise MigrationFault(detail) from error
        if isinstance(error, psycopg.DataError):
            detail = f"the database cannot hold this value: {str(error).splitlines()[0]}"
            raise NotStorable(detail) from error
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            raise _unavailable(error) from error
        raise
    except UnicodeEncodeError as error:
        detail = "the database cannot hold this value: a text contains half of a surrogate pair"
        raise NotStorable(detail) from error
    except (TimeoutError, ConnectionError) as error:
        raise _unavailable(error) from error


def _unavailable(error: BaseException) -> Unavailable:
    detail = "the database is away or has no free connection; what was committed is safe, try again shortly"
    return Unavailable(detail, retry_after=_RETRY_AFTER, cause=type(error).__name__)
