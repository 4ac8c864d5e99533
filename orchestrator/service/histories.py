"""What was said and decided in a session and what came of it: read from its runs and their events, and kept nowhere.

So it can neither be lost nor say anything else than what happened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from orchestrator.core.errors import InvalidInput
from orchestrator.core.model import ApprovalState, Kind
from orchestrator.core.sessions import text_of, told
from orchestrator.core.votes import CLOCK
from orchestrator.service.context import Caller, Context
from orchestrator.service.sessions import unknown_session
from orchestrator.service.views import masked, masked_action
from orchestrator.store import sessions
from orchestrator.store.db import Params
from orchestrator.wire_sessions import SessionHistory, SessionMessage

_CURSOR: Final = re.compile(r"(?P<run>wf-[0-9a-f]{1,64})\.(?P<seq>[0-9]{1,18})")
_LARGEST_PAGE: Final = 200
Entry = Mapping[str, object]


async def history(
    ctx: Context, caller: Caller, session_id: str, after: str | None = None, limit: int = 100
) -> SessionHistory:
    """What was said after the entry of that id, in order. NotFound, InvalidInput for an id that is none of its own."""
    caller.need("read")
    size = max(1, min(limit, _LARGEST_PAGE))
    run, seq = _cursor(after)
    async with ctx.db.snapshot() as conn:
        row = await sessions.get(conn, caller.namespace, session_id, ctx.clock())
        if row is None:
            raise unknown_session(session_id)
        if run is not None and not await sessions.is_run(conn, run, row["thread_key"]):
            raise _not_ours(after)
        filters: Params = {
            "thread": row["thread_key"], "after_run": run, "after_seq": seq, "types": list(_ENTRIES),
            "limit": size + 1,
        }  # fmt: skip
        rows = await sessions.history(conn, filters)
    return SessionHistory(session_id=session_id, messages=[_entry(one) for one in rows[:size]], more=len(rows) > size)


def _cursor(after: str | None) -> tuple[str | None, int]:
    if after is None:
        return None, 0
    found = _CURSOR.fullmatch(after)
    if found is None:
        raise _not_ours(after)
    return found["run"], int(found["seq"])


def _not_ours(after: str | None) -> InvalidInput:
    return InvalidInput(f"after is {after!r}, which is no entry of this session; begin without it", field="after")


def _entry(row: Params) -> SessionMessage:
    common: dict[str, object] = {
        "id": f"{row['workflow_id']}.{row['seq']}", "at": row["at"], "by": row["actor"],
        "workflow_id": row["workflow_id"], "approval_id": row["body"].get("request_id"),
    }  # fmt: skip
    entry = _ENTRIES[row["type"]](row)
    # What a graph says is its own, whichever worker ran it.
    by = {"by": row["graph"]} if entry["role"] == "assistant" else {}
    return SessionMessage.model_validate({**common, **entry, **by})


def _message(row: Params) -> Entry:
    given = cast("Mapping[str, Any]", masked(row["input"]))
    content = told(given)
    return {"role": "user", "type": "message", "content": content, "facts": _besides(given, content)}


def _besides(given: Mapping[str, Any], content: object) -> Entry:
    """The whole input, where there is more to it than what was said."""
    alone = content == given or (len(given) == 1 and (content in given.values() or _one_message(given)))
    return {} if alone else {"input": dict(given)}


def _one_message(given: Mapping[str, Any]) -> bool:
    messages = next(iter(given.values()))
    return isinstance(messages, list) and len(cast("list[object]", messages)) == 1


def _asked(row: Params) -> Entry:
    body = cast("Mapping[str, Any]", row["body"])
    if body.get("kind") == Kind.QUESTION:
        question = cast("Mapping[str, Any]", body.get("question") or {})
        facts = {
            name: question[name] for name in ("options", "open", "schema", "default", "payload") if name in question
        }
        content: object = question.get("prompt") or body.get("description")
        return {"role": "assistant", "type": "question", "content": content, "facts": {**facts, "node": body["node"]}}
    facts = {name: body.get(name) for name in ("action", "risk_level", "route", "node", "due_at", "policy")}
    return {"role": "assistant", "type": "approval", "content": body.get("description"), "facts": facts}


def _settled(row: Params) -> Entry:
    """The answer to a question, or how an approval was decided: by whom, and what was allowed."""
    decision = cast("Mapping[str, Any]", masked(row["decision"] or {}))
    state, actor = str(row["body"].get("state")), str(row["actor"])
    role = "system" if actor == CLOCK or actor.startswith("policy:") else "user"
    facts: dict[str, object] = {"state": state, "by": decision.get("by", []), "note": row["body"].get("note", "")}
    if row["kind"] == Kind.QUESTION and state == ApprovalState.ANSWERED:
        return {"role": role, "type": "answer", "content": decision.get("answer"), "facts": facts}
    if row["action"] is not None:
        facts["action"] = masked_action(row)
    return {"role": role, "type": "decision", "content": state, "facts": facts}


def _result(row: Params) -> Entry:
    """What a conversation has gained by a run, or else what the run came to."""
    if row["besides"] is None:
        return {"role": "assistant", "type": "result", "content": masked(row["result"])}
    messages = cast("Sequence[Mapping[str, Any]]", masked(row["replies"] or []))
    texts = [text_of(one) for one in messages if one.get("type") == "ai"]
    besides = cast("Mapping[str, object]", masked(row["besides"]))
    return {
        "role": "assistant", "type": "result", "content": next((text for text in reversed(texts) if text), ""),
        "messages": messages, "facts": {"result": besides} if besides else {},
    }  # fmt: skip


def _ended(status: str) -> Callable[[Params], Entry]:
    """A run that came to nothing."""

    def entry(row: Params) -> Entry:
        body = cast("Mapping[str, Any]", row["body"])
        why = body.get("detail") or body.get("reason") or ""
        facts = {"status": status, **({"code": body["code"]} if "code" in body else {})}
        return {"role": "system", "type": "ended", "content": why, "facts": facts}

    return entry


# The events that tell of what was said and done, and what each becomes.
_ENTRIES: Final[Mapping[str, Callable[[Params], Entry]]] = {
    "workflow-submitted": _message,
    "confirmation-required": _asked,
    "confirmation-resolved": _settled,
    "workflow-completed": _result,
    "workflow-failed": _ended("failed"),
    "workflow-rejected": _ended("rejected"),
    "workflow-cancelled": _ended("cancelled"),
    "workflow-timed-out": _ended("timed_out"),
}
