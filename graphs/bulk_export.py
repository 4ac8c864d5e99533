"""Exports a Postgres table to one CSV file: plan, ask, read in batches, publish. A crash repeats one batch at most.

Each batch is an effect of the ledger: what it read is on the disk before the ledger says so, and never read again.
The file appears whole, with a manifest beside it, and replaces nothing. docs/tasks.md says what is promised.
"""

# pyright: reportUnknownMemberType=false
# LangGraph's own annotations are partial.
from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from typing_extensions import TypedDict

from graphs import files
from graphs.export_parts import Batch, Parts, digest_of
from graphs.export_table import Connection, Page, Shape, describe, measure, read_batch, reading
from orchestrator.sdk import Action, Decision, Happened, Step, effect, progress, request_approval, steps
from orchestrator.sdk.runtime import host
from orchestrator.sdk.stepping import StepsGraph

BATCH_ROWS = 10_000
_NAME = {"type": "string", "minLength": 1, "maxLength": 63}
INPUT: Mapping[str, object] = {
    "title": "Bulk export",
    "description": "Export a table of a database to a CSV file in the export folder, after somebody approved it.",
    "type": "object",
    "required": ["database", "table", "file"],
    "additionalProperties": False,
    "properties": {
        "database": {
            "title": "Database",
            "description": "One of the connections that KEYTURN_EXPORT_DATABASES allows, by its name",
            "type": "string",
            "pattern": "^[a-z][a-z0-9_]{0,40}$",
        },
        "schema": {**_NAME, "title": "Schema", "description": "The table's schema", "default": "public"},
        "table": {**_NAME, "title": "Table", "description": "The table's name, exactly as it is written there"},
        "columns": {
            "title": "Columns",
            "description": "The columns to export, in this order; all of them if left out",
            "type": "array",
            "items": _NAME,
            "minItems": 1,
            "maxItems": 1600,
            "uniqueItems": True,
        },
        "key": {
            "title": "Key",
            "description": "A unique key without nulls, which gives the order; the primary key if left out",
            "type": "array",
            "items": _NAME,
            "minItems": 1,
            "maxItems": 32,
        },
        "file": {
            "title": "File",
            "description": "The file to write, relative to the export folder, such as reports/orders.csv",
            "type": "string",
            "minLength": 1,
            "maxLength": 300,
        },
        "batch_rows": {
            "title": "Rows in a batch",
            "description": "How many rows are read and kept at a time; a crash repeats the reading of one batch",
            "type": "integer",
            "minimum": 1,
            "maximum": 1_000_000,
            "default": BATCH_ROWS,
        },
    },
}


class State(TypedDict, total=False):
    """What is submitted, and the export so far: names and figures, never rows."""

    database: str
    schema: str
    table: str
    columns: list[str]
    key: list[str]
    file: str
    batch_rows: int
    plan: dict[str, object]
    decision: dict[str, object]
    read: dict[str, object]
    outcome: str
    export: dict[str, object]


def exports() -> Path:
    """Where exports are written: KEYTURN_EXPORT_DIR, else `exports` in the data folder."""
    return files.folder("KEYTURN_EXPORT_DIR", "exports")


def target(state: State) -> Path:
    """The file to write. InvalidInput when the name leads elsewhere or something is there already."""
    path = files.inside(exports(), state.get("file", ""), endings=(".csv",))
    files.free(manifest_of(path))
    return files.free(path)


def manifest_of(path: Path) -> Path:
    """The manifest of an exported file, beside it."""
    return path.with_name(f"{path.name}.manifest.json")


def action(state: State, columns: Sequence[str], key: Sequence[str]) -> Action:
    """What is asked for, and what its digest binds: exactly these columns of these types, up to exactly this key."""
    database, schema, table = state.get("database", ""), state.get("schema", "public"), state.get("table", "")
    planned = state.get("plan", {})
    return Action(
        "data_export",
        target=f"{database}: {schema}.{table}",
        resource_type="table",
        arguments={
            "database": database,
            "schema": schema,
            "table": table,
            "columns": list(columns),
            "key": list(key),
            "up_to": planned.get("up_to"),
            "file": state.get("file", ""),
        },
        metadata={"rows": planned.get("rows"), "rows_counted": planned.get("counted")},
    )


# The steps


async def plan(state: State) -> State:
    """Look at the table and the target, and change nothing."""
    await asyncio.to_thread(target, state)
    async with reading(state.get("database", "")) as connection:
        shape = await _look(connection, state, state.get("columns", ()), state.get("key", ()))
        extent = await measure(connection, shape)
    up_to = None if extent.up_to is None else list(extent.up_to)
    looked = {"types": shape.described, "columns": list(shape.columns), "key": list(shape.key)}
    return {"plan": {**looked, "rows": extent.rows, "counted": extent.counted, "up_to": up_to}}


async def _look(connection: Connection, state: State, columns: Sequence[str], key: Sequence[str]) -> Shape:
    return await describe(connection, state.get("schema", "public"), state.get("table", ""), columns, key)


def approve(state: State) -> State:
    """Ask for exactly what was planned."""
    columns = _planned(state, "types")
    wanted = action(state, columns, _planned(state, "key"))
    about = "" if wanted.metadata["rows_counted"] else "about "
    what = f"{about}{wanted.metadata['rows']} rows ({len(columns)} columns) of {wanted.target}"
    return {"decision": request_approval(wanted, description=f"Export {what} to {state.get('file')}").to_json()}


