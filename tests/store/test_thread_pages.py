"""Pages of threads are read from an index as far as they go."""

from __future__ import annotations

import re

from psycopg.types.json import Jsonb

from orchestrator.store import thread_pages
from orchestrator.store.db import Connection, Database

MANY = 3000
MADE = """
INSERT INTO keyturn.threads (thread_key, namespace, thread_id, kind, person, created_at, updated_at)
SELECT 'tk-' || i, 'default', 'th-' || i, 'thread', 'rita', now() - (i / 7) * interval '1 second', now()
  FROM generate_series(1, %s) AS i
"""
EVERY = {
    "namespace": "default", "metadata": {}, "ids": None, "graph": None, "statuses": None, "sort": "created_at",
    "up": False, "limit": 10, "offset": 0,
}  # fmt: skip


async def _rows_read(conn: Connection) -> int:
    params = {**EVERY, "metadata": Jsonb({}), "newest": True, "most": 10}
    told = await (await conn.execute("EXPLAIN (ANALYZE) " + thread_pages.PAGE, params)).fetchall()
    plan = "\n".join(row["QUERY PLAN"] for row in told)
    found = re.search(r"threads_newest on threads t .*?actual time=\S+ rows=(\d+)", plan)
    assert found is not None, plan
    return int(found[1])


async def test_the_newest_threads_of_many_are_found_without_reading_the_others(database_url: str) -> None:
    db = Database(database_url, min_size=1, max_size=1)
    await db.open()
    async with db.connection() as conn:
        await conn.execute(MADE, [MANY])
        await conn.execute("ANALYZE keyturn.threads")
        assert await _rows_read(conn) <= 20
        # Threads that were made at one instant are on one page each.
        pages = [await thread_pages.page(conn, {**EVERY, "offset": at}) for at in range(0, 100, 10)]
        whole = await thread_pages.page(conn, {**EVERY, "limit": 100})
        assert [row["thread_id"] for page in pages for row in page] == [row["thread_id"] for row in whole]
    await db.close()
