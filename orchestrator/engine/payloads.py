"""The four dialects an `interrupt()` may speak: read into asks, and canonical decisions written back in each.

Pure translation. Nothing here decides, stores or resumes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from langgraph.types import Interrupt

from orchestrator.core.canonical import canonical_json, redact
from orchestrator.core.errors import GraphFault, InvalidInput
from orchestrator.core.json_schema import problems
from orchestrator.core.model import Action, Adjustment, Kind, Level
from orchestrator.core.plain import plain_json
from orchestrator.sdk.gate import as_action

Json = Mapping[str, object]

_DECISIONS = ("approve", "edit", "reject", "respond")
# What an action request takes whose review config says nothing.
_UNNAMED = ["approve", "edit", "reject"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request found in an interrupt; a batched interrupt holds several, told apart by `item`.

    `from_agent` says that a confidence is due (missing counts as 0). `question` is `{prompt, options?, schema?,
    default?}`; `allowed` are the dialect's own kinds of decision. `adjustments` None: those of the configuration apply.
    `auto_threshold` and `quick_threshold` are the tool's own, in place of the configured ones. `justification` is the
    requester's.
    """

    kind: Kind
    dialect: str
    item: int = 0
    action: Action | None = None
    question: Json | None = None
    description: str = ""
    on_reject: str = "cancel"
    confidence: float | None = None
    from_agent: bool = False
    raised_to: Level | None = None
    allowed: tuple[str, ...] = ()
    adjustments: tuple[Adjustment, ...] | None = None
    auto_threshold: float | None = None
    quick_threshold: float | None = None
    justification: str = ""

    @property
    def editable(self) -> bool:
        """Whether the action may be edited before it is decided."""
        return "edit" in self.allowed


@dataclass(frozen=True, slots=True)
class Settled:
    """A decided ask, as the approval row has it. `decision` is canonical: `{verdict, by, note, answer?, digest…}`."""

    ask_kind: Kind
    approval_id: str
    action: Json | None
    digest: str
    volatile_fields: Sequence[str]
    decision: Json
    allowed: Sequence[str] = field(default_factory=tuple)
    asked_digest: str = ""
    revision: int = 1

    @property
    def verdict(self) -> str:
        """`approve`, `reject` or `answer`."""
        return str(self.decision["verdict"])

    @property
    def note(self) -> str:
        """What the decider wrote."""
        return str(self.decision.get("note") or "")

    @property
    def edited(self) -> Json | None:
        """The action as it was edited, where what was approved is not what was asked."""
        return self.action if self.revision > 1 else None


