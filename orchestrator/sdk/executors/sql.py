"""The `sql` step: statements on a named connection, in one transaction that is applied exactly once.

The first thing such a transaction does is to insert its idempotency key into `keyturn_applied` in the target
database, so a repeat finds the key and changes nothing. Values are bound, names are quoted; neither becomes SQL text.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, LiteralString, TypeAlias, cast

import psycopg
from psycopg import sql
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from pydantic import Field

from orchestrator.core.documents import DocumentModel
from orchestrator.core.errors import InvalidInput, StepFailed
from orchestrator.sdk import templates
from orchestrator.sdk.executors.context import FILLED, Context, Result

Connection: TypeAlias = psycopg.AsyncConnection[DictRow]
Bound: TypeAlias = tuple[sql.Composed, list[object]]

MAX_RECORDS = 100
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
TRANSACTION_WORDS = re.compile(r"\s*(begin|start|commit|end|rollback|abort|savepoint|release|prepare)\b", re.IGNORECASE)
_MAX_PARTS = 3
_CONNECT_SECONDS = 5

# Of the session: only the named schemas, a limit that the server keeps even when this process dies, reading only.
_SESSION = """
SELECT set_config('search_path', %s, false), set_config('statement_timeout', %s, false),
       set_config('default_transaction_read_only', %s, false)
"""
_LEDGER = "SELECT to_regclass('keyturn_applied') IS NOT NULL AS present"
_MAKE_LEDGER = """
CREATE TABLE IF NOT EXISTS keyturn_applied (
    key        text PRIMARY KEY,
    result     jsonb,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
# Waits for another transaction that inserts the same key, then tells who was first.
_CLAIM = "INSERT INTO keyturn_applied (key) VALUES (%s) ON CONFLICT (key) DO NOTHING"
_RECORD = "UPDATE keyturn_applied SET result = %s WHERE key = %s"
_FOUND = "SELECT result FROM keyturn_applied WHERE key = %s"


class Sql(DocumentModel):
    """Run `statements` on the connection whose address is in `KEYTURN_CONNECTION_<NAME>`.

    They run in one transaction, unless `autocommit` (for VACUUM and the like): then each runs by itself and may run
    again after a crash. The result is `rows` (of the last statement), `row_counts` (of each) and `records` (what the
    last one returned, at most 100). In a statement `${name}` is a bound value, `${name!identifier}` a quoted name and
    `${name!equals}` conditions from a mapping of columns to values.
    """

    connection: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
    statements: Annotated[tuple[str, ...], FILLED]
    autocommit: bool = False
    search_path: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*(, ?[a-z_][a-z0-9_]*)*$")] = "public"

    def summary(self) -> str:
        """For the approver: what will run, templates unfilled."""
        return f"sql on {self.connection}: {'; '.join(' '.join(text.split()) for text in self.statements)}"


async def run(spec: Sql, context: Context) -> Result:
    """Run the statements. Raises StepFailed, with nothing changed, when one fails or the check refuses the result."""
    statements = [compose(text, context.values) for text in spec.statements]
    try:
        async with asyncio.timeout(context.seconds), _connect(spec, context) as connection:
            if spec.autocommit:
                result = await _execute(connection, statements)
                context.check(result)
            elif context.reads_only:
                async with connection.transaction(force_rollback=True):
                    result = await _execute(connection, statements)
                context.check(result)
            else:
                result = await _once(connection, statements, context)
    except psycopg.Error as error:
        raise StepFailed(f"{spec.connection}: {context.secrets.hide(_said(error))}") from error
    except TimeoutError as error:
        raise StepFailed(f"{spec.connection}: the step ran longer than {context.seconds:g} s") from error
    return context.secrets.clean(result)


async def applied(spec: Sql, context: Context) -> Result | None:
    """What the transaction under this key resulted in, if it was committed. Raises StepFailed when nobody can tell."""
    try:
        async with asyncio.timeout(context.seconds), _connect(spec, context) as connection:
            if not await _has_ledger(connection):
                return None
            found = await (await connection.execute(_FOUND, [context.key])).fetchone()
    except (psycopg.Error, TimeoutError) as error:
        raise StepFailed(f"{spec.connection}: {context.secrets.hide(_said(error))}") from error
    return None if found is None else cast("Result", found["result"] or {})


def address(name: str) -> str:
    """The address of a named connection. StepFailed, naming the variable, where none is set."""
    variable = f"KEYTURN_CONNECTION_{name.upper()}"
    found = os.environ.get(variable)
    if not found:
        raise StepFailed(
            f"the worker has no connection {name}: set {variable} to postgresql://user:password@host:5432/database"
        )
    return found


def compose(text: str, values: Mapping[str, object]) -> Bound:
    """A statement with its bound values. InvalidInput for a value that cannot be a name or a set of conditions."""
    parts: list[sql.Composable] = []
    bound: list[object] = []
    for piece in templates.read(text):
        if isinstance(piece, str):
            # The operator's own text, from the runbook's file; no value is ever in it.
            parts.append(sql.SQL(cast("LiteralString", piece.replace("%", "%%"))))
        elif piece.filter == "identifier":
            parts.append(identifier(piece.name, templates.value_of(piece, values)))
        elif piece.filter == "equals":
            parts.append(_conditions(piece.name, templates.value_of(piece, values), bound))
        else:
            parts.append(sql.Placeholder())
            bound.append(_bindable(piece.name, templates.value_of(piece, values)))
    return sql.Composed(parts), bound


def identifier(name: str, value: object) -> sql.Identifier:
    """A name such as `table` or `schema.table`, quoted. InvalidInput for anything else."""
    parts = value.split(".") if isinstance(value, str) else []
    if not 0 < len(parts) <= _MAX_PARTS or not all(IDENTIFIER.fullmatch(part) for part in parts):
        raise InvalidInput(f"{name} is {value!r}, which is no name of a table or column; nothing ran")
    return sql.Identifier(*parts)


def _conditions(name: str, value: object, bound: list[object]) -> sql.Composable:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name} must be a mapping of columns to values")
    conditions: list[sql.Composable] = []
    for column, wanted in cast("Mapping[str, object]", value).items():
        # `IS NOT DISTINCT FROM` rather than `=`, so that null means "has no value".
        conditions.append(sql.SQL("{} IS NOT DISTINCT FROM {}").format(identifier(name, column), sql.Placeholder()))
        bound.append(_bindable(f"{name}.{column}", wanted))
    return sql.SQL("({})").format(sql.SQL(" AND ").join(conditions)) if conditions else sql.SQL("TRUE")


def _bindable(name: str, value: object) -> object:
    if isinstance(value, str) and "\0" in value:
        raise InvalidInput(f"{name} contains a NUL character, which Postgres cannot hold")
    return Jsonb(value) if isinstance(value, Mapping | list) else value


@asynccontextmanager
async def _connect(spec: Sql, context: Context) -> AsyncGenerator[Connection]:
    connection = await psycopg.AsyncConnection[DictRow].connect(
        address(spec.connection), autocommit=True, row_factory=dict_row,
        connect_timeout=_CONNECT_SECONDS, application_name="keyturn runbook",
    )  # fmt: skip
    milliseconds = str(math.ceil(context.seconds * 1000))
    async with connection:
        await connection.execute(_SESSION, [spec.search_path, milliseconds, "on" if context.reads_only else "off"])
        yield connection


async def _once(connection: Connection, statements: Sequence[Bound], context: Context) -> Result:
    await _make_ledger(connection)
    async with connection.transaction():
        claimed = await connection.execute(_CLAIM, [context.key])
        if not claimed.rowcount:
            found = await (await connection.execute(_FOUND, [context.key])).fetchone()
            return cast("Result", (found or {}).get("result") or {})
        result = await _execute(connection, statements)
        context.check(result)
        await connection.execute(_RECORD, [Jsonb(context.secrets.clean(result)), context.key])
    return result


async def _has_ledger(connection: Connection) -> bool:
    found = await (await connection.execute(_LEDGER)).fetchone()
    return bool(found and found["present"])


async def _make_ledger(connection: Connection) -> None:
    if await _has_ledger(connection):
        return
    try:
        await connection.execute(_MAKE_LEDGER)
    except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject):
        return  # another worker made it in the same moment
    except psycopg.errors.InsufficientPrivilege as error:
        detail = (
            f"the connection may not create its table of applied steps; create it: {' '.join(_MAKE_LEDGER.split())}"
        )
        raise StepFailed(detail) from error


async def _execute(connection: Connection, statements: Sequence[Bound]) -> Result:
    counts: list[int] = []
    records: list[object] = []
    for statement, bound in statements:
        # Prepared, because the server then refuses several statements in one text.
        cursor = await connection.execute(statement, bound, prepare=True)
        counts.append(max(cursor.rowcount, 0))
        rows = await cursor.fetchmany(MAX_RECORDS) if cursor.description else []
        records = [{name: _plain(value) for name, value in row.items()} for row in rows]
    return {"rows": counts[-1], "row_counts": counts, "records": records}


def _plain(value: object) -> object:
    """A value of Postgres as JSON; what JSON has no kind for becomes text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | Decimal):
        return _number(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in cast("Mapping[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Sequence[object]", value)]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)


def _number(value: float | Decimal) -> object:
    if isinstance(value, Decimal):
        whole = value.is_finite() and value == value.to_integral_value()
        return int(value) if whole else str(value)
    return value


def _said(error: BaseException) -> str:
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return error.diag.message_primary
    return str(error).strip() or type(error).__name__
