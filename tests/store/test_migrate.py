"""Migrations go forward, once, whole, whoever and however many run them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from procrastinate.schema import SchemaManager
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from orchestrator.core.errors import MigrationFault, Unavailable
from orchestrator.service.schema import missing_migrations, prepare_database, schema_components
from orchestrator.store.migrate import migrate, pending, read_migrations
from orchestrator.store.schema_dump import migrated_schema_text

REPOSITORY = Path(__file__).resolve().parents[2]
MIGRATIONS = REPOSITORY / "migrations"


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[AsyncConnection[DictRow]]:
    async with await AsyncConnection[DictRow].connect(url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def own_migrations(tmp_path: Path) -> Path:
    """A folder of migrations that a test may change."""
    return Path(shutil.copytree(MIGRATIONS, tmp_path / "migrations"))


async def test_an_empty_database_becomes_schema_sql(empty_database_url: str) -> None:
    written = (MIGRATIONS / "schema.sql").read_text(encoding="utf-8")
    assert await migrated_schema_text(empty_database_url, MIGRATIONS) == written, "run ./task schema and look at it"


async def test_ten_at_once_apply_everything_once(empty_database_url: str) -> None:
    reports = await asyncio.gather(*(prepare_database(empty_database_url, MIGRATIONS) for _ in range(10)))
    labels = tuple(file.label for file in read_migrations(MIGRATIONS))
    assert sorted(report.applied for report in reports) == [*[()] * 9, labels]
    assert sorted(len(report.components) for report in reports) == [*[0] * 9, 2]
    async with connected(empty_database_url) as connection:
        assert await missing_migrations(connection, MIGRATIONS) == ()


async def test_a_second_run_changes_nothing(database_url: str) -> None:
    report = await prepare_database(database_url, MIGRATIONS)
    assert (report.applied, report.components) == ((), ())


async def test_pending_lists_everything_before_the_first_run(empty_database_url: str) -> None:
    async with connected(empty_database_url) as connection:
        missing = await missing_migrations(connection, MIGRATIONS)
    assert missing[0] == read_migrations(MIGRATIONS)[0].label
    assert [label.split()[0] for label in missing[-2:]] == ["langgraph", "procrastinate"]


async def test_a_changed_file_is_refused(database_url: str, own_migrations: Path) -> None:
    first = min(own_migrations.glob("0001_*.sql"))
    first.write_text(first.read_text(encoding="utf-8") + "-- edited\n", encoding="utf-8")
    with pytest.raises(MigrationFault, match=r"0001_\w+ was changed after it was applied"):
        await migrate(database_url, own_migrations)


async def test_line_ends_of_a_windows_checkout_are_no_change(database_url: str, own_migrations: Path) -> None:
    for path in own_migrations.glob("0*.sql"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert (await migrate(database_url, own_migrations)).applied == ()


async def test_a_missing_file_is_refused(empty_database_url: str, own_migrations: Path) -> None:
    number = len(read_migrations(own_migrations))
    extra = own_migrations / f"{number + 1:04d}_extra.sql"
    extra.write_text("CREATE TABLE keyturn.extra (a integer);")
    await migrate(empty_database_url, own_migrations)
    extra.rename(own_migrations / f"{number + 1:04d}_renamed.sql")
    with pytest.raises(MigrationFault, match=f"{number + 1:04d}_extra was applied .* file is missing"):
        await migrate(empty_database_url, own_migrations)


async def test_a_newer_database_is_refused_but_served_during_a_release(database_url: str, own_migrations: Path) -> None:
    number = len(read_migrations(own_migrations)) + 1
    (own_migrations / f"{number:04d}_next.sql").write_text("CREATE TABLE keyturn.next (a integer);")
    await migrate(database_url, own_migrations)
    with pytest.raises(MigrationFault, match=f"newer than this Keyturn: it has migration {number:04d}_next"):
        await migrate(database_url, MIGRATIONS)
    async with connected(database_url) as connection:
        assert await missing_migrations(connection, MIGRATIONS) == ()


async def test_a_failing_file_leaves_nothing(database_url: str, own_migrations: Path) -> None:
    number = len(read_migrations(own_migrations)) + 1
    (own_migrations / f"{number:04d}_bad.sql").write_text("CREATE TABLE keyturn.half (a integer); SELECT 1/0;")
    with pytest.raises(MigrationFault, match=f"{number:04d}_bad failed and left nothing behind: division by zero"):
        await migrate(database_url, own_migrations)
    async with connected(database_url) as connection:
        row = await (await connection.execute("SELECT to_regclass('keyturn.half') AS it")).fetchone()
        assert row == {"it": None}
        assert await pending(connection, own_migrations) == (f"{number:04d}_bad",)


@pytest.mark.parametrize("name", ["2_short.sql", "0002-dash.sql", "0002_Upper.sql", "0003_gap.sql"])
def test_a_misnamed_or_misnumbered_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "0001_first.sql").write_text("SELECT 1;")
    (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(MigrationFault):
        read_migrations(tmp_path)


async def test_a_lock_held_too_long_is_reported(database_url: str) -> None:
    async with connected(database_url) as other:
        await other.execute("SELECT pg_advisory_lock(5396217804362187051)")
        with pytest.raises(MigrationFault, match="Another migration has been running"):
            await migrate(database_url, MIGRATIONS, lock_seconds=0.3)


async def test_a_database_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await migrate("postgresql://nobody@127.0.0.1:1/none", MIGRATIONS)


async def test_an_index_left_invalid_by_a_killed_migration_is_built_again(database_url: str) -> None:
    async with connected(database_url) as connection:
        await connection.execute("DELETE FROM keyturn.schema_components WHERE component = 'langgraph'")
        await connection.execute("TRUNCATE langgraph.checkpoint_migrations")
        await connection.execute("DROP INDEX langgraph.checkpoints_thread_id_idx")
        for number in range(2):
            await connection.execute(
                "INSERT INTO langgraph.checkpoints (thread_id, checkpoint_id, checkpoint) VALUES ('t', %s, '{}')",
                (str(number),),
            )
        # What a kill in the middle leaves, made by a build that cannot succeed.
        with pytest.raises(psycopg.errors.UniqueViolation):
            await connection.execute(
                "CREATE UNIQUE INDEX CONCURRENTLY checkpoints_thread_id_idx ON langgraph.checkpoints (thread_id)"
            )
        report = await prepare_database(database_url, MIGRATIONS)
        assert [label.split()[0] for label in report.components] == ["langgraph"]
        found = await connection.execute(
            "SELECT indisvalid, indisunique FROM pg_index"
            " WHERE indexrelid = 'langgraph.checkpoints_thread_id_idx'::regclass"
        )
        assert await found.fetchall() == [{"indisvalid": True, "indisunique": False}]


async def test_an_older_procrastinate_is_brought_up(empty_database_url: str, database_url: str) -> None:
    before = "02.14.01_01"
    async with connected(empty_database_url) as connection:
        await migrate(empty_database_url, MIGRATIONS)
        await connection.execute("CREATE SCHEMA procrastinate")
        await connection.execute("SET search_path TO procrastinate")
        for path in sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql")):
            if path.name <= f"{before}~":
                await connection.execute(path.read_bytes())
        await connection.execute("INSERT INTO keyturn.schema_components VALUES ('procrastinate', %s)", (before,))
        report = await prepare_database(empty_database_url, MIGRATIONS)
        assert f"procrastinate {schema_components()[1].version}" in report.components
        upgraded = await _procrastinate_functions(connection)
    async with connected(database_url) as connection:
        fresh = await _procrastinate_functions(connection)
    assert upgraded >= fresh


async def test_a_newer_procrastinate_is_refused(database_url: str) -> None:
    async with connected(database_url) as connection:
        await connection.execute(
            "UPDATE keyturn.schema_components SET version = '99.00.00_01' WHERE component = 'procrastinate'"
        )
        with pytest.raises(MigrationFault, match="tables of procrastinate are newer"):
            await prepare_database(database_url, MIGRATIONS)


async def _procrastinate_functions(connection: AsyncConnection[DictRow]) -> set[str]:
    await connection.execute("SET search_path TO ''")
    found = await connection.execute(
        "SELECT oid::regprocedure::text AS name FROM pg_proc WHERE pronamespace = 'procrastinate'::regnamespace"
    )
    return {row["name"] for row in await found.fetchall()}


async def test_events_written_before_there_were_positions_get_them_in_the_order_of_their_chains(
    empty_database_url: str, own_migrations: Path
) -> None:
    threads = next(own_migrations.glob("0007_*.sql"))
    later = [file.rename(own_migrations / f"{file.name}.later") for file in own_migrations.glob("000[7-9]_*.sql")]
    await prepare_database(empty_database_url, own_migrations)
    event = (
        "INSERT INTO keyturn.events VALUES (%s, %s, 'default', now() + make_interval(secs => %s), 't', 'a', '{}', '')"
    )
    async with connected(empty_database_url) as connection:
        # In another order than they happened, as it is where a row takes the place of one that is gone.
        for chain, seq, seconds in (("wf-b", 2, 3.0), ("wf-a", 2, 1.0), ("wf-b", 1, 2.0), ("wf-a", 1, 4.0)):
            await connection.execute(event, (chain, seq, seconds))
    for file in later:
        file.rename(own_migrations / file.name.removesuffix(".later"))
    assert threads.is_file()
    await prepare_database(empty_database_url, own_migrations)
    async with connected(empty_database_url) as connection:
        await connection.execute(
            "INSERT INTO keyturn.events (workflow_id, seq, namespace, at, type, actor, body, hash)"
            " VALUES ('wf-a', 3, 'default', now(), 't', 'a', '{}', '')"
        )
        found = await connection.execute("SELECT workflow_id, seq FROM keyturn.events ORDER BY position")
        order = [(row["workflow_id"], row["seq"]) for row in await found.fetchall()]
    assert order == [("wf-b", 1), ("wf-b", 2), ("wf-a", 1), ("wf-a", 2), ("wf-a", 3)]
