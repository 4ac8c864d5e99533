"""`python -m benchmarks.deadlines`: what 100,000 pending deadlines cost the sweep, and how late those due are done.

Deadlines are expiries, escalations and reminders in equal parts, spread over a day. Beside them some come due within a
few seconds while a worker runs as it always does. How late one is: from its instant until it is seen to be committed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.report import machine, percentile
from benchmarks.server import running
from orchestrator.config import load_governance
from orchestrator.core.asking import kept_terms
from orchestrator.core.model import Level
from orchestrator.core.policy import terms_for
from orchestrator.engine.catalog import Catalog, load_catalog
from orchestrator.service import timers
from orchestrator.service.context import Context
from orchestrator.settings import Settings, load_settings
from orchestrator.store import approvals, workflows
from orchestrator.store.db import Connection, Database
from orchestrator.worker import Worker

_APP = Path(__file__).parent / "langgraph.json"
_LOOK = 0.05
# Late enough that a worker and its pool are at work before the first one comes.
_LEAD = timedelta(seconds=3)

# Workflows that wait for one approval each, whose next instant comes `step` seconds behind the one before it: by turns
# it expires, escalates, or its approvers are reminded.
_FILL = """
WITH new AS (
    SELECT nth, %(name)s || lpad(nth::text, 6, '0') AS id,
           %(first)s::timestamptz + nth * make_interval(secs => %(step)s) AS due
      FROM generate_series(0, %(count)s - 1) AS nth
), waiting AS (
    INSERT INTO keyturn.workflows (workflow_id, namespace, graph, graph_version, status, input, requester, created_at,
                                   updated_at, run_at)
    SELECT 'wf-' || id, 'default', 'none', '1', 'waiting', '{}', 'rita', now(), now(), now() FROM new
)
INSERT INTO keyturn.approvals (approval_id, namespace, workflow_id, interrupt_id, node, kind, dialect, payload, action,
    allowed, digest, asked_digest, requester, risk_level, reasons, route, policy, policy_versions, requirement, roles,
    terms, approval_ttl, requested_at, due_at, expires_at, escalate_at, remind_at, state)
SELECT 'ap-' || id, 'default', 'wf-' || id, 'i', 'gate', 'approval', 'keyturn', '{}', '{"operation": "deploy"}',
       '{approve,reject}', 'd', 'd', 'rita', 'high', '[]', 'FULL', %(policy)s, ARRAY[%(version)s], %(requirement)s,
       %(roles)s, %(terms)s, '1h', now(), due, CASE nth %% 3 WHEN 0 THEN due ELSE due + interval '2 days' END,
       CASE nth %% 3 WHEN 1 THEN due END, CASE nth %% 3 WHEN 2 THEN due END, 'pending'
  FROM new
"""
# What is done is no longer due: seen from outside, with everything that goes with it committed.
_DONE = """
SELECT approval_id, clock_timestamp() AS seen FROM keyturn.approvals
 WHERE approval_id >= %(name)s AND approval_id < %(behind)s
   AND (state <> 'pending' OR wake_at IS DISTINCT FROM least(expires_at, due_at))
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run measured; times in milliseconds."""

    pending: int
    plan: Sequence[str]
    idle_statement_ms: float
    idle_sweep_ms: float
    due: int
    within_seconds: float
    late_ms: dict[str, float]
    late_together_ms: dict[str, float]


async def fill(conn: Connection, ctx: Context, name: str, count: int, first: datetime, step: float) -> None:
    """Insert `count` pending approvals with ids from `name`, the first due at `first`, `step` seconds apart."""
    terms = terms_for(Level.HIGH, ctx.governance.rules)
    await conn.execute(
        _FILL,
        {
            "name": name, "count": count, "first": first, "step": step, "policy": terms.policy,
            "version": str(terms.version), "requirement": json.dumps(terms.requirement.to_json()),
            "roles": sorted(terms.requirement.roles), "terms": json.dumps(kept_terms(terms)),
        },
    )  # fmt: skip


async def explained(conn: Connection) -> list[str]:
    """The plan of the sweep's one statement, as it ran."""
    text = "EXPLAIN (ANALYZE, BUFFERS) " + approvals.DUE
    found = await conn.execute(text.encode(), {"now": None, "besides": list[str](), "limit": 100})
    return [str(row["QUERY PLAN"]) for row in await found.fetchall()]


