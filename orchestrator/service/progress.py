"""How far long tasks are: one of them, or all that a person has under way. What the figures mean is the core's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import cast

from orchestrator.core.canonical import redact
from orchestrator.core.plan import Plan, plan_of
from orchestrator.core.progress import Milestone, Standing, Told, assess
from orchestrator.service.context import Caller, Context
from orchestrator.service.refusals import unknown
from orchestrator.store import fleet, progress, workflows
from orchestrator.store.db import Connection, Params
from orchestrator.wire_progress import TaskList, TaskProgress


async def of_workflow(ctx: Context, caller: Caller, workflow_id: str) -> TaskProgress:
    """How far a workflow is. NotFound."""
    caller.need("read")
    async with ctx.db.snapshot() as conn:
        row = await workflows.get(conn, caller.namespace, workflow_id)
        if row is None:
            raise unknown(workflow_id)
        now = await workflows.present(conn, ctx.clock())
        (found,) = await _assessed(conn, [row], now)
    return found


async def live(ctx: Context, caller: Caller, *, shown: int, seconds: float) -> TaskList:
    """The caller's own tasks, newest first, at most `shown`: those not ended, and those that did within `seconds`."""
    caller.need("read")
    async with ctx.db.snapshot() as conn:
        rows = await progress.live(conn, caller.namespace, caller.person, seconds=seconds, limit=shown, now=ctx.clock())
        now = await workflows.present(conn, ctx.clock())
        tasks = await _assessed(conn, rows, now)
    return TaskList(tasks=tasks, more=rows[0]["tasks"] - len(rows) if rows else 0)


async def _assessed(conn: Connection, rows: Sequence[Params], now: datetime) -> list[TaskProgress]:
    if not rows:
        return []
    happened: defaultdict[str, list[Milestone]] = defaultdict(list)
    for one in await progress.happened(conn, [row["workflow_id"] for row in rows]):
        happened[one["workflow_id"]].append(_milestone(one))
    plans = {row["workflow_id"]: await _plan(conn, row, happened[row["workflow_id"]]) for row in rows}
    pairs = [(workflow_id, step.name) for workflow_id, plan in plans.items() for step in plan.steps]
    told: defaultdict[str, dict[str, Told]] = defaultdict(dict)
    for one in await progress.told(conn, pairs):
        newest = _told(one)
        told[one["workflow_id"]][newest.node] = newest
    return [
        _shown(row, plans[row["workflow_id"]], happened[row["workflow_id"]], told[row["workflow_id"]], now)
        for row in rows
    ]


async def _plan(conn: Connection, row: Params, happened: Sequence[Milestone]) -> Plan:
    """The plan at the version that the workflow was submitted for."""
    offer = await fleet.version(conn, row["graph"], row["graph_version"]) or await fleet.newest(conn, row["graph"])
    seen = [one.node for one in happened if one.type == "step-started"]
    return plan_of(offer["traits"] if offer else {}, offer["topology"] if offer else {}, seen)


def _milestone(row: Params) -> Milestone:
    return Milestone(row["seq"], row["at"], row["type"], row["node"] or "", row["request_id"] or "")


def _told(row: Params) -> Told:
    """From an event that a node may have told by itself: what has not the right shape is left out."""
    body = cast("dict[str, object]", row["body"])
    substeps = body.get("substeps")
    shares = cast("dict[str, object]", substeps) if isinstance(substeps, dict) else {}
    return Told(
        seq=row["seq"],
        at=row["at"],
        node=str(body.get("node")),
        seconds=_number(body.get("seconds")) or 0.0,
        attempt=int(_number(body.get("attempt")) or 1),
        percent=_number(body.get("percent")),
        message=str(body.get("message") or ""),
        done=_number(body.get("done")),
        total=_number(body.get("total")),
        substeps={name: _number(share) or 0.0 for name, share in shares.items()},
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _shown(
    row: Params, plan: Plan, happened: Sequence[Milestone], told: dict[str, Told], now: datetime
) -> TaskProgress:
    standing = Standing(row["status"], row["reason"], row["finished_at"])
    found = asdict(assess(plan, standing, happened, told, now))
    title = redact.hide(row["title"], row["input"]) or row["graph"]
    kept = {name: row[name] for name in ("workflow_id", "graph", "status", "created_at", "finished_at", "deadline_at")}
    return TaskProgress.model_validate({**kept, "title": title, **found})
