"""The schema `keyturn` of a database as text, read from the catalog: the same for the same schema on any Postgres.

`migrations/schema.sql` is this text of an empty database after all migrations, so that a reader sees the tables as they
are now and a test sees a change that nobody meant. `python -m orchestrator.store.schema_dump FILE` rewrites it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final, cast

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from orchestrator.embedded import EmbeddedPostgres
from orchestrator.settings import find_migrations
from orchestrator.store.db import Connection
from orchestrator.store.migrate import migrate

_HEADER: Final = (
    "-- The schema after all migrations, for readers and for a test. Written by './task schema'; never run."
)

# Columns of each table, with everything that can be said of a column.
_COLUMNS: Final = """
SELECT relation.relname AS table_name, array_to_string(relation.reloptions, ', ') AS options, attribute.attname AS name,
       format_type(attribute.atttypid, attribute.atttypmod) AS type, attribute.attnotnull AS required,
       attribute.attidentity::text AS identity, attribute.attgenerated::text AS generated,
       pg_get_expr(fallback.adbin, fallback.adrelid) AS fallback
FROM pg_class AS relation
JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
LEFT JOIN pg_attrdef AS fallback ON fallback.adrelid = relation.oid AND fallback.adnum = attribute.attnum
WHERE relation.relnamespace = 'keyturn'::regnamespace AND relation.relkind IN ('r', 'p')
  AND attribute.attnum > 0 AND NOT attribute.attisdropped
ORDER BY relation.relname, attribute.attnum
"""

# Keys and checks. NOT NULL is shown with its column; Postgres 18 also lists it here, as contype n.
_CONSTRAINTS: Final = """
SELECT relation.relname AS table_name, rule.conname AS name, pg_get_constraintdef(rule.oid) AS definition
FROM pg_constraint AS rule
JOIN pg_class AS relation ON relation.oid = rule.conrelid
WHERE rule.connamespace = 'keyturn'::regnamespace AND rule.contype <> 'n'
ORDER BY relation.relname, rule.contype = 'f', rule.conname
"""

# Everything else that has a definition of its own: indexes (not those of keys), views, functions, triggers, domains.
_DEFINITIONS: Final = """
SELECT 1 AS part, relation.relname AS name, pg_get_indexdef(entry.indexrelid) AS definition
FROM pg_index AS entry
JOIN pg_class AS relation ON relation.oid = entry.indexrelid
WHERE relation.relnamespace = 'keyturn'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_constraint AS rule WHERE rule.conindid = entry.indexrelid AND rule.contype <> 'f')
UNION ALL
SELECT 2, relation.relname, 'CREATE VIEW ' || relation.oid::regclass || E' AS\n' || pg_get_viewdef(relation.oid, true)
FROM pg_class AS relation
WHERE relation.relnamespace = 'keyturn'::regnamespace AND relation.relkind IN ('v', 'm')
UNION ALL
SELECT 3, routine.oid::regprocedure::text, rtrim(pg_get_functiondef(routine.oid), E'\n')
FROM pg_proc AS routine
WHERE routine.pronamespace = 'keyturn'::regnamespace AND routine.prokind IN ('f', 'p')
UNION ALL
SELECT 4, watch.tgname, pg_get_triggerdef(watch.oid)
FROM pg_trigger AS watch
JOIN pg_class AS relation ON relation.oid = watch.tgrelid
WHERE relation.relnamespace = 'keyturn'::regnamespace AND NOT watch.tgisinternal
UNION ALL
SELECT 5, kind.typname, 'CREATE DOMAIN ' || kind.oid::regtype || ' AS ' || kind.typbasetype::regtype || (
    SELECT string_agg(' ' || pg_get_constraintdef(rule.oid), '' ORDER BY rule.conname)
    FROM pg_constraint AS rule WHERE rule.contypid = kind.oid)
FROM pg_type AS kind
WHERE kind.typnamespace = 'keyturn'::regnamespace AND kind.typtype = 'd'
"""


async def schema_text(connection: Connection) -> str:
    """The schema `keyturn` as SQL text with LF line ends."""
    # With nothing on the search path every name is written in full, and system names are found all the same.
    await connection.execute("SET search_path TO ''")
    columns = await (await connection.execute(_COLUMNS)).fetchall()
    constraints = await (await connection.execute(_CONSTRAINTS)).fetchall()
    found = await (await connection.execute(_DEFINITIONS)).fetchall()
    # Sorted here, as the order of texts in SQL depends on the database's collation.
    definitions = sorted(found, key=lambda row: (cast("int", row["part"]), cast("str", row["name"])))
    tables = sorted({cast("str", row["table_name"]) for row in columns})
    parts = [_HEADER]
    for table in tables:
        lines = [_column_text(row) for row in columns if row["table_name"] == table]
        lines += [f"CONSTRAINT {r['name']} {r['definition']}" for r in constraints if r["table_name"] == table]
        options = next(row["options"] for row in columns if row["table_name"] == table)
        ending = f") WITH ({options});" if options else ");"
        parts.append(f"CREATE TABLE keyturn.{table} (\n    " + ",\n    ".join(lines) + f"\n{ending}")
    parts += [f"{row['definition']};" for row in definitions]
    return "\n\n".join(parts) + "\n"


def _column_text(row: DictRow) -> str:
    words = [f"{row['name']} {row['type']}"]
    if row["required"]:
        words.append("NOT NULL")
    if row["identity"]:
        words.append("GENERATED ALWAYS AS IDENTITY" if row["identity"] == "a" else "GENERATED BY DEFAULT AS IDENTITY")
    elif row["generated"]:
        words.append(f"GENERATED ALWAYS AS ({row['fallback']})")
    elif row["fallback"] is not None:
        words.append(f"DEFAULT {row['fallback']}")
    return " ".join(words)


async def migrated_schema_text(database_url: str, migrations_dir: Path) -> str:
    """Migrate an empty database and return its schema as text."""
    await migrate(database_url, migrations_dir)
    async with await AsyncConnection[DictRow].connect(database_url, row_factory=dict_row) as connection:
        return await schema_text(connection)


def main(arguments: list[str]) -> int:
    """Write the schema after all migrations to the file that is named."""
    if len(arguments) != 1:
        print("usage: python -m orchestrator.store.schema_dump FILE", file=sys.stderr)  # noqa: T201 - a command
        return 2
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder)) as server:
        text = asyncio.run(migrated_schema_text(server.url, find_migrations(Path.cwd())))
    Path(arguments[0]).write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
