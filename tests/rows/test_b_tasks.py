"""Row B9, the export that ships: a real Postgres table, real files, and what is refused."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from graphs.export_parts import Batch, Parts
from orchestrator.core.errors import InvalidInput, StepFailed
from orchestrator.service import workflows
from orchestrator.wire import WorkflowRecord
from tests.harness import Keyturn, running

GRAPHS = Path(__file__).parents[2] / "graphs" / "langgraph.json"


@pytest.fixture
async def keyturn(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Keyturn]:
    monkeypatch.setenv("KEYTURN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("KEYTURN_EXPORT_DATABASES", "shop, empty")
    monkeypatch.setenv("KEYTURN_CONNECTION_SHOP", database_url)
    monkeypatch.setenv("KEYTURN_CONNECTION_SECRETS", database_url)
    monkeypatch.delenv("KEYTURN_EXPORT_DIR", raising=False)
    async with running(database_url, app=GRAPHS) as found, found.working():
        yield found


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    return tmp_path / "data" / "exports"


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(cast("Any", statement))


def copied(url: str, query: str) -> bytes:
    """What the server itself makes of a query."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        connection.execute("SET TimeZone = 'UTC'")
        with cursor.copy(cast("Any", f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)")) as copy:
            return b"".join(bytes(chunk) for chunk in copy)


async def exported(keyturn: Keyturn, **content: Any) -> WorkflowRecord:
    workflow = await keyturn.submit("bulk_export", **{"database": "shop", "table": "orders", **content})
    found = await keyturn.until(workflow, "waiting", "failed")
    if found.status == "waiting":
        await keyturn.approve(workflow)
        found = await keyturn.until(workflow, "completed", "failed")
    return found


def told(done: WorkflowRecord, name: str) -> Any:
    assert done.status == "completed", done.error
    assert isinstance(done.result, dict)
    return done.result[name]


async def refused(keyturn: Keyturn, **content: Any) -> str:
    failed = await exported(keyturn, **content)
    assert failed.status == "failed"
    assert failed.approvals == [], "nobody is asked for what cannot be done"
    assert failed.error is not None
    assert failed.error["code"] == "invalid_input", failed.error
    return str(failed.error["detail"])


ORDERS = (
    "CREATE TABLE orders (id int PRIMARY KEY, note text, at timestamptz, price numeric, tags text[])",
    """INSERT INTO orders SELECT n, CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN 'a, "b"' || chr(10) || 'ü€😀'
              ELSE '\\.' END, timestamptz '2026-01-01 12:00+02' + n * interval '1 hour', n * 1.10, ARRAY['x', NULL, '']
         FROM generate_series(1, 25) n""",
)

# Bulk export


async def test_b9_an_export_is_what_the_server_itself_makes_of_the_table_with_a_manifest_beside_it(
    keyturn: Keyturn, database_url: str, exports: Path
) -> None:
    execute(database_url, *ORDERS)
    workflow = await keyturn.submit(
        "bulk_export", database="shop", table="orders", file="daily/orders.csv", batch_rows=10
    )
    asked = await keyturn.asked(workflow)
    assert asked.risk_level == "high"
    assert asked.action is not None
    assert asked.action["operation"] == "data_export"
    assert asked.action["arguments"] == {
        "database": "shop", "schema": "public", "table": "orders", "file": "daily/orders.csv", "key": ["id"],
        "up_to": ["25"],
        "columns": ["id: integer", "note: text", "at: timestamp with time zone", "price: numeric", "tags: text[]"],
    }  # fmt: skip
    assert asked.action["metadata"] == {"rows": 25, "rows_counted": True}
    assert asked.description == "Export 25 rows (5 columns) of shop: public.orders to daily/orders.csv"
    assert not exports.exists() or list(exports.rglob("*.csv")) == []
    await keyturn.approve(workflow)
    done = await keyturn.until(workflow, "completed", "failed")
    report = told(done, "export")
    content = (exports / "daily" / "orders.csv").read_bytes()
    assert content == copied(database_url, "SELECT * FROM orders ORDER BY id")
    assert report == {
        "file": "daily/orders.csv", "manifest": "orders.csv.manifest.json", "batches": 3, "rows": 25,
        "size": len(content), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    manifest = json.loads((exports / "daily" / "orders.csv.manifest.json").read_text())
    assert [one["rows"] for one in manifest["batches"]] == [10, 10, 5]
    pieces = io.BytesIO(content)
    for one in manifest["batches"]:
        assert hashlib.sha256(pieces.read(one["size"])).hexdigest() == one["sha256"]
    assert (manifest["workflow_id"], manifest["approved_by"], manifest["rows"]) == (workflow, ["tara"], 25)
    assert sorted(path.name for path in (exports / "daily").iterdir()) == ["orders.csv", "orders.csv.manifest.json"]
    assert list((exports / ".parts").iterdir()) == []
    assert [one.state for one in done.approvals] == ["executed"]


async def test_b9_a_rejected_export_reads_and_writes_nothing(
    keyturn: Keyturn, database_url: str, exports: Path
) -> None:
    execute(database_url, *ORDERS)
    workflow = await keyturn.submit("bulk_export", database="shop", table="orders", file="orders.csv")
    await keyturn.asked(workflow)
    await keyturn.reject(workflow)
    await keyturn.until(workflow, "rejected")
    assert list(exports.rglob("*")) == []


async def test_b9_null_and_empty_unicode_and_wide_values_come_back_as_they_were(
    keyturn: Keyturn, database_url: str, exports: Path
) -> None:
    execute(
        database_url, *ORDERS, "UPDATE orders SET note = repeat('wide \"€\" ', 200000) WHERE id IN (3, 4)",
        "CREATE TABLE again (LIKE orders)",
    )  # fmt: skip
    told(await exported(keyturn, file="orders.csv", batch_rows=2), "export")
    with psycopg.connect(database_url, autocommit=True) as connection:
        with connection.cursor().copy("COPY again FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write((exports / "orders.csv").read_bytes())
        differing = connection.execute("TABLE orders EXCEPT TABLE again").fetchall()
        counted = connection.execute("SELECT count(*), count(note), count(*) FILTER (WHERE note = '') FROM again")
        assert counted.fetchone() == (25, 20, 7)
    assert differing == []


async def test_b9_columns_are_chosen_and_named_as_they_are_however_odd(
    keyturn: Keyturn, database_url: str, exports: Path
) -> None:
    table, schema = 'or"ders; DROP TABLE x --', "Scha'de.n"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
        name = Identifier(schema, table)
        connection.execute(
            SQL('CREATE TABLE {} (key text, "Kéy 2%" int, "a""b" text, more int, PRIMARY KEY (key, "Kéy 2%"))').format(
                name
            )
        )
        connection.execute(
            SQL("INSERT INTO {} SELECT k, n, k || n, n FROM unnest(%s::text[]) k, generate_series(1, 3) n").format(
                name
            ),
            [["", "it's", 'quo"te', "back\\slash", "%s", "ü"]],
        )
    done = await exported(
        keyturn, schema=schema, table=table, columns=['a"b', "Kéy 2%"], key=["key", "Kéy 2%"], file="odd.csv",
        batch_rows=4,
    )  # fmt: skip
    assert told(done, "export")["batches"] == 5
    rows = list(csv.reader(io.StringIO((exports / "odd.csv").read_text())))
    assert rows[0] == ['a"b', "Kéy 2%"]
    assert len(rows) == 19
    assert {row[0] for row in rows[1:]} == {
        f"{key}{n}" for key in ["", "it's", 'quo"te', "back\\slash", "%s", "ü"] for n in (1, 2, 3)
    }


async def test_b9_an_empty_table_gives_a_header(keyturn: Keyturn, database_url: str, exports: Path) -> None:
    execute(database_url, "CREATE TABLE orders (id uuid PRIMARY KEY, note text)")
    report = told(await exported(keyturn, file="orders.csv"), "export")
    assert (exports / "orders.csv").read_bytes() == b"id,note\n"
    assert (report["rows"], report["batches"]) == (0, 1)


KINDS = {
    "smallint": "n", "bigint": "n * 10000000000", "numeric": "n / 7.0", "text": "'k' || n", "varchar(9)": "'k' || n",
    "char(9)": "'k' || n", "uuid": "md5(n::text)::uuid", "date": "date '2026-01-01' + n",
    "timestamp": "timestamp '2026-01-01' + n * interval '1 ms'",
    "timestamptz": "timestamptz '2026-01-01' + n * interval '7 h'", "bytea": "decode(md5(n::text), 'hex')",
}  # fmt: skip


async def test_b9_every_kind_of_key_carries_an_export(keyturn: Keyturn, database_url: str, exports: Path) -> None:
    for number, (kind, value) in enumerate(KINDS.items()):
        execute(
            database_url, f"CREATE TABLE orders{number} (k {kind} PRIMARY KEY)",
            f"INSERT INTO orders{number} SELECT {value} FROM generate_series(1, 20) n",  # noqa: S608 our own values
        )  # fmt: skip
        told(await exported(keyturn, table=f"orders{number}", file=f"{number}.csv", batch_rows=7), "export")
        wanted = copied(database_url, f"SELECT * FROM orders{number} ORDER BY k")  # noqa: S608 our own numbers
        assert (exports / f"{number}.csv").read_bytes() == wanted, kind


async def test_b9_rows_that_came_after_the_request_are_not_exported(
    keyturn: Keyturn, database_url: str, exports: Path
) -> None:
    execute(database_url, *ORDERS)
    before = copied(database_url, "SELECT * FROM orders ORDER BY id")
    workflow = await keyturn.submit("bulk_export", database="shop", table="orders", file="orders.csv", batch_rows=5)
    await keyturn.asked(workflow)
    execute(database_url, "INSERT INTO orders (id) SELECT generate_series(26, 100)")
    await keyturn.approve(workflow)
    await keyturn.until(workflow, "completed")
    assert (exports / "orders.csv").read_bytes() == before


async def test_b9_an_export_ends_where_it_was_to_end_also_when_those_rows_are_gone(
    keyturn: Keyturn, database_url: str, exports: Path
) -> None:
    execute(database_url, *ORDERS)
    workflow = await keyturn.submit("bulk_export", database="shop", table="orders", file="orders.csv", batch_rows=5)
    await keyturn.asked(workflow)
    execute(database_url, "DELETE FROM orders WHERE id > 20", "INSERT INTO orders (id) VALUES (26)")
    await keyturn.approve(workflow)
    done = await keyturn.until(workflow, "completed", "failed")
    assert (told(done, "export")["rows"], told(done, "export")["batches"]) == (20, 5)
    wanted = copied(database_url, "SELECT * FROM orders WHERE id <= 20 ORDER BY id")
    assert (exports / "orders.csv").read_bytes() == wanted


async def test_b9_a_batch_that_is_missing_or_was_changed_is_named_and_no_file_is_made_without_it(
    tmp_path: Path,
) -> None:
    parts = Parts.of(tmp_path, "wf-1")
    batches: list[Batch] = []
    for number in range(2):
        draft = parts.draft()
        await draft.write(b"rows\n")
        batches.append(parts.keep(draft, number, 1, (str(number),)))
    joined, digest = parts.join(batches, "orders.csv")
    assert hashlib.sha256(joined.read_bytes()).hexdigest() == digest
    joined.unlink()
    assert parts.find(1) == batches[1]
    (rows,) = parts.place.glob("000001.*.csv")
    rows.write_bytes(b"Rows\n")
    with pytest.raises(StepFailed, match="batch 1 of the export is not on this machine, or was changed"):
        parts.join(batches, "orders.csv")
    rows.unlink()
    with pytest.raises(StepFailed, match="batch 1"):
        parts.check(batches[1])
    assert parts.find(1) is None
    assert sorted(path.suffix for path in parts.place.iterdir()) == [".csv", ".json", ".json"], "no draft is left"


async def test_b9_a_table_that_changed_its_shape_since_it_was_approved_is_not_exported(
    keyturn: Keyturn, database_url: str, exports: Path
) -> None:
    execute(database_url, *ORDERS)
    workflow = await keyturn.submit("bulk_export", database="shop", table="orders", file="orders.csv")
    await keyturn.asked(workflow)
    execute(database_url, "ALTER TABLE orders ALTER price TYPE text")
    await keyturn.approve(workflow)
    failed = await keyturn.until(workflow, "completed", "failed")
    assert failed.error is not None
    assert failed.error["code"] == "hash_mismatch"
    assert list(exports.rglob("*.csv")) == []


OUTSIDE = (
    "../out.csv", "/srv/out.csv", "a/../../out.csv", ".hidden.csv", "a//b.csv", "a\\b.csv", ".parts/x.csv", "a/./b.csv",
    "link/out.csv", "linked.csv", "~/out.csv", "C:/out.csv", "out\n.csv", "orders.txt", "orders", "a/b/c/d/e/f.csv",
    "file.csv/out.csv",
)  # fmt: skip


async def test_b9_no_name_leads_out_of_the_export_folder(
    keyturn: Keyturn, database_url: str, exports: Path, tmp_path: Path
) -> None:
    execute(database_url, *ORDERS)
    exports.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (exports / "link").symlink_to(tmp_path / "elsewhere")
    (exports / "linked.csv").symlink_to(tmp_path / "elsewhere" / "out.csv")
    (exports / "file.csv").touch()
    for file in OUTSIDE:
        await refused(keyturn, file=file)
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_b9_only_databases_that_were_allowed_are_read(keyturn: Keyturn, database_url: str) -> None:
    execute(database_url, *ORDERS)
    assert "allowed: shop, empty" in await refused(keyturn, database="secrets", file="orders.csv")
    with pytest.raises(InvalidInput):
        await keyturn.submit("bulk_export", database="postgresql://u:p@h/d", table="orders", file="orders.csv")
    failed = await exported(keyturn, database="empty", file="orders.csv")
    assert failed.error is not None
    assert "set KEYTURN_CONNECTION_EMPTY to" in str(failed.error["detail"])


REFUSALS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"table": "nothing"}, "there is no table 'nothing' in the schema 'public'"),
    ({"schema": "pg_catalog", "table": "pg_authid"}, "there is no table 'pg_authid'"),
    ({"table": "seen"}, "there is no table 'seen'"),
    ({"columns": ["id", "x"]}, "'orders' has no column x; it has id, note"),
    ({"key": ["note"]}, "(note) is no unique key of 'orders'"),
    ({"key": ["at"]}, "(at) is no unique key of 'orders'"),
    ({"table": "keyless"}, "'keyless' has no primary key; an export needs one without nulls"),
    ({"table": "floating"}, "the key column 'k' is of type double precision, which cannot order an export"),
    ({"table": "parent"}, "'parent' has child tables"),
    # Unique by another way of comparing: two names could be alike to the column, and one be left out.
    ({"table": "alike", "key": ["name"]}, "(name) is no unique key of 'alike'"),
)


