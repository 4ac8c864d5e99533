"""The inbox: what people captured, where it was filed, and what is still asked about it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from orchestrator.core.canonical import redact
from orchestrator.core.errors import InvalidInput, NotFound
from orchestrator.core.model import ApprovalState, Kind, Status
from orchestrator.service import workflows
from orchestrator.service.context import Caller, Context
from orchestrator.service.health import WORKER_SEEN_SECONDS
from orchestrator.service.settling import settle
from orchestrator.store import approvals, captures, fleet
from orchestrator.store.db import Params
from orchestrator.wire import SubmitRequest
from orchestrator.wire_inbox import Captured, CaptureRequest, InboxItem, InboxPage, InboxRecord

_LONGEST_TITLE = 80
_USERS = ("user", "human")


async def capture(
    ctx: Context, caller: Caller, request: CaptureRequest, idempotency_key: str | None = None
) -> Captured:
    """Take a capture in: durable when this returns. NotFound, InvalidInput where it is unclear which graph takes it."""
    caller.need("submit")
    graph = await _taker(ctx, request.graph)
    content = SubmitRequest(graph=graph, title=request.title, input={"text": request.text})
    submitted = await workflows.submit(ctx, caller, content, idempotency_key)
    return Captured(**submitted.model_dump(), id=submitted.workflow_id)


async def _taker(ctx: Context, wanted: str | None) -> str:
    """The graph that takes a capture: the one that is named, else the only one."""
    async with ctx.db.connection() as conn:
        known = await captures.graphs(conn)
        if wanted is None and len(known) > 1:
            # One that no worker serves any more is not in the way of another.
            served = {graph for worker in await fleet.live(conn, WORKER_SEEN_SECONDS) for graph in worker["graphs"]}
            known = [graph for graph in known if graph in served] or known
    if not known:
        detail = "no graph takes captures; serve one with `capture`, such as the shipped graph triage"
        raise NotFound(detail, allowed=[])
    if wanted is not None and wanted not in known:
        detail = f"graph {wanted!r} takes no captures; these do: {', '.join(known)}"
        raise InvalidInput(detail, allowed=known)
    if wanted is None and len(known) > 1:
        detail = f"several graphs take captures; name one as `graph`: {', '.join(known)}"
        raise InvalidInput(detail, allowed=known)
    return wanted or known[0]


async def page(
    ctx: Context, caller: Caller, *, limit: int, offset: int, category: str | None = None, status: Status | None = None
) -> InboxPage:
    """Captures of the namespace, newest first, and how many there are."""
    caller.need("read")
    filters: Params = {
        "namespace": caller.namespace, "limit": limit, "offset": offset, "category": category,
        "status": None if status is None else status.value,
    }  # fmt: skip
    async with ctx.db.snapshot() as conn:
        rows = await captures.page(conn, filters)
        found = await captures.count(conn, filters)
        asked = await captures.waiting(conn, [row["workflow_id"] for row in rows if row["status"] == Status.WAITING])
    waiting: dict[str, Params] = {}
    for one in asked:
        waiting.setdefault(one["workflow_id"], one)
    return InboxPage(items=[_item(row, waiting.get(row["workflow_id"])) for row in rows], count=found)


async def item(ctx: Context, caller: Caller, workflow_id: str) -> InboxRecord:
    """A capture whole. NotFound."""
    caller.need("read")
    row, asked = await _read(ctx, caller, workflow_id)
    if any(one["behind"] for one in asked):
        # Time has changed something nobody had written down yet.
        await settle(ctx, caller.namespace, workflow_id)
        row, asked = await _read(ctx, caller, workflow_id)
    return _record(row, [one for one in asked if one["kind"] == Kind.QUESTION])


async def _read(ctx: Context, caller: Caller, workflow_id: str) -> tuple[Params, list[Params]]:
    async with ctx.db.snapshot() as conn:
        row = await captures.get(conn, caller.namespace, workflow_id)
        if row is None:
            raise NotFound(f"there is no capture {workflow_id!r}", workflow_id=workflow_id)
        return row, await approvals.of_workflow(conn, caller.namespace, workflow_id, ctx.clock())


# Shown


def _item(row: Params, question: Params | None) -> InboxItem:
    return InboxItem.model_validate(_masked(row, _fields(row, question)))


def _record(row: Params, questions: Sequence[Params]) -> InboxRecord:
    filed = _filed(row)
    waiting = next((one for one in questions if one["state"] == ApprovalState.PENDING), None)
    others = [cast("Mapping[str, object]", one) for one in _list(filed.get("alternatives")) if isinstance(one, Mapping)]
    fields = {
        **_fields(row, waiting),
        "finished_at": row["finished_at"],
        "reasons": [one for one in _list(filed.get("reasons")) if isinstance(one, str)],
        "alternatives": [
            {"category": str(one.get("category")), "confidence": _number(one.get("confidence"))} for one in others
        ],
        "questions": [_question(one) for one in questions],
        "error": row["error"],
        "events": f"/workflows/{row['workflow_id']}/events",
    }
    return InboxRecord.model_validate(_masked(row, fields))


def _masked(row: Params, fields: Mapping[str, Any]) -> object:
    """What is shown of a row, without a secret that it holds anywhere (rule 25)."""
    return redact.beside(fields, [row["input"], row["result"]])


def _fields(row: Params, question: Params | None) -> dict[str, Any]:
    filed, text = _filed(row), text_of(row)
    guessed = filed.get("guessed")
    return {
        "id": row["workflow_id"],
        "created_at": row["created_at"],
        "graph": row["graph"],
        "captured_by": row["requester"],
        "title": row["title"] or _text(filed.get("title")) or _short(text),
        "text": text,
        "status": row["status"],
        "reason": row["reason"],
        "category": _text(filed.get("category")),
        "confidence": _number(filed.get("confidence")),
        "scorer": _text(filed.get("scorer")),
        "guessed": guessed if isinstance(guessed, bool) else None,
        "question": question and _question(question),
    }


def _question(row: Params) -> dict[str, Any]:
    asked = cast("Mapping[str, Any]", row["question"] or {})
    decision = cast("Mapping[str, Any]", row["decision"] or {})
    defaulted = bool(decision.get("defaulted"))
    return {
        "approval_id": row["approval_id"],
        "prompt": str(asked.get("prompt", "")),
        "options": [str(one) for one in _list(asked.get("options"))],
        "open": asked.get("open") is True,
        "state": row["state"],
        "asked_at": row["requested_at"],
        "expires_at": row["expires_at"],
        "answer": decision.get("answer"),
        "answered_by": None if defaulted else row["resolved_by"],
        "answered_at": row["resolved_at"],
        "defaulted": defaulted,
    }


def _filed(row: Params) -> Mapping[str, object]:
    """What the graph made of it; any graph may take captures, so nothing of it is taken for granted."""
    return cast("Mapping[str, object]", row["result"]) if isinstance(row["result"], Mapping) else {}


def text_of(row: Params) -> str:
    """What was captured: as the graph took it, else the input's text, else the newest message of the user in it."""
    given = cast("Mapping[str, object]", row["input"])
    said = [cast("Mapping[str, object]", one) for one in _list(given.get("messages")) if isinstance(one, Mapping)]
    newest = next((one.get("content") for one in reversed(said) if one.get("role", one.get("type")) in _USERS), None)
    return _text(_filed(row).get("text")) or _text(given.get("text")) or _spoken(newest) or ""


def _spoken(content: object) -> str | None:
    """The text of a message: plain, or in blocks."""
    if not isinstance(content, list):
        return _text(content)
    blocks = [cast("Mapping[str, object]", one) for one in cast("list[object]", content) if isinstance(one, Mapping)]
    return "".join(_text(one.get("text")) or "" for one in blocks) or None


def _short(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= _LONGEST_TITLE else f"{line[: _LONGEST_TITLE - 1]}…"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # What a graph gave may be larger than any float.
    return float(value) if abs(value) <= sys.float_info.max else None


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []
