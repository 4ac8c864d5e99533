"""Bring a database to this release: our SQL files in order, then the schemas of the libraries that bring their own.

Only this module creates schemas and tables, and only forwards. It knows a library's schema as a `Component`: what the
library must do there is given by its own layer.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from psycopg import AsyncConnection, Error, sql
from psycopg.rows import DictRow, dict_row

from orchestrator.core.errors import MigrationFault
from orchestrator.store.db import Connection, link_options, translated

_FILE_NAME: Final = re.compile(r"^(?P<version>\d{4})_(?P<name>[a-z0-9_]+)\.sql$")
_POLL_SECONDS: Final = 0.1

# One migration at a time in this database. Tried and never waited for inside Postgres: a waiting statement holds a
# snapshot, and the CREATE INDEX CONCURRENTLY of whoever has the lock would wait for that snapshot for ever.
_TRY_LOCK: Final = "SELECT pg_try_advisory_lock(5396217804362187051) AS held"

# Given back explicitly, so that a pooler between us and Postgres does not keep it.
_UNLOCK: Final = "SELECT pg_advisory_unlock(5396217804362187051)"

# Where the record of what was applied lives; everything else is in the files.
_CREATE_RECORD: Final = """
CREATE SCHEMA IF NOT EXISTS keyturn;
CREATE TABLE IF NOT EXISTS keyturn.schema_migrations (
    version     integer PRIMARY KEY,
    name        text NOT NULL,
    checksum    text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS keyturn.schema_components (
    component   text PRIMARY KEY,
    version     text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
"""

# Whether the record is there: a new database has none.
_HAS_RECORD: Final = """
SELECT to_regclass('keyturn.schema_migrations') IS NOT NULL
   AND to_regclass('keyturn.schema_components') IS NOT NULL AS recorded
"""

# The files that were applied, in order.
_APPLIED: Final = "SELECT version, name, checksum FROM keyturn.schema_migrations ORDER BY version"

# Recorded in the transaction of the file itself.
_RECORD_FILE: Final = """
INSERT INTO keyturn.schema_migrations (version, name, checksum) VALUES (%(version)s, %(name)s, %(checksum)s)
"""

# The version of each library's schema.
_COMPONENTS: Final = "SELECT component, version FROM keyturn.schema_components"

# Recorded after the library has done its part: a crash in between repeats that part, which is idempotent.
_RECORD_COMPONENT: Final = """
INSERT INTO keyturn.schema_components (component, version) VALUES (%(component)s, %(version)s)
ON CONFLICT (component) DO UPDATE SET version = excluded.version, applied_at = now()
"""

# A CREATE INDEX CONCURRENTLY that was cut off leaves an index that is never used and never built again.
_INVALID_INDEXES: Final = """
SELECT relation.relname AS index
FROM pg_index AS entry
JOIN pg_class AS relation ON relation.oid = entry.indexrelid
JOIN pg_namespace AS namespace ON namespace.oid = relation.relnamespace
WHERE namespace.nspname = %(schema)s AND NOT entry.indisvalid
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file `NNNN_name.sql`; `checksum` is the SHA-256 of its text with LF line ends, in hex."""

    version: int
    name: str
    checksum: str
    statements: str

    @property
    def label(self) -> str:
        """The file name without its ending: `0001_name`."""
        return f"{self.version:04d}_{self.name}"


@dataclass(frozen=True, slots=True)
class Component:
    """A library's schema: `apply(connection, installed)` brings it from `installed` (None: new) to `version`.

    The connection is in autocommit with `schema` as its search path. `apply` is idempotent, and raises
    `MigrationFault` for a version it does not know.
    """

    name: str
    schema: str
    version: str
    apply: Callable[[Connection, str | None], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What one run did: the labels of the files it applied, and components as `name version`. Empty: up to date."""

    applied: tuple[str, ...]
    components: tuple[str, ...]


async def migrate(
    database_url: str, migrations_dir: Path, components: Sequence[Component] = (), *, lock_seconds: float = 600.0
) -> MigrationReport:
    """Apply what is missing and return what was done; any number of processes may call this at once.

    Each file is one transaction with its record. Raises `MigrationFault` when files and database do not belong
    together, when a file fails (it leaves nothing), or when another migration holds the lock for `lock_seconds`.
    """
    files = read_migrations(migrations_dir)
    with translated():
        connection = await AsyncConnection[DictRow].connect(
            database_url, **link_options("keyturn migrate", 0), autocommit=True, row_factory=dict_row
        )
    async with connection:
        async with _only_migration(connection, lock_seconds):
            await connection.execute(_CREATE_RECORD)
            missing = _missing_files(files, await _applied_files(connection), refuse_newer=True)
            for file in missing:
                await _apply_file(connection, file)
            renewed = await _apply_components(connection, components)
        return MigrationReport(tuple(file.label for file in missing), renewed)


async def pending(
    connection: Connection, migrations_dir: Path, components: Sequence[Component] = ()
) -> tuple[str, ...]:
    """What this release still misses in the database, as labels; empty when it can work.

    A database that is newer is not reported: during a release, processes of the old one go on serving.
    Raises `MigrationFault` when an applied file was changed or removed.
    """
    files = read_migrations(migrations_dir)
    cursor = await connection.execute(_HAS_RECORD)
    row = await cursor.fetchone()
    if row is None or not row["recorded"]:
        return (*(file.label for file in files), *(f"{part.name} {part.version}" for part in components))
    missing = _missing_files(files, await _applied_files(connection), refuse_newer=False)
    installed = await _installed_components(connection)
    behind = [f"{part.name} {part.version}" for part in components if part.name not in installed]
    behind += [f"{p.name} {p.version}" for p in components if p.name in installed and _older(installed[p.name], p)]
    return (*(file.label for file in missing), *behind)


def read_migrations(migrations_dir: Path) -> tuple[Migration, ...]:
    """The migration files of a folder, in order. Raises `MigrationFault` for a bad name, a gap or a double."""
    found: list[Migration] = []
    for path in sorted(migrations_dir.glob("*.sql")):
        if path.name == "schema.sql":
            continue
        match = _FILE_NAME.match(path.name)
        if match is None:
            raise MigrationFault(f"{path} is not named like a migration: four digits, _, lower case, .sql.")
        text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        checksum = hashlib.sha256(text.encode()).hexdigest()
        found.append(Migration(int(match["version"]), match["name"], checksum, text))
    expected = list(range(1, len(found) + 1))
    if not found or [file.version for file in found] != expected:
        numbers = ", ".join(f"{file.version:04d}" for file in found) or "none"
        raise MigrationFault(f"The migrations in {migrations_dir} must be numbered 0001, 0002, …; found: {numbers}.")
    return tuple(found)


def _missing_files(
    files: Sequence[Migration], applied: Mapping[int, tuple[str, str]], *, refuse_newer: bool
) -> tuple[Migration, ...]:
    """The files not applied yet, after checking that those applied are the same and all there."""
    known = {file.version: file for file in files}
    newest = files[-1].version
    for version, (name, checksum) in applied.items():
        label = f"{version:04d}_{name}"
        file = known.get(version)
        if file is None and version > newest:
            if refuse_newer:
                raise MigrationFault(
                    f"The database is newer than this Keyturn: it has migration {label}, this release ends at "
                    f"{newest:04d}. Run the newer release; migrations do not go back."
                )
        elif file is None or file.name != name:
            raise MigrationFault(
                f"Migration {label} was applied to this database and its file is missing. Put it back."
            )
        elif file.checksum != checksum:
            raise MigrationFault(
                f"Migration {label} was changed after it was applied to this database. Restore the file as it was, "
                "and write the change as a new migration."
            )
    return tuple(file for file in files if file.version not in applied)


@asynccontextmanager
async def _only_migration(connection: Connection, lock_seconds: float) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(lock_seconds):
            while not await _try_lock(connection):  # noqa: ASYNC110 - the lock is held in another process
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise MigrationFault(
            f"Another migration has been running on this database for {lock_seconds:.0f} s. "
            "Wait for it, or end the session named 'keyturn migrate' in pg_stat_activity."
        ) from None
    try:
        yield
    finally:
        # A lost connection gave the lock back already; its own error must not be covered.
        if not connection.closed:
            await connection.execute(_UNLOCK)


async def _try_lock(connection: Connection) -> bool:
    cursor = await connection.execute(_TRY_LOCK)
    row = await cursor.fetchone()
    return row is not None and row["held"] is True


async def _applied_files(connection: Connection) -> dict[int, tuple[str, str]]:
    cursor = await connection.execute(_APPLIED)
    return {row["version"]: (row["name"], row["checksum"]) for row in await cursor.fetchall()}


async def _installed_components(connection: Connection) -> dict[str, str]:
    cursor = await connection.execute(_COMPONENTS)
    return {row["component"]: row["version"] for row in await cursor.fetchall()}


async def _apply_file(connection: Connection, file: Migration) -> None:
    try:
        async with connection.transaction():
            # The text comes from our own migration files, with no parameters: Postgres takes it as one script.
            await connection.execute(file.statements.encode())
            await connection.execute(
                _RECORD_FILE, {"version": file.version, "name": file.name, "checksum": file.checksum}
            )
    except Error as error:
        raise MigrationFault(
            f"Migration {file.label} failed and left nothing behind: {_said(error)}", migration=file.label
        ) from error


async def _apply_components(connection: Connection, components: Sequence[Component]) -> tuple[str, ...]:
    installed = await _installed_components(connection)
    done: list[str] = []
    for part in components:
        before = installed.get(part.name)
        if before == part.version:
            continue
        if before is not None and not _older(before, part):
            raise MigrationFault(
                f"The tables of {part.name} are newer ({before}) than this Keyturn knows ({part.version}). "
                "Run the newer release; migrations do not go back."
            )
        await _apply_component(connection, part, before)
        done.append(f"{part.name} {part.version}")
    return tuple(done)


async def _apply_component(connection: Connection, part: Component, before: str | None) -> None:
    schema = sql.Identifier(part.schema)
    try:
        await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
        cursor = await connection.execute(_INVALID_INDEXES, {"schema": part.schema})
        for row in await cursor.fetchall():
            await connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(part.schema, row["index"])))
        await connection.execute(sql.SQL("SET search_path TO {}").format(schema))
        try:
            await part.apply(connection, before)
        finally:
            if not connection.closed:
                await connection.execute("RESET search_path")
        await connection.execute(_RECORD_COMPONENT, {"component": part.name, "version": part.version})
    except Error as error:
        raise MigrationFault(f"The tables of {part.name} could not be brought up to date: {_said(error)}") from error


def _older(installed: str, part: Component) -> bool:
    """Whether the installed version comes before the component's. Versions compare number by number."""
    return _version_key(installed) < _version_key(part.version)


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _said(error: Error) -> str:
    where = error.diag.context
    return f"{error}" if where is None else f"{error} ({where})"
