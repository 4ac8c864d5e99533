"""The whole schema of a Keyturn database: our migrations, LangGraph's tables and Procrastinate's.

Only what `keyturn migrate`, `keyturn up` and readiness need; the SQL is in `migrations/` and in the libraries.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from orchestrator.chores.setup import PROCRASTINATE_SCHEMA, create_procrastinate_tables, procrastinate_version
from orchestrator.engine.setup import LANGGRAPH_SCHEMA, create_langgraph_tables, langgraph_tables_version
from orchestrator.store.migrate import Component, MigrationReport, migrate, pending


@cache
def schema_components() -> tuple[Component, ...]:
    """The libraries that bring tables of their own, in the order they are set up."""
    return (
        Component("langgraph", LANGGRAPH_SCHEMA, langgraph_tables_version(), create_langgraph_tables),
        Component("procrastinate", PROCRASTINATE_SCHEMA, procrastinate_version(), create_procrastinate_tables),
    )


async def prepare_database(database_url: str, migrations_dir: Path, *, lock_seconds: float = 600.0) -> MigrationReport:
    """Bring the database to this release. Safe to call from any number of processes at once.

    Raises `MigrationFault`, which says what to do, when files and database do not belong together.
    """
    return await migrate(database_url, migrations_dir, schema_components(), lock_seconds=lock_seconds)


async def missing_migrations(connection: AsyncConnection[DictRow], migrations_dir: Path) -> tuple[str, ...]:
    """What `keyturn migrate` would still have to do, as labels; empty when this process can work."""
    return await pending(connection, migrations_dir, schema_components())
