"""Reading a Postgres table for an export: what it looks like, how much it holds, and one batch after the other.

A batch is one snapshot. It begins behind the last key of the batch before and ends at its own last key, so a batch can
be read without looking at any other. The server itself writes the CSV (COPY), one form whatever the session's settings.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias, cast

import psycopg
from psycopg import sql
from psycopg.rows import DictRow, dict_row

from orchestrator.sdk import InvalidInput, StepFailed
from orchestrator.sdk.executors import Secrets
from orchestrator.sdk.executors.sql import address

Connection: TypeAlias = psycopg.AsyncConnection[DictRow]
Key: TypeAlias = tuple[str, ...]

_CONNECT_SECONDS = 5
_COUNT_SECONDS = 15
_BATCH_SECONDS = 300
_CHUNK = 256 * 1024
_ITS_OWN = re.compile(r"pg_.*|information_schema")

# For one transaction, so that it holds behind a connection pooler too. Values are written in one way whatever the
# server's or role's settings are, and a batch walks the index of the key instead of sorting the table each time.
_SETTINGS: Mapping[str, str] = {
    "search_path": "public",
    "statement_timeout": f"{_BATCH_SECONDS}s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": f"{_BATCH_SECONDS}s",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "enable_seqscan": "off",
    "enable_sort": "off",
}
_BEGIN = sql.SQL("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_SET = sql.SQL("SELECT {}").format(
    sql.SQL(", ").join(
        sql.SQL("set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value))
        for name, value in _SETTINGS.items()
    )
)
# Plain and partitioned tables. Rows of other child tables would not be under the parent's unique index.
_TABLE = """
SELECT c.oid, greatest(c.reltuples, 0)::bigint AS estimated, c.relkind IN ('r', 'p') AS is_table,
       c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid) AS has_children
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s
"""
_COLUMNS = """
SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, t.typname AS base
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
# What names each row once, at any moment: no part of it null, compared as the column itself is.
_KEYS = """
SELECT array_agg(a.attname::text ORDER BY k.place) AS columns, i.indisprimary AS is_primary
  FROM pg_catalog.pg_index i
 CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0
 WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
   AND k.place <= i.indnkeyatts
 GROUP BY i.indexrelid, i.indisprimary
HAVING bool_and(coalesce(a.attnotnull AND i.indcollation[k.place - 1] = a.attcollation, false))
 ORDER BY i.indisprimary DESC, i.indexrelid
"""
# Key columns of these types come back from text as the very same value, and sort in one way only.
_KEY_TYPES: Mapping[str, sql.SQL] = {
    "int2": sql.SQL("int2"), "int4": sql.SQL("int4"), "int8": sql.SQL("int8"), "numeric": sql.SQL("numeric"),
    "text": sql.SQL("text"), "varchar": sql.SQL("text"), "bpchar": sql.SQL("bpchar"), "uuid": sql.SQL("uuid"),
    "date": sql.SQL("date"), "timestamp": sql.SQL("timestamp"), "timestamptz": sql.SQL("timestamptz"),
    "bytea": sql.SQL("bytea"), "bool": sql.SQL("bool"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    """Which rows a batch is to have: the next `rows` behind the key `after`, none of them behind `up_to`."""

    number: int
    after: Key | None
    up_to: Key | None
    rows: int


@dataclass(frozen=True, slots=True)
class Shape:
    """A table as it is now, in what an export depends on: the types of its columns and of its key."""

    schema: str
    table: str
    columns: Mapping[str, str]
    key: Key
    key_types: Key
    estimated: int

    @property
    def described(self) -> list[str]:
        """The columns with their types, for people and for the digest of what they approve."""
        return [f"{name}: {kind}" for name, kind in self.columns.items()]

    @property
    def _from(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)

    @property
    def _key(self) -> sql.Composed:
        return sql.SQL(", ").join(map(sql.Identifier, self.key))

    def _value(self, key: Key) -> sql.Composed:
        typed = zip(key, self.key_types, strict=True)
        return sql.SQL(", ").join(sql.SQL("{}::{}").format(sql.Literal(text), _KEY_TYPES[kind]) for text, kind in typed)

    def count(self) -> sql.Composed:
        """How many rows there are."""
        return sql.SQL("SELECT count(*) AS rows FROM {}").format(self._from)

    def last(self) -> sql.Composed:
        """The greatest key."""
        return self._ends(sql.SQL("SELECT {} FROM {}").format(self._key, self._from))

    def end_of(self, page: Page) -> sql.Composed:
        """The key of the last row of the page."""
        rows = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT {}").format(
            self._key, self._from, self._between(page.after, page.up_to), self._key, sql.Literal(page.rows)
        )
        return self._ends(rows)

    def _ends(self, rows: sql.Composed) -> sql.Composed:
        # Named with their table: by itself a column called `key` would be taken for what is selected here.
        names = [sql.Identifier("page", name) for name in self.key]
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(name) for name in names)
        down = sql.SQL(", ").join(sql.SQL("{} DESC").format(name) for name in names)
        return sql.SQL("SELECT ARRAY[{}] AS key FROM ({}) AS page ORDER BY {} LIMIT 1").format(texts, rows, down)

    def copy(self, page: Page, end: Key | None) -> sql.Composed:
        """The rows of the page up to `end` as CSV, in the order of the key; no rows without an end."""
        return sql.SQL("COPY (SELECT {} FROM {} WHERE {} ORDER BY {}) TO STDOUT (FORMAT csv, HEADER {})").format(
            sql.SQL(", ").join(map(sql.Identifier, self.columns)), self._from, self._between(page.after, end),
            self._key, sql.Literal(page.number == 0),
        )  # fmt: skip

    def _between(self, after: Key | None, end: Key | None) -> sql.Composed:
        bounds = [(sql.SQL(">"), after)] if after else []
        bounds += [(sql.SQL("<="), end)]
        return sql.SQL(" AND ").join(
            sql.SQL("({}) {} ({})").format(self._key, sign, self._value(key)) if key else sql.SQL("false")
            for sign, key in bounds
        )


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is to export: rows, whether they were counted or estimated, and the greatest key."""

    rows: int
    counted: bool
    up_to: Key | None


def databases() -> tuple[str, ...]:
    """The connections that may be exported from: KEYTURN_EXPORT_DATABASES, names with commas between them."""
    return tuple(name.strip() for name in os.environ.get("KEYTURN_EXPORT_DATABASES", "").split(",") if name.strip())


@asynccontextmanager
async def reading(database: str) -> AsyncGenerator[Connection]:
    """A connection to a named database. InvalidInput for one that may not be exported, StepFailed for its errors."""
    if database not in databases():
        known = ", ".join(databases()) or "none; set KEYTURN_EXPORT_DATABASES"
        raise InvalidInput(f"nothing may be exported from {database!r}; allowed: {known}", database=database)
    try:
        async with await psycopg.AsyncConnection[DictRow].connect(
            address(database), row_factory=dict_row, connect_timeout=_CONNECT_SECONDS, prepare_threshold=None,
            autocommit=True, client_encoding="utf8", application_name="keyturn export",
        ) as connection:  # fmt: skip
            yield connection
    except psycopg.Error as error:
        said = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
        raise StepFailed(f"{database}: {Secrets().hide(said)}", database=database) from error


@asynccontextmanager
async def _snapshot(connection: Connection) -> AsyncGenerator[None]:
    async with connection.transaction():
        await connection.execute(_BEGIN)
        await connection.execute(_SET)
        yield


async def describe(
    connection: Connection, schema: str, table: str, columns: Sequence[str], key: Sequence[str]
) -> Shape:
    """The table with the chosen columns (all, if none) in order of the chosen key (the primary key, if none).

    InvalidInput where there is no such table, column or unique key, or the key cannot carry an export.
    """
    async with _snapshot(connection):
        found = await (await connection.execute(_TABLE, [schema, table])).fetchone()
        if found is None or not found["is_table"] or _ITS_OWN.fullmatch(schema):
            raise InvalidInput(f"there is no table {table!r} in the schema {schema!r} that can be exported")
        if found["has_children"]:
            raise InvalidInput(f"{table!r} has child tables, whose rows its unique key does not cover")
        rows = await (await connection.execute(_COLUMNS, [found["oid"]])).fetchall()
        keys = await (await connection.execute(_KEYS, [found["oid"]])).fetchall()
    types = {str(row["name"]): str(row["type"]) for row in rows}
    chosen = _chosen_key(table, tuple(key), keys)
    if unknown := [name for name in columns if name not in types]:
        raise InvalidInput(f"{table!r} has no column {', '.join(unknown)}; it has {', '.join(types)}")
    bases = {str(row["name"]): str(row["base"]) for row in rows}
    if odd := [name for name in chosen if bases[name] not in _KEY_TYPES]:
        raise InvalidInput(f"the key column {odd[0]!r} is of type {types[odd[0]]}, which cannot order an export")
    return Shape(
        schema, table, {name: types[name] for name in columns or types}, chosen,
        tuple(bases[name] for name in chosen), int(found["estimated"]),
    )  # fmt: skip


def _chosen_key(table: str, wanted: Key, found: Sequence[DictRow]) -> Key:
    keys = [tuple(cast("list[str]", one["columns"])) for one in found]
    if wanted in keys:
        return wanted
    if not wanted and found and found[0]["is_primary"]:
        return keys[0]
    known = " or ".join(", ".join(one) for one in keys) or "none"
    what = f"({', '.join(wanted)}) is no unique key of {table!r}" if wanted else f"{table!r} has no primary key"
    detail = f"{what}; an export needs one without nulls, so that no row is left out or given twice. There is: {known}"
    raise InvalidInput(detail, table=table)


async def measure(connection: Connection, shape: Shape) -> Extent:
    """Count the rows, or take the planner's estimate where that would take long, and find the greatest key."""
    async with _snapshot(connection):
        rows, counted = shape.estimated, False
        try:
            async with connection.transaction():
                await connection.execute(sql.SQL("SET LOCAL enable_seqscan = on"))
                await connection.execute(
                    sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(f"{_COUNT_SECONDS}s"))
                )
                found = await (await connection.execute(shape.count())).fetchone()
                rows, counted = int((found or {})["rows"]), True
        except psycopg.errors.QueryCanceled:
            pass  # a large table: the estimate will do
        return Extent(rows, counted, await _key(connection, shape.last()))


async def _key(connection: Connection, statement: sql.Composed) -> Key | None:
    found = await (await connection.execute(statement)).fetchone()
    return None if found is None else tuple(cast("list[str]", found["key"]))


async def read_batch(
    connection: Connection, shape: Shape, page: Page, write: Callable[[bytes], Awaitable[None]]
) -> tuple[int, Key | None]:
    """Write the rows of a page, and the header before the first page; how many there were, and the key of the last."""
    async with _snapshot(connection):
        end = await _key(connection, shape.end_of(page)) if page.up_to else None
        async with connection.cursor() as cursor:
            pending = bytearray()
            async with cursor.copy(shape.copy(page, end)) as copy:
                async for chunk in copy:
                    pending += chunk
                    if len(pending) >= _CHUNK:
                        await write(bytes(pending))
                        pending.clear()
            await write(bytes(pending))
            return cursor.rowcount, end
