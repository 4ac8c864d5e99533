"""LangGraph's own tables, made by LangGraph's own code, so that stock LangGraph tools can read them.

Called under the migration lock only; the running engine never creates a table.
"""

from __future__ import annotations

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection
from psycopg.rows import DictRow

LANGGRAPH_SCHEMA = "langgraph"


def langgraph_tables_version() -> str:
    """The version that `create_langgraph_tables` brings the tables to."""
    return str(len(AsyncPostgresSaver.MIGRATIONS) - 1)


async def create_langgraph_tables(connection: AsyncConnection[DictRow], installed: str | None) -> None:
    """Create or update LangGraph's tables in the first schema of the search path. The connection is in autocommit.

    LangGraph keeps its own record of what was done, so `installed` is not needed.
    """
    del installed
    await AsyncPostgresSaver(connection).setup()