async def late(ctx: Context, name: str, count: int, within: float) -> list[float]:
    """Let so many come due within some seconds while a worker is at work; by how many seconds each was late."""
    async with ctx.db.connection() as conn:
        first = await workflows.present(conn, None) + _LEAD
        await fill(conn, ctx, name, count, first, within / count)
        due = {f"ap-{name}{nth:06}": first + timedelta(seconds=nth * within / count) for nth in range(count)}
        found: dict[str, float] = {}
        async with asyncio.timeout(60 + within):
            while len(found) < count:
                await asyncio.sleep(_LOOK)
                rows = await conn.execute(_DONE, {"name": f"ap-{name}", "behind": f"ap-{name}~"})
                for row in await rows.fetchall():
                    found.setdefault(row["approval_id"], (row["seen"] - due[row["approval_id"]]).total_seconds())
    return list(found.values())


def _shown(seconds: Sequence[float]) -> dict[str, float]:
    figures = {"p50": statistics.median(seconds), "p99": percentile(seconds, 0.99), "max": max(seconds)}
    return {name: round(value * 1000, 1) for name, value in figures.items()}


@contextlib.asynccontextmanager
async def _working(ctx: Context, catalog: Catalog, settings: Settings) -> AsyncGenerator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(Worker(ctx, catalog, settings).run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def _median_ms(times: int, do: Callable[[], Awaitable[object]]) -> float:
    spent: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        await do()
        spent.append(time.perf_counter() - began)
    return round(statistics.median(spent) * 1000, 3)


async def measure(pending: int, due: int, within: float) -> tuple[Figures, str]:
    """The whole run, on a Postgres of its own; the figures and Postgres' version."""
    async with running() as server:
        settings = load_settings(database_url=server.keyturn_url, app=_APP)
        governance = load_governance(settings.config_dir)
        db = Database(server.keyturn_url, max_size=settings.pool_max)
        await db.open()
        ctx = Context(db, governance)
        try:
            async with db.connection() as conn:
                first = await workflows.present(conn, None) + timedelta(hours=1)
                await fill(conn, ctx, "day", pending, first, 86_400 / pending)
                await conn.execute("VACUUM ANALYZE keyturn.approvals, keyturn.workflows")
                plan = await explained(conn)
                statement = await _median_ms(300, lambda: approvals.due(conn, [], 100, None))
            sweep = await _median_ms(100, lambda: timers.sweep(ctx))
            async with load_catalog(settings.app, governance.rules.gates) as catalog, _working(ctx, catalog, settings):
                spread = await late(ctx, "soon", due, within)
                together = await late(ctx, "once", due, 0.0)
            figures = Figures(pending, plan, statement, sweep, due, within, _shown(spread), _shown(together))
            return figures, server.version
        finally:
            await db.close()


def show(figures: Figures, postgres: str, console: Console) -> None:
    """Print the run."""
    table = Table(title=f"{figures.due} deadlines come due beside {figures.pending:,} pending ones: ms late")
    table.add_column("")
    for name in figures.late_ms:
        table.add_column(name, justify="right")
    table.add_row(f"within {figures.within_seconds:g} s", *(f"{value:.0f}" for value in figures.late_ms.values()))
    table.add_row("at one instant", *(f"{value:.0f}" for value in figures.late_together_ms.values()))
    console.print(table)
    console.print(
        f"Nothing due: the sweep's statement {figures.idle_statement_ms} ms, a whole sweep {figures.idle_sweep_ms} ms"
    )
    for line in figures.plan:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Postgres {postgres}, one worker, whose sweep looks once a second")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deadlines", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("--pending", type=int, default=100_000, help="deadlines of the day (default: %(default)s)")
    parser.add_argument("--due", type=int, default=500, help="those that come due (default: %(default)s)")
    given = parser.parse_args(arguments)
    figures, postgres = asyncio.run(measure(given.pending, given.due, 4.0))
    show(figures, postgres, Console())
    if given.json:
        told = {**asdict(figures), "machine": machine(postgres)}
        given.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