def _planned(state: State, name: str) -> list[str]:
    return cast("list[str]", state.get("plan", {}).get(name))


async def export(state: State) -> State:
    """Read one batch after the other. What an earlier attempt finished is taken from the ledger and not read again."""
    await asyncio.to_thread(target, state)
    parts = await asyncio.to_thread(Parts.of, exports(), host().workflow_id)
    async with reading(state.get("database", "")) as connection:
        shape = await _look(connection, state, _planned(state, "columns"), _planned(state, "key"))
        present = action(state, shape.described, shape.key)
        async with effect("export", approval=state.get("decision"), action=present, verify=lambda: None):
            # The approval is used up here, for the table as it is now; the batches are parts of this effect.
            pass
        batches = await _read_all(connection, shape, parts, state)
    listed = await asyncio.to_thread(parts.list_all, batches)
    return {"read": {"batches": len(batches), "rows": sum(one.rows for one in batches), "list": listed}}


async def _read_all(connection: Connection, shape: Shape, parts: Parts, state: State) -> list[Batch]:
    expected, size = cast("int", state.get("plan", {}).get("rows")), state.get("batch_rows", BATCH_ROWS)
    end = cast("list[str] | None", state.get("plan", {}).get("up_to"))
    up_to = None if end is None else tuple(end)
    batches: list[Batch] = []
    done = 0
    while not batches or (batches[-1].rows == size and batches[-1].last != up_to):
        page = Page(len(batches), batches[-1].last if batches else None, up_to, size)
        batches.append(await _batch(connection, shape, parts, page))
        done += batches[-1].rows
        total = max(expected, done)
        many = "1 batch" if len(batches) == 1 else f"{len(batches)} batches"
        progress(done=done, total=total or None, message=f"{done} of {total} rows, in {many}")
    progress(100)
    return batches


async def _batch(connection: Connection, shape: Shape, parts: Parts, page: Page) -> Batch:
    """One batch: from the ledger, else from the disk where a crash came before the ledger knew, else from the table."""

    async def read() -> object:
        draft = await asyncio.to_thread(parts.draft)
        try:
            rows, last = await read_batch(connection, shape, page, draft.write)
            return (await asyncio.to_thread(parts.keep, draft, page.number, rows, last)).to_json()
        finally:
            await asyncio.to_thread(draft.discard)

    async def found() -> Happened | None:
        batch = await asyncio.to_thread(parts.find, page.number)
        return None if batch is None else Happened(batch.to_json())

    async with effect(f"export:{page.number:06}", verify=found) as entry:
        batch = Batch.from_json(cast("Mapping[str, object]", await entry.once(read)))
    await asyncio.to_thread(parts.check, batch)
    return batch


async def publish(state: State) -> State:
    """Make one file of the batches, compare every digest, and give it its name; then clear the batches away."""
    parts = await asyncio.to_thread(Parts.of, exports(), host().workflow_id)

    async def run() -> object:
        return await asyncio.to_thread(_publish, parts, state)

    # Publishing again what is published already changes nothing, so a crash in the middle leaves no doubt.
    async with effect("publish", verify=lambda: None) as entry:
        published = cast("dict[str, object]", await entry.once(run))
    await asyncio.to_thread(parts.remove)
    return {"outcome": "exported", "export": published}


def _publish(parts: Parts, state: State) -> dict[str, object]:
    path = files.inside(exports(), state.get("file", ""), endings=(".csv",))
    batches = parts.listed(str(state.get("read", {}).get("list")))
    joined, digest = parts.join(batches, path.name)
    size = joined.stat().st_size
    told = {"rows": sum(one.rows for one in batches), "size": size, "sha256": digest}
    manifest = json.dumps(_manifest(state, batches) | told, indent=2, ensure_ascii=False).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    files.inside(exports(), state.get("file", ""))
    # The manifest first: whoever has it owns the name, and there is never a file that nothing vouches for.
    beside = manifest_of(path)
    if not beside.exists():
        files.free(path)
    if not files.publish(parts.draft_with(manifest), beside) and beside.read_bytes() != manifest:
        raise files.taken(beside)
    if not files.publish(joined, path) and digest_of(path) != digest:
        beside.unlink()
        raise files.taken(path)
    return {"file": state.get("file"), "manifest": beside.name, "batches": len(batches), **told}


def _manifest(state: State, batches: Sequence[Batch]) -> dict[str, object]:
    decision = Decision.from_json(state.get("decision", {}))
    told: dict[str, object] = {
        "workflow_id": host().workflow_id,
        "approval_id": decision.approval_id,
        "approved_by": list(decision.by),
        "batches": [{"rows": one.rows, "size": one.size, "sha256": one.sha256} for one in batches],
    }
    return told | dict(cast("Mapping[str, object]", decision.action["arguments"]))


def graph() -> StepsGraph:
    """Build the graph."""
    return steps(
        [
            Step("plan", plan, retries=2, timeout=60, weight=1, title="Look at the table"),
            Step("approve", approve, weight=1, title="Approval"),
            Step("export", export, retries=8, weight=20, title="Read the batches"),
            Step("publish", publish, retries=2, weight=3, title="Publish the file"),
        ],
        state=State,
        input_schema=INPUT,
    )