async def test_b9_what_cannot_be_exported_without_loss_is_refused_and_says_why(
    keyturn: Keyturn, database_url: str
) -> None:
    execute(
        database_url, *ORDERS, "CREATE VIEW seen AS TABLE orders", "CREATE UNIQUE INDEX ON orders (note, id)",
        "ALTER TABLE orders ALTER at SET NOT NULL", "CREATE UNIQUE INDEX ON orders (at) WHERE id > 3",
        "CREATE UNIQUE INDEX ON orders ((id + 1))", "CREATE TABLE keyless (k int UNIQUE)",
        "CREATE TABLE floating (k float8 PRIMARY KEY)", "CREATE TABLE parent (k int PRIMARY KEY)",
        "CREATE TABLE child () INHERITS (parent)", 'CREATE TABLE alike (name text COLLATE "C" NOT NULL)',
        'CREATE UNIQUE INDEX ON alike (name COLLATE "POSIX")',
    )  # fmt: skip
    for content, said in REFUSALS:
        assert said in await refused(keyturn, **{"file": "orders.csv", **content})


async def test_b9_partitions_are_exported_in_one_order(keyturn: Keyturn, database_url: str, exports: Path) -> None:
    execute(
        database_url, "CREATE TABLE orders (id int PRIMARY KEY, note text) PARTITION BY HASH (id)",
        "CREATE TABLE one PARTITION OF orders FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE two PARTITION OF orders FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        "INSERT INTO orders SELECT n, 'x' FROM generate_series(1, 50) n",
    )  # fmt: skip
    told(await exported(keyturn, file="orders.csv", batch_rows=7), "export")
    assert (exports / "orders.csv").read_bytes() == copied(database_url, "SELECT * FROM orders ORDER BY id")


