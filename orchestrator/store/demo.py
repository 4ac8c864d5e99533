"""The tables that `keyturn demo` works on, in schema `public` and no part of Keyturn's: an access log that it fills and
purges, and the expenses that the shipped assistant enters.
"""

from __future__ import annotations

from orchestrator.store.db import Connection

TABLE = "access_log"

# An empty log, in a database of the demo's own.
CREATE = """
CREATE TABLE public.access_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL,
    path       text NOT NULL
)
"""

# Some rows of one age.
FILL = """
INSERT INTO public.access_log (created_at, path)
SELECT now() - make_interval(days => %(days)s), '/page/' || n FROM generate_series(1, %(rows)s) AS n
"""

# Old versions of rows, for a vacuum to clear away.
CHANGE = "UPDATE public.access_log SET path = path || '?' WHERE id %% %(each)s = 0"

# Rows older than some days; with 0 all of them.
OLDER = "SELECT count(*) AS rows FROM public.access_log WHERE created_at < now() - make_interval(days => %(days)s)"

# What was entered for one claim.
EXPENSE = "SELECT claim, amount::text, currency, payee FROM public.keyturn_expenses WHERE claim = %(claim)s"
# The first expense makes the table.
EXPENSES = "SELECT to_regclass('public.keyturn_expenses') IS NOT NULL AS there"


async def create(conn: Connection, ages: dict[int, int], change_each: int) -> None:
    """Make the log. `ages` gives the number of rows for each age in days; every `change_each`th is changed once."""
    await conn.execute(CREATE)
    for days, rows in ages.items():
        await conn.execute(FILL, {"days": days, "rows": rows})
    await conn.execute(CHANGE, {"each": change_each})


async def older(conn: Connection, days: int) -> int:
    """How many rows are older than `days` days."""
    row = await (await conn.execute(OLDER, {"days": days})).fetchone()
    return int(row["rows"]) if row else 0


async def expense(conn: Connection, claim: str) -> list[str]:
    """What is entered for a claim, each as one text."""
    there = await (await conn.execute(EXPENSES)).fetchone()
    if there is None or not there["there"]:
        return []
    rows = await (await conn.execute(EXPENSE, {"claim": claim})).fetchall()
    return [f"{row['claim']} {row['amount']} {row['currency']} {row['payee']}" for row in rows]
