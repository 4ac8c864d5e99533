"""A bulk export whose workers die by SIGKILL: the file is that of an undisturbed run, and no batch is read twice.

The test holds a worker at a point by a lock of Postgres: a policy on the exported table takes it row by row while a
batch is read, and a trigger takes it where the ledger of effects is written. Each row read by a batch that came to its
end is told by that policy too, so that readings can be counted.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from tests.faults.conftest import Farm
from tests.faults.process import Child

GRAPH = Path(__file__).parents[2] / "graphs" / "bulk_export.py"
ROWS, BATCH = 45, 10
_TABLE = """
CREATE TABLE public.orders (id int PRIMARY KEY, note text, wide text);
INSERT INTO public.orders SELECT n, 'ü' || n, repeat('w', 100000) FROM generate_series(1, {rows}) n;
CREATE FUNCTION public.noted(id int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF current_query() LIKE 'COPY%' THEN
        PERFORM pg_advisory_xact_lock_shared(id), pg_notify('rows_read', id::text);
    END IF;
    RETURN true;
END $$;
ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY counted ON public.orders USING (public.noted(id));
CREATE FUNCTION public.held() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended(NEW.name || ' ' || NEW.state, 0));
    RETURN NEW;
END $$;
CREATE TRIGGER held BEFORE INSERT OR UPDATE ON keyturn.effects FOR EACH ROW EXECUTE FUNCTION public.held();
CREATE ROLE {role} LOGIN PASSWORD 'reads';
GRANT SELECT ON public.orders TO {role};
"""
_HELD = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@dataclass
class Export:
    """A table, the workers that export it, and the locks that hold them."""

    farm: Farm
    connection: AsyncConnection[TupleRow]
    app: Path
    folder: Path

    def worker(self, lease_seconds: float = 5.0) -> Child:
        return self.farm.worker(app=self.app, lease_seconds=lease_seconds)

    async def begun(self, *, name: str = "orders.csv", lease_seconds: float = 1.0) -> tuple[str, Child]:
        """A workflow that waits for its approval, and its worker."""
        child = self.worker(lease_seconds)
        await self.farm.offered("bulk_export")
        content = {"database": "shop", "table": "orders", "file": name, "batch_rows": BATCH}
        workflow = await self.farm.keyturn.submit("bulk_export", **content)
        await self.farm.keyturn.asked(workflow)
        return workflow, child

    async def hold_row(self, row: int) -> None:
        """Whoever reads this row in a batch is held there."""
        await self.connection.execute("SELECT pg_advisory_lock(%s)", [row])

    async def hold_effect(self, name: str, state: str) -> None:
        """Whoever records that an effect has got there is held just before."""
        await self.connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"{name} {state}"])

    async def held(self) -> int:
        """Wait until somebody is held; the process of the server that waits."""
        found: list[int] = []

        async def look() -> bool:
            found[:] = [row[0] for row in await (await self.connection.execute(_HELD)).fetchall()]
            return bool(found)

        await self.farm.until(look, seconds=20)
        return found[0]

    async def kill(self, child: Child) -> None:
        """Kill a held worker; what it was about to commit is never committed."""
        pid = await self.held()
        await child.kill()
        await self.connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        await self.release()

    async def release(self) -> None:
        await self.connection.execute("SELECT pg_advisory_unlock_all()")

    async def readings(self) -> Counter[int]:
        """How often each row was read by a batch that came to its end."""
        return Counter([int(notice.payload) async for notice in self.connection.notifies(timeout=0.2)])

    async def table(self) -> bytes:
        """The table as the server itself writes it."""
        wanted = "COPY (SELECT * FROM public.orders ORDER BY id) TO STDOUT (FORMAT csv, HEADER)"
        async with self.connection.cursor() as cursor, cursor.copy(wanted) as rows:
            return b"".join([bytes(chunk) async for chunk in rows])

    def parts(self, workflow: str, pattern: str) -> list[Path]:
        return sorted((self.folder / ".parts" / workflow).glob(pattern))

    async def check(self, workflow: str) -> None:
        """The file is the table, every row of it was read once, and nothing is left over."""
        done = await self.farm.completed(workflow)
        assert [approval.state for approval in done.approvals] == ["executed"]
        content = (self.folder / "orders.csv").read_bytes()
        assert content == await self.table()
        assert await self.readings() == Counter(range(1, ROWS + 1))
        manifest = json.loads((self.folder / "orders.csv.manifest.json").read_text())
        assert [one["rows"] for one in manifest["batches"]] == [10, 10, 10, 10, 5]
        assert self.parts(workflow, "*") == []
        await self.farm.check()


@pytest.fixture
async def export(farm: Farm, tmp_path: Path) -> AsyncIterator[Export]:
    role = f"reader_{secrets.token_hex(6)}"
    parts = conninfo_to_dict(farm.database_url)
    url = f"postgresql://{role}:reads@{parts['host']}:{parts.get('port', 5432)}/{parts['dbname']}"
    folder = tmp_path / "exports"
    environment = {
        "KEYTURN_EXPORT_DIR": str(folder), "KEYTURN_EXPORT_DATABASES": "shop", "KEYTURN_CONNECTION_SHOP": url,
    }  # fmt: skip
    app = tmp_path / "app.json"
    app.write_text(json.dumps({"graphs": {"bulk_export": f"{GRAPH}:graph"}, "env": environment}))
    async with await psycopg.AsyncConnection.connect(farm.database_url, autocommit=True) as connection:
        made = sql.SQL(_TABLE).format(rows=sql.Literal(ROWS), role=sql.Identifier(role))
        await connection.execute(made)
        await connection.execute("LISTEN rows_read")
        try:
            yield Export(farm, connection, app, folder)
        finally:
            await connection.execute("SELECT pg_advisory_unlock_all()")
            farm.clear_away()
            farm.children.clear()
            await connection.execute(
                sql.SQL("DROP OWNED BY {role}; DROP ROLE {role}").format(role=sql.Identifier(role))
            )


async def test_b9_killed_in_the_middle_of_a_batch_an_export_goes_on_with_that_batch(export: Export) -> None:
    workflow, child = await export.begun()
    await export.hold_row(28)
    await export.farm.keyturn.approve(workflow)
    await export.held()
    await export.farm.until(lambda: any(part.stat().st_size for part in export.parts(workflow, ".batch*")))
    assert [part.name[:6] for part in export.parts(workflow, "*.json")] == ["000000", "000001"]
    await export.kill(child)
    export.worker()
    await export.check(workflow)


async def test_b9_killed_between_the_batch_on_the_disk_and_its_commit_an_export_takes_the_batch_from_the_disk(
    export: Export,
) -> None:
    workflow, child = await export.begun()
    await export.hold_effect("export:000002", "finished")
    await export.farm.keyturn.approve(workflow)
    await export.held()
    (kept,) = export.parts(workflow, "000002.*.csv")
    written = kept.stat().st_mtime_ns
    await export.kill(child)
    await export.hold_row(41)
    export.worker()
    await export.held()
    assert kept.stat().st_mtime_ns == written
    await export.release()
    await export.check(workflow)


async def test_b9_killed_after_the_approval_and_before_the_first_batch_an_export_runs_once(export: Export) -> None:
    workflow, child = await export.begun()
    await export.hold_effect("export:000000", "started")
    await export.farm.keyturn.approve(workflow)
    await export.kill(child)
    assert export.parts(workflow, "*") == []
    export.worker()
    await export.check(workflow)


@pytest.mark.faults
async def test_b9_killed_while_the_file_is_published_an_export_publishes_it_once(export: Export) -> None:
    workflow, child = await export.begun()
    await export.hold_effect("publish", "finished")
    await export.farm.keyturn.approve(workflow)
    await export.held()
    there = (export.folder / "orders.csv").stat()
    await export.kill(child)
    export.worker()
    await export.check(workflow)
    assert (export.folder / "orders.csv").stat().st_ino == there.st_ino


@pytest.mark.faults
async def test_b9_what_a_worker_writes_that_was_taken_for_dead_is_no_part_of_the_export(export: Export) -> None:
    workflow, sleeper = await export.begun()
    await export.hold_effect("export:000002", "finished")
    await export.farm.keyturn.approve(workflow)
    pid = await export.held()
    await sleeper.freeze()
    await export.connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    await export.release()
    # Its batch comes to the disk only later; until then another worker has read that batch as it is by then.
    late = {path: path.rename(path.with_name(f"late-{path.name}")) for path in export.parts(workflow, "000002.*")}
    await export.connection.execute("UPDATE public.orders SET note = 'new' WHERE id = 25")
    await export.hold_row(35)
    export.worker()
    await export.held()
    (other,) = export.parts(workflow, "000002.*.csv")
    assert other not in late
    for path, kept in late.items():
        kept.rename(path)
    sleeper.thaw()
    await export.release()
    await export.farm.completed(workflow)
    content = (export.folder / "orders.csv").read_bytes()
    assert content == await export.table()
    assert content.count(b",new,") == 1


@pytest.mark.faults
async def test_b9_killed_before_every_commit_an_export_is_that_of_an_undisturbed_run(export: Export) -> None:
    workflow, child = await export.begun()
    points = [("export", "finished")]
    points += [(f"export:{batch:06}", state) for batch in range(5) for state in ("started", "finished")]
    points += [("publish", "started"), ("publish", "finished")]
    await export.hold_effect(*points[0])
    await export.farm.keyturn.approve(workflow)
    for point in points[1:]:
        await export.kill(child)
        await export.hold_effect(*point)
        child = export.worker(lease_seconds=1.0)
    await export.kill(child)
    export.worker()
    await export.check(workflow)
    undisturbed, _ = await export.begun(name="again.csv", lease_seconds=5.0)
    await export.farm.keyturn.approve(undisturbed)
    await export.farm.completed(undisturbed)
    assert (export.folder / "again.csv").read_bytes() == (export.folder / "orders.csv").read_bytes()