async def test_b9_a_file_that_is_there_is_never_replaced(keyturn: Keyturn, database_url: str, exports: Path) -> None:
    execute(database_url, *ORDERS)
    exports.mkdir(parents=True)
    (exports / "orders.csv").write_text("mine")
    assert "there is a file orders.csv already" in await refused(keyturn, file="orders.csv")
    late = await keyturn.submit("bulk_export", database="shop", table="orders", file="late.csv")
    await keyturn.asked(late)
    (exports / "late.csv").write_text("mine")
    await keyturn.approve(late)
    failed = await keyturn.until(late, "completed", "failed")
    assert failed.status == "failed"
    assert (exports / "orders.csv").read_text() == (exports / "late.csv").read_text() == "mine"
    assert sorted(path.name for path in exports.glob("*.json")) == []


async def test_b9_an_export_tells_its_progress_by_rows(keyturn: Keyturn, database_url: str) -> None:
    execute(database_url, *ORDERS)
    done = await exported(keyturn, file="orders.csv", batch_rows=5)
    told(done, "export")
    page = await workflows.events_page(keyturn.ctx, keyturn.me, done.workflow_id, 0, 1000)
    last = [event.data for event in page.events if event.type == "progress" and event.data["node"] == "export"][-1]
    assert (last["percent"], last["done"], last["total"]) == (100, 25, 25)
    assert last["message"] == "25 of 25 rows, in 5 batches"
