"""What waits, as AG-UI's interrupts: whom it takes, what may be sent back, and until when. Pure; secrets are masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from ag_ui.core.types import Interrupt

from orchestrator.core.model import Kind
from orchestrator.core.questions import OTHER
from orchestrator.service.pausing import Interrupted
from orchestrator.wire import ApprovalRecord

Json = dict[str, object]

_TEXT: Final[Json] = {"type": "string"}
_OBJECT: Final[Json] = {"type": "object"}


def interrupt_of(asked: Interrupted) -> Interrupt:
    """One interrupt, as it ends a run."""
    first = asked.requests[0]
    call = _call_of(asked)
    question = first.kind == Kind.QUESTION
    return Interrupt(
        id=asked.id,
        reason="tool_call" if call else "input_required" if question else "confirmation",
        message=message_of(asked) or None,
        tool_call_id=call,
        response_schema=response_schema(asked),
        expires_at=min(one.expires_at for one in asked.requests).isoformat(),
        metadata={
            "workflowId": first.workflow_id,
            "node": asked.node,
            "dialect": asked.dialect,
            "value": asked.payload,
            "approvals": [_approval(one, list(may)) for one, may in zip(asked.requests, asked.allowed, strict=True)],
        },
    )


def message_of(asked: Interrupted) -> str:
    """The sentence for whoever decides."""
    return "\n".join(one for one in map(prompt_of, asked.requests) if one)


def prompt_of(request: ApprovalRecord) -> str:
    """A question's words, or what an action is described as."""
    return str((request.question or {}).get("prompt") or "") or request.description


def _call_of(asked: Interrupted) -> str | None:
    payload = asked.payload
    found = cast("Mapping[str, object]", payload).get("tool_call_id") if isinstance(payload, Mapping) else None
    return found if isinstance(found, str) and asked.dialect == "langchain_call" else None


def _approval(request: ApprovalRecord, allowed: Sequence[str]) -> Json:
    return {
        "approvalId": request.approval_id,
        "kind": request.kind,
        "state": request.state,
        "riskLevel": request.risk_level,
        "description": request.description,
        "action": request.action,
        "approvers": list(request.approvers),
        "stillNeeded": still_needed(request),
        "filled": dict(request.filled),
        "justificationRequired": request.justification_required,
        "allowed": list(allowed),
        "revision": request.revision,
        "digest": request.digest,
        "dueAt": request.due_at.isoformat(),
    }


def still_needed(request: ApprovalRecord) -> int:
    """How many more people must approve; 0 for a question, which whoever may decide may answer."""
    counts = [cast("int", slot["count"]) for stage in request.stages for slot in stage]
    return max(0, sum(counts) - len(request.filled))


def response_schema(asked: Interrupted) -> Json:
    """What the payload of a resume must look like, in the dialect the interrupt speaks."""
    first, allowed = asked.requests[0], asked.allowed
    match asked.dialect:
        case "keyturn" if first.kind == Kind.APPROVAL:
            return _shaped({"approved": {"type": "boolean"}, "note": _TEXT}, ["approved"])
        case "langchain":
            return _shaped({"decisions": _list([_decision(may) for may in allowed])}, ["decisions"])
        case "langchain_call":
            return _decision(allowed[0])
        case "agent_inbox":
            return _list([_response(may) for may in allowed])
        case _:
            return _shaped({"answer": _answer(first.question or {})}, ["answer"])


def _answer(question: Mapping[str, object]) -> Json:
    given = question.get("schema")
    schema: Json = dict(cast("Mapping[str, object]", given)) if isinstance(given, Mapping) else {}
    options = question.get("options")
    if options is None:
        return schema
    if question.get("open"):
        return {"anyOf": [{"enum": options}, schema or dict(OTHER)]}
    return {"allOf": [{"enum": options}, schema]} if schema else {"enum": options}


def _shaped(properties: Json, required: Sequence[str]) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


def _list(entries: Sequence[Json]) -> Json:
    return {"type": "array", "prefixItems": list(entries), "minItems": len(entries), "maxItems": len(entries)}


def _decision(allowed: Sequence[str]) -> Json:
    edited = _shaped({"name": _TEXT, "args": _OBJECT}, ["name", "args"])
    more: dict[str, Json] = {
        "edit": {"edited_action": edited},
        "reject": {"message": _TEXT},
        "respond": {"message": _TEXT},
    }
    needed = {"edit": ["edited_action"], "respond": ["message"]}
    kinds = [kind for kind in allowed if kind in ("approve", "edit", "reject", "respond")]
    return _one_of({kind: (more.get(kind, {}), needed.get(kind, [])) for kind in kinds})


def _response(allowed: Sequence[str]) -> Json:
    edited = _shaped({"action": _TEXT, "args": {}}, ["action", "args"])
    more: dict[str, Json] = {"edit": {"args": edited}, "response": {"args": _TEXT}}
    return _one_of({kind: (more.get(kind, {}), list(more.get(kind, {}))) for kind in allowed})


def _one_of(kinds: Mapping[str, tuple[Json, list[str]]]) -> Json:
    return {
        "type": "object",
        "oneOf": [
            _shaped({"type": {"const": kind}, **properties}, ["type", *needed])
            for kind, (properties, needed) in kinds.items()
        ],
    }
