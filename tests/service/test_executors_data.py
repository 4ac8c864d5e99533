"""The executors against real targets: a Postgres, an HTTP server on a socket, programs, and Terraform where it is."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from orchestrator.core.errors import DigestMismatch, StepFailed, ToolMissing
from orchestrator.sdk.executors import Command, Context, Secrets, Sql, TerraformPlan, execute, sql, terraform

needs_terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed here")


def accept(_result: Mapping[str, object]) -> None:
    """Any result will do."""


@pytest.fixture
def context(tmp_path: Path) -> Context:
    values = {"keyturn.runbooks": str(tmp_path), "keyturn.data_dir": str(tmp_path / "data")}
    return Context("step", "wf_1", "", values, tmp_path, tmp_path / "data", 20.0, Secrets(), accept)


def python(code: str, *arguments: str, **more: Any) -> Command:
    return Command(argv=(sys.executable, "-c", code, *arguments), **more)


def with_values(context: Context, **values: object) -> Context:
    return replace(context, values={**context.values, **values})


# SQL


@pytest.fixture
def shop(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with a table, reached by the connection `shop`."""
    monkeypatch.setenv("KEYTURN_CONNECTION_SHOP", database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.orders (id int PRIMARY KEY, state text, note text, at timestamptz)")
        connection.execute(
            "INSERT INTO public.orders SELECT n, CASE WHEN n % 2 = 0 THEN 'done' ELSE 'open' END, NULL, now()"
            " FROM generate_series(1, 10) n"
        )
    return database_url


def count(url: str, table: str = "orders") -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(SQL("SELECT count(*) FROM public.{}").format(Identifier(table))).fetchone()
        assert row is not None
        return int(row[0])


def shop_sql(*statements: str, **more: Any) -> Sql:
    return Sql(connection="shop", statements=statements, **more)


async def test_rows_and_records_come_back_as_json(context: Context, shop: str) -> None:
    look = shop_sql(
        "SELECT id, note, at, 1.5::numeric AS d, 7::numeric AS w, 'NaN'::float8 AS f, '{\"a\": 1}'::jsonb AS j,"
        " ARRAY[1, 2] AS l, '\\x00ff'::bytea AS b FROM orders WHERE state = ${s} ORDER BY id"
    )
    found: Any = await execute(look, with_values(context, s="done"))
    assert found["rows"] == 5
    first = found["records"][0]
    assert first["id"] == 2
    assert first["note"] is None
    assert (first["d"], first["w"], first["f"], first["j"], first["l"], first["b"]) == (
        "1.5", 7, "nan", {"a": 1}, [1, 2], "00ff",
    )  # fmt: skip
    json.dumps(found, allow_nan=False)


async def test_injected_text_is_a_value_in_real_sql(context: Context, shop: str) -> None:
    attack = "x'; DROP TABLE orders; --"
    look = shop_sql("SELECT count(*) AS n FROM ${t!identifier} WHERE state = ${s} OR ${c!equals}")
    values = with_values(context, t="orders", s=attack, c={"note": attack, "state": "done"})
    assert (await execute(look, values))["records"] == [{"n": 0}]
    nothing = with_values(context, t="orders", s="none", c={"note": None, "state": "done"})
    assert (await execute(look, nothing))["records"] == [{"n": 5}]
    assert count(shop) == 10


async def test_looking_cannot_change_anything(context: Context, shop: str) -> None:
    with pytest.raises(StepFailed, match="shop: cannot execute DELETE in a read-only transaction"):
        await execute(shop_sql("DELETE FROM orders"), context)
    with pytest.raises(StepFailed, match="multiple commands"):
        await execute(shop_sql("SELECT 1; COMMIT; DELETE FROM orders"), context)
    assert count(shop) == 10


async def test_one_key_applies_once_and_the_repeat_gets_the_first_result(context: Context, shop: str) -> None:
    changing = replace(context, key="wf_1:apply:3:apply:0")
    step = shop_sql("DELETE FROM orders WHERE id <= 2", "DELETE FROM orders WHERE state = 'done'")
    first = await execute(step, changing)
    assert (first["rows"], first["row_counts"]) == (4, [2, 4])
    assert await execute(shop_sql("DELETE FROM orders"), changing) == first
    assert await sql.applied(step, changing) == first
    assert await sql.applied(step, replace(changing, key="another")) is None
    assert count(shop) == 4
    await execute(step, replace(changing, key="another"))
    assert count(shop, "keyturn_applied") == 2


async def test_two_workers_with_one_key_at_once_apply_once(context: Context, shop: str) -> None:
    changing = replace(context, key="wf_1:apply:3:apply:0")
    step = shop_sql("INSERT INTO orders SELECT max(id) + 1, 'new' FROM orders", "SELECT pg_sleep(0.2)")
    both = await asyncio.gather(execute(step, changing), execute(step, changing), execute(step, changing))
    assert both[0] == both[1] == both[2]
    assert count(shop) == 11


async def test_a_refused_result_a_failing_statement_or_a_cancel_changes_nothing(context: Context, shop: str) -> None:
    def refuse(result: Mapping[str, object]) -> None:
        raise StepFailed(f"rows is {result['rows']}")

    changing = replace(context, key="wf_1:apply:3:apply:0")
    with pytest.raises(StepFailed, match="rows is 10"):
        await execute(shop_sql("DELETE FROM orders"), replace(changing, check=refuse))
    with pytest.raises(StepFailed, match='shop: relation "nowhere" does not exist'):
        await execute(shop_sql("DELETE FROM orders", "DELETE FROM nowhere"), changing)
    running = asyncio.create_task(execute(shop_sql("DELETE FROM orders", "SELECT pg_sleep(30)"), changing))
    await until_sleeping(shop)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert count(shop) == 10
    assert await sql.applied(shop_sql("DELETE FROM orders"), changing) is None


async def until_sleeping(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while True:
            found = await connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
            )
            if await found.fetchone():
                return


async def test_a_long_statement_is_stopped_by_the_server(context: Context, shop: str) -> None:
    with pytest.raises(StepFailed, match=r"statement timeout|longer than 0\.3 s"):
        await execute(shop_sql("SELECT pg_sleep(30)"), replace(context, seconds=0.3))


async def test_vacuum_runs_outside_of_a_transaction(context: Context, shop: str) -> None:
    vacuum = shop_sql("VACUUM (ANALYZE) ${t!identifier}", autocommit=True)
    await execute(vacuum, replace(with_values(context, t="orders"), key="k"))
    with pytest.raises(StepFailed, match="VACUUM cannot run inside a transaction block"):
        await execute(shop_sql("VACUUM orders"), replace(context, key="k"))


async def test_plain_names_reach_the_public_schema_only(context: Context, shop: str) -> None:
    with pytest.raises(StepFailed, match='relation "workflows" does not exist'):
        await execute(shop_sql("SELECT * FROM ${t!identifier}"), with_values(context, t="workflows"))


async def test_a_missing_connection_names_its_variable_and_a_refused_one_no_password(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepFailed, match="set KEYTURN_CONNECTION_NOWHERE to postgresql://"):
        await execute(Sql(connection="nowhere", statements=("SELECT 1",)), context)
    monkeypatch.setenv("KEYTURN_CONNECTION_DOWN", "postgresql://me:canary-password@127.0.0.1:1/db")
    with pytest.raises(StepFailed, match="down: connection") as failed:
        await execute(Sql(connection="down", statements=("SELECT 1",)), replace(context, secrets=Secrets()))
    assert "canary" not in failed.value.detail


# Terraform


@pytest.fixture
def module(tmp_path: Path) -> TerraformPlan:
    shipped = Path(__file__).parents[2] / "config" / "runbooks" / "terraform-example"
    shutil.copytree(shipped, tmp_path / "module")
    return TerraformPlan(
        directory="${keyturn.runbooks}/module",
        variables={"replicas": "${n}", "release": "${r}", "environment": "test"},
        backend={"path": "${keyturn.data_dir}/test.tfstate"},
    )


@needs_terraform
async def test_terraform_applies_exactly_the_plan_that_was_looked_at(context: Context, module: TerraformPlan) -> None:
    wanted = with_values(context, n=2, r='1.0"; attack = "${file("/etc/passwd")}')
    planned: Any = await terraform.plan(module, wanted)
    assert (planned["additions"], planned["changes"], planned["deletions"]) == (3, 0, 0)
    assert {entry["address"] for entry in planned["resources"]} == {
        "terraform_data.network", "terraform_data.instance[0]", "terraform_data.instance[1]",
    }  # fmt: skip
    # Planning again, for something else, does not replace what was approved.
    await terraform.plan(module, with_values(context, n=9, r="2.0"))
    done = await terraform.apply(module, planned["digest"], replace(wanted, key="k"))
    assert done == {"added": 3, "changed": 0, "destroyed": 0, "digest": planned["digest"]}
    state = json.loads((context.data_dir / "test.tfstate").read_text())
    assert 'attack = "${file(' in json.dumps(state).replace("\\", "")
    fewer: Any = await terraform.plan(module, with_values(context, n=0, r="1.0"))
    assert (fewer["additions"], fewer["changes"], fewer["deletions"]) == (0, 0, 2)
    with pytest.raises(StepFailed, match="Saved plan is stale"):
        await terraform.apply(module, planned["digest"], replace(wanted, key="k"))


@needs_terraform
async def test_another_plan_file_than_the_approved_one_is_refused(context: Context, module: TerraformPlan) -> None:
    wanted = with_values(context, n=1, r="1.0")
    approved = str((await terraform.plan(module, wanted))["digest"])
    other = str((await terraform.plan(module, with_values(context, n=5, r="1.0")))["digest"])
    terraform.plan_file(context, approved).write_bytes(terraform.plan_file(context, other).read_bytes())
    with pytest.raises(DigestMismatch, match="not the one that was approved") as refused:
        await terraform.apply(module, approved, replace(wanted, key="k"))
    assert refused.value.code == "hash_mismatch"
    assert not (context.data_dir / "test.tfstate").exists()
    terraform.plan_file(context, approved).unlink()
    with pytest.raises(StepFailed, match="is not on this machine"):
        await terraform.apply(module, approved, replace(wanted, key="k"))


@needs_terraform
async def test_terraform_leaves_the_module_alone_and_says_what_is_wrong_in_it(
    context: Context, module: TerraformPlan, tmp_path: Path
) -> None:
    await terraform.plan(module, with_values(context, n=1, r="1.0"))
    assert [path.name for path in (tmp_path / "module").iterdir()] == ["main.tf"]
    kept = {path.name for path in (context.data_dir / "plans" / "wf_1").iterdir()}
    assert not any("tfvars" in name or "tmp" in name for name in kept), kept
    assert (context.data_dir / "plans" / "wf_1").stat().st_mode & 0o077 == 0
    (tmp_path / "module" / "main.tf").write_text("resource {")
    with pytest.raises(StepFailed, match="terraform plan failed: Error"):
        await terraform.plan(module, with_values(context, n=1, r="1.0"))


async def test_a_machine_without_terraform_is_told_so(
    context: Context, module: TerraformPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for call in (terraform.plan(module, context), terraform.apply(module, "0" * 64, context)):
        with pytest.raises(ToolMissing, match="terraform is not installed on this machine") as missing:
            await call
        assert missing.value.code == "tool_missing"


async def test_a_folder_without_a_module_or_a_strange_workflow_id_is_refused(
    context: Context, module: TerraformPlan
) -> None:
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed here")
    empty = module.model_copy(update={"directory": "${keyturn.runbooks}"})
    with pytest.raises(StepFailed, match=r"there is no \.tf file in it"):
        await terraform.plan(empty, context)
    with pytest.raises(StepFailed, match="cannot name a folder"):
        await terraform.plan(module, replace(with_values(context, n=1, r="1"), workflow_id="../../etc"))
