"""What one workflow leaves behind in Postgres: write commits, statements and bytes, counted on the server's side.

Counted in a short run of its own, one workflow after the other, with every statement in the server's log.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from benchmarks.rounds import Contender, run

# Further lines of a statement begin with a tab.
_LOGGED = re.compile(rb"LOG:  (?:statement|execute [^:]*): (.*(?:\n\t.*)*)")
_RINGS = b"pg_notify"
# What a process does by the clock, whatever it runs: it says that it is there, and keeps its leases.
_BEATS = (b"INSERT INTO keyturn.workers", b"procrastinate_update_heartbeat", b"SET lease_until = coalesce")

# Rows that belong to workflows. What there is once per installation (people, graphs, workers) is left out.
_TABLES = (
    ("langgraph", "checkpoints"),
    ("langgraph", "checkpoint_blobs"),
    ("langgraph", "checkpoint_writes"),
    ("keyturn", "workflows"),
    ("keyturn", "approvals"),
    ("keyturn", "votes"),
    ("keyturn", "events"),
    ("keyturn", "effects"),
    ("keyturn", "idempotency_keys"),
)

# The next transaction id: each transaction that writes takes one. Reading it takes none.
_NEXT_XID = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next"


_VACUUMING = "SELECT FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"


@dataclass(frozen=True, slots=True)
class Footprint:
    """Per workflow. `notifies` are transactions that only wake listeners: they write no row and wait for no disk."""

    write_commits: float
    notifies: float
    statements: float
    bytes: float


async def footprint(contender: Contender, url: str, log: Path, workflows: int) -> Footprint:
    """Run some workflows of `contender` on the database at `url`, whose server logs to `log`, and count."""
    with psycopg.connect(url, autocommit=True) as conn:
        _log_statements(conn, "all")
        _leave_alone(conn)
        try:
            async with contender.opened(), contender.working():
                await run(contender, 1, 3)
                before, xid, mark = _bytes(conn), _xid(conn), log.stat().st_size  # noqa: ASYNC240 a benchmark waits for nobody
                await run(contender, 1, workflows)
                after, spent, said = _bytes(conn), _xid(conn) - xid, _said(log, mark)
        finally:
            _log_statements(conn, "none")
            conn.execute("ALTER SYSTEM RESET autovacuum")
            conn.execute("SELECT pg_reload_conf()")
    ours = [text for text in said if b"pg_catalog" not in text and b"pg_column_size" not in text]
    rings = sum(_RINGS in text for text in ours)
    beats = sum(any(beat in text for beat in _BEATS) for text in ours)
    return Footprint(
        write_commits=round((spent - rings - beats) / workflows, 2),
        notifies=round(rings / workflows, 2),
        statements=round(len(ours) / workflows, 2),
        bytes=round((after - before) / workflows),
    )


def _log_statements(conn: psycopg.Connection, what: str) -> None:
    """Whether sessions of this database that begin from now on have their statements logged; ours does not."""
    name = sql.Identifier(conn.info.dbname)
    conn.execute(sql.SQL("ALTER DATABASE {} SET log_statement = {}").format(name, sql.Literal(what)))


def _leave_alone(conn: psycopg.Connection) -> None:
    """Nothing is vacuumed or analyzed until the setting is reset: that takes transactions of its own."""
    conn.execute("ALTER SYSTEM SET autovacuum = off")
    conn.execute("SELECT pg_reload_conf()")
    while conn.execute(_VACUUMING).fetchone() is not None:
        time.sleep(0.1)


def _xid(conn: psycopg.Connection) -> int:
    row = conn.execute(_NEXT_XID).fetchone()
    assert row is not None
    return int(row[0])


def _said(log: Path, mark: int) -> list[bytes]:
    with log.open("rb") as file:
        file.seek(mark)
        return _LOGGED.findall(file.read())


def _bytes(conn: psycopg.Connection) -> int:
    """Bytes of all rows of workflows, without indexes and free space."""
    total = 0
    for schema, table in _TABLES:
        name = sql.Identifier(schema, table)
        found = conn.execute(sql.SQL("SELECT to_regclass({})").format(sql.Literal(f"{schema}.{table}"))).fetchone()
        if found is None or found[0] is None:
            continue
        row = conn.execute(sql.SQL("SELECT coalesce(sum(pg_column_size(t.*)), 0) FROM {} t").format(name)).fetchone()
        assert row is not None
        total += int(row[0])
    return total