def read(interrupt: Interrupt) -> list[Ask]:
    """The asks of one interrupt. GraphFault when its payload is not JSON or breaks the dialect it claims."""
    value: object = interrupt.value
    try:
        plain_json(json.loads(canonical_json(value)), "it")
    except (TypeError, ValueError, RecursionError) as error:
        detail = f"an interrupt() payload must be JSON, and this one is not: {error}"
        raise GraphFault(detail, interrupt_id=interrupt.id) from error
    try:
        return _read(value, interrupt)
    except (InvalidInput, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = error.detail if isinstance(error, InvalidInput) else f"{type(error).__name__}: {error}"
        detail = f"an interrupt() payload is malformed: {reason}"
        raise GraphFault(detail, interrupt_id=interrupt.id) from error


def _read(value: object, interrupt: Interrupt) -> list[Ask]:  # noqa: PLR0911 one return a dialect
    if isinstance(value, Mapping):
        body = cast("Json", value)
        match body.get("type"):
            case "approval" if "action" in body:
                return [_approval(body)]
            case "question" if "prompt" in body:
                return [_question(body)]
            case "tool_approval":
                return [_tool("langchain_call", 0, body, _accepted(body, interrupt))]
            case _ if "action_requests" in body:
                return _langchain(body)
            case _:
                return [_raw(body, interrupt)]
    entries = cast("list[object]", value) if isinstance(value, list) else []
    if entries and all(_is_inbox(entry) for entry in entries):
        return [_inbox(item, cast("Json", entry)) for item, entry in enumerate(entries)]
    return [_raw(cast("object", value), interrupt)]


def _approval(body: Json) -> Ask:
    action = body["action"]
    if not isinstance(action, Mapping):
        detail = "`action` must be an object"
        raise InvalidInput(detail)
    on_reject = str(body.get("on_reject", "cancel"))
    if on_reject not in {"cancel", "resume"}:
        detail = f"`on_reject` is {on_reject!r}; allowed are cancel and resume"
        raise InvalidInput(detail)
    return Ask(
        Kind.APPROVAL,
        "keyturn",
        action=as_action(cast("Json", action)),
        description=str(body.get("description") or ""),
        on_reject=on_reject,
        confidence=_number(body.get("confidence")),
        from_agent="confidence" in body,
        raised_to=Level(str(body["risk"])) if body.get("risk") else None,
        allowed=("approve", "edit", "reject") if body.get("editable") is True else ("approve", "reject"),
        adjustments=_adjustments(body.get("adjustments")),
        auto_threshold=_threshold(body.get("thresholds"), "auto"),
        quick_threshold=_threshold(body.get("thresholds"), "quick"),
        justification=str(body.get("justification") or ""),
    )


def _adjustments(value: object) -> tuple[Adjustment, ...] | None:
    """`[{"name", "points"}]`; None where the interrupt brings none of its own."""
    if value is None:
        return None
    if not isinstance(value, list):
        detail = "`adjustments` must be a list of {name, points}"
        raise InvalidInput(detail)
    found: list[Adjustment] = []
    for entry in cast("list[Json]", value):
        points = _number(entry["points"])
        if points is None:
            detail = f"the points of adjustment {entry['name']!r} are no number"
            raise InvalidInput(detail)
        found.append(Adjustment(str(entry["name"]), points))
    return tuple(found)


def _threshold(value: object, name: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        detail = "`thresholds` must be an object with auto, quick or both"
        raise InvalidInput(detail)
    given = cast("Json", value).get(name)
    found = _number(given)
    if given is not None and (found is None or not 0 <= found <= 100):  # noqa: PLR2004 a percentage
        detail = f"the threshold `{name}` is {given!r}; allowed: a number from 0 to 100"
        raise InvalidInput(detail)
    return found


def _question(body: Json) -> Ask:
    question = {key: body[key] for key in ("prompt", "options", "open", "schema", "default") if key in body}
    return Ask(
        Kind.QUESTION, "keyturn", question=checked_question(question), description=str(body["prompt"]),
        allowed=("answer",),
    )  # fmt: skip


def checked_question(question: Json) -> Json:
    """`question` when its options and schema are usable; InvalidInput otherwise."""
    options, schema = question.get("options"), question.get("schema")
    if options is not None and (not isinstance(options, list) or not options):
        detail = "`options` must be a list with at least one entry"
        raise InvalidInput(detail)
    if not isinstance(question.get("open", False), bool) or (question.get("open") and options is None):
        detail = "`open` is true or false, and says of `options` that other answers are taken too"
        raise InvalidInput(detail)
    if schema is not None:
        try:
            Draft202012Validator.check_schema(cast("Json", schema))
        except SchemaError as error:
            detail = f"`schema` is not a JSON Schema: {error.message}"
            raise InvalidInput(detail) from error
        if outside := _outside(schema):
            detail = f"`schema` refers to {outside}; it can refer only to its own parts, such as #/$defs/name"
            raise InvalidInput(detail)
    return question


def _outside(schema: object) -> str | None:
    """The first reference of a JSON Schema that leaves the schema."""
    if isinstance(schema, list):
        return next((found for item in cast("list[object]", schema) if (found := _outside(item))), None)
    if not isinstance(schema, Mapping):
        return None
    body = cast("Json", schema)
    for key in ("$ref", "$dynamicRef"):
        target = body.get(key)
        if isinstance(target, str) and not target.startswith("#"):
            return target
    return next((found for item in body.values() if (found := _outside(item))), None)


def _langchain(body: Json) -> list[Ask]:
    requests = cast("Sequence[Json]", body["action_requests"])
    configs = {str(entry["action_name"]): entry for entry in cast("Sequence[Json]", body.get("review_configs") or ())}
    if not requests:
        detail = "`action_requests` is empty"
        raise InvalidInput(detail)
    asks: list[Ask] = []
    for item, request in enumerate(requests):
        config = configs.get(str(request["name"]), {})
        asks.append(_tool("langchain", item, request, _allowed(config.get("allowed_decisions", _UNNAMED))))
    return asks


def _allowed(value: object) -> tuple[str, ...]:
    kinds = cast("list[object]", value) if isinstance(value, list) else []
    if not kinds or any(kind not in _DECISIONS for kind in kinds):
        detail = f"`allowed_decisions` is {value!r}; it must list some of {', '.join(_DECISIONS)}"
        raise InvalidInput(detail)
    return tuple(str(kind) for kind in kinds)


def _accepted(body: Json, interrupt: Interrupt) -> tuple[str, ...]:
    """The decisions that a call's `response_schema` accepts; all of them where it has none."""
    given = getattr(interrupt, "response_schema", None)
    if not isinstance(given, Mapping):
        return _DECISIONS
    schema = cast("Json", given)
    checked_question({"schema": schema})
    edited = {"name": body["name"], "args": body["args"]}
    samples: dict[str, Json] = {
        "edit": {"edited_action": edited},
        "reject": {"message": ""},
        "respond": {"message": ""},
    }
    accepted = [
        kind for kind in _DECISIONS if not problems(schema, {"type": kind, **samples.get(kind, {})}, "answer", most=1)
    ]
    return _allowed(accepted)


def _tool(dialect: str, item: int, request: Json, allowed: tuple[str, ...]) -> Ask:
    arguments: object = request["args"]
    if not isinstance(arguments, Mapping):
        detail = "`args` must be an object"
        raise InvalidInput(detail)
    metadata = {"tool_call_id": request["tool_call_id"]} if "tool_call_id" in request else {}
    action = as_action({"operation": str(request["name"]), "arguments": cast("Json", arguments), "metadata": metadata})
    description = str(request.get("description") or "")
    if allowed == ("respond",):
        prompt = description or f"{action.operation} asks for a response"
        return Ask(Kind.QUESTION, dialect, item, action, {"prompt": prompt, "schema": {"type": "string"}}, description,
                   "resume", allowed=allowed)  # fmt: skip
    return Ask(Kind.APPROVAL, dialect, item, action, None, description, "resume", _number(request.get("confidence")),
               from_agent=True, allowed=allowed)  # fmt: skip


def _is_inbox(entry: object) -> bool:
    return isinstance(entry, Mapping) and "action_request" in entry and "config" in entry


def _inbox(item: int, entry: Json) -> Ask:
    request, config = cast("Json", entry["action_request"]), cast("Json", entry["config"])
    flags = {"accept": "allow_accept", "edit": "allow_edit", "response": "allow_respond", "ignore": "allow_ignore"}
    allowed = tuple(kind for kind, flag in flags.items() if config.get(flag))
    if not allowed:
        detail = f"`config` must allow something: {', '.join(flags.values())}"
        raise InvalidInput(detail)
    given: object = request.get("args")
    arguments = cast("Json", given) if isinstance(given, Mapping) else {} if given is None else {"args": given}
    action = as_action({"operation": str(request["action"]), "arguments": arguments})
    description = str(entry.get("description") or "")
    if "response" in allowed and not {"accept", "edit"} & set(allowed):
        # Nothing would run: it is a question, which may be ignored with the answer null where the config says so.
        prompt = description or f"{action.operation} asks for a response"
        schema = {"type": ["string", "null"] if "ignore" in allowed else "string"}
        return Ask(Kind.QUESTION, "agent_inbox", item, action, {"prompt": prompt, "schema": schema},
                   description, "resume", allowed=allowed)  # fmt: skip
    return Ask(Kind.APPROVAL, "agent_inbox", item, action, None, description, "resume", from_agent=True,
               allowed=allowed)  # fmt: skip


def _raw(value: object, interrupt: Interrupt) -> Ask:
    prompt = _prompt(value)
    question: dict[str, object] = {"prompt": prompt, "payload": value}
    schema = getattr(interrupt, "response_schema", None)
    if isinstance(schema, Mapping):
        question["schema"] = cast("Json", schema)
    return Ask(Kind.QUESTION, "raw", question=checked_question(question), description=prompt[:500], allowed=("answer",))


def _prompt(value: object) -> str:
    """The sentence a raw payload carries for people, if it carries one; else the whole of it."""
    body: Json = cast("Json", value) if isinstance(value, Mapping) else {}
    if body:
        told = next((body[key] for key in ("question", "prompt", "message", "description") if body.get(key)), None)
        if isinstance(told, str):
            return told
    return value if isinstance(value, str) else canonical_json(redact(cast("object", value)))


def write(dialect: str, settled: Sequence[Settled]) -> object:
    """The value to resume an interrupt with: its settled asks, in order, in its own dialect."""
    match dialect:
        case "keyturn":
            return _write_keyturn(settled[0])
        case "langchain":
            return {"decisions": [_write_langchain(one) for one in settled]}
        case "langchain_call":
            return _write_langchain(settled[0])
        case "agent_inbox":
            return [_write_inbox(one) for one in settled]
        case _:
            return settled[0].decision["answer"]


def _write_keyturn(one: Settled) -> Json:
    by = list(cast("Sequence[str]", one.decision["by"]))
    if one.ask_kind is Kind.QUESTION:
        defaulted = {"defaulted": True} if one.decision.get("defaulted") else {}
        return {"answer": one.decision["answer"], "by": by, **defaulted}
    return {
        "approved": one.verdict == "approve",
        "by": by,
        "note": one.note,
        "action": one.action or {},
        "approval_id": one.approval_id,
        "digest": one.digest,
        "asked_digest": one.asked_digest,
        "revision": one.revision,
        "volatile_fields": list(one.volatile_fields),
    }


def _write_langchain(one: Settled) -> Json:
    match one.verdict:
        case "approve" if one.edited:
            return {"type": "edit", "edited_action": {"name": one.edited["operation"], "args": one.edited["arguments"]}}
        case "approve":
            return {"type": "approve"}
        case "reject":
            return {"type": "reject", "message": one.note}
        case _:
            return {"type": "respond", "message": one.decision["answer"]}


def _write_inbox(one: Settled) -> Json:
    match one.verdict:
        case "approve" if one.edited:
            return {"type": "edit", "args": {"action": one.edited["operation"], "args": one.edited["arguments"]}}
        case "approve":
            return {"type": "accept", "args": None}
        case "reject" if "ignore" in one.allowed or "response" not in one.allowed:
            return {"type": "ignore", "args": None}
        case "reject":
            return {"type": "response", "args": f"Rejected: {one.note}"}
        case _ if one.decision["answer"] is None:
            return {"type": "ignore", "args": None}
        case _:
            return {"type": "response", "args": one.decision["answer"]}


def _number(value: object) -> float | None:
    """A confidence; what is no number (NaN and True included) is None, which counts as 0 where one is due."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
