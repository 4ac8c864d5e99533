"""Procrastinate's own tables and functions, from the SQL files in its package.

Called under the migration lock only. Procrastinate keeps no record of its migrations, so the caller does: the version
is the number of the newest migration file.
"""

from __future__ import annotations

import re
from pathlib import Path

from procrastinate.schema import SchemaManager
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from orchestrator.core.errors import MigrationFault

PROCRASTINATE_SCHEMA = "procrastinate"


def procrastinate_version() -> str:
    """The version that `create_procrastinate_tables` brings the tables to, such as `03.04.00_50`."""
    return _number(_migration_files()[-1])


async def create_procrastinate_tables(connection: AsyncConnection[DictRow], installed: str | None) -> None:
    """Create the tables in the first schema of the search path, or apply the migrations that follow `installed`.

    The connection is in autocommit; the whole change is one transaction.
    """
    async with connection.transaction():
        if installed is None:
            await connection.execute(SchemaManager.get_schema())
            return
        numbers = [_number(path) for path in _migration_files()]
        if installed not in numbers:
            raise MigrationFault(f"Procrastinate has no migration {installed}; its newest is {numbers[-1]}.")
        for path in _migration_files()[numbers.index(installed) + 1 :]:
            await connection.execute(path.read_bytes())


def _migration_files() -> list[Path]:
    return sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))


def _number(path: Path) -> str:
    found = re.match(r"\d+\.\d+\.\d+_\d+", path.name)
    if found is None:
        raise MigrationFault(f"Procrastinate's migration {path.name} is not numbered as expected.")
    return found[0]
