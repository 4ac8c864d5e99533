"""A client's answers, as entries to resume with: the protocol's own, and those of clients from before 1.0. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from ag_ui.core.types import RunAgentInput

from orchestrator.core.errors import InvalidInput
from orchestrator.core.model import Kind
from orchestrator.service.pausing import Interrupted
from orchestrator.service.resuming import MOST, Entry, entries_of
from orchestrator.wire import ApprovalRecord

Json = Mapping[str, object]
# `interruptEvent` is the event that some clients answer; the answer says all that matters.
_TAKEN: Final = {"resume", "interruptEvent"}


def answers(body: RunAgentInput, *, legacy: bool) -> list[Entry]:
    """What a request answers; nothing where it begins a run. InvalidInput where it would steer the graph."""
    command = _command(body)
    if steers := sorted(set(command) - _TAKEN):
        detail = f"forwardedProps.command.{steers[0]} is not taken: clients answer what waits, and steer no graph"
        raise InvalidInput(detail)
    answer = command.get("resume")
    if answer is not None and not legacy:
        detail = (
            "forwardedProps.command.resume is how clients from before AG-UI 1.0 answer; send `resume`, or let the graph"
            ' say `ag_ui: "legacy"`'
        )
        raise InvalidInput(detail)
    found = [] if answer is None else entries_of(answer)
    if body.resume:
        found = [Entry(one.interrupt_id, one.payload, one.status == "cancelled") for one in body.resume]
    if len(found) > MOST:
        # Each is tried by itself, and each refusal is kept in the trail.
        raise InvalidInput(f"a resume carries 1 to {MOST} answers, not {len(found)}")
    return found


def _command(body: RunAgentInput) -> Json:
    props: object = body.forwarded_props
    command = cast("Json", props).get("command") if isinstance(props, Mapping) else None
    if command is None:
        return {}
    if not isinstance(command, Mapping):
        detail = "forwardedProps.command: an object is expected"
        raise InvalidInput(detail)
    return cast("Json", command)


def in_dialect(entry: Entry, waiting: Sequence[Interrupted]) -> Entry:
    """The entry, in the words of the interrupt it is for where it uses AG-UI's: `{approved, editedArgs?, note?}`."""
    named = [one for one in waiting if entry.interrupt_id in (one.id, None)]
    if len(named) != 1 or len(named[0].requests) != 1 or not isinstance(entry.value, Mapping):
        return entry
    value, request = cast("Json", entry.value), named[0].requests[0]
    said = value.get("approved")
    if request.kind != Kind.APPROVAL or not isinstance(said, bool) or set(value) - {"approved", "editedArgs", "note"}:
        return entry
    match named[0].dialect:
        case "keyturn":
            answer = _keyturn(value, request)
        case "langchain" | "langchain_call":
            answer = _langchain(value, request)
        case "agent_inbox":
            answer = _inbox(value, request, named[0].allowed[0])
        case _:
            return entry
    return Entry(entry.interrupt_id, answer)


def _keyturn(value: Json, request: ApprovalRecord) -> object:
    rest = {key: one for key, one in value.items() if key != "editedArgs"}
    if "editedArgs" not in value or not value["approved"]:
        return rest
    return {**rest, "action": {**(request.action or {}), "arguments": value["editedArgs"]}}


def _langchain(value: Json, request: ApprovalRecord) -> object:
    if not value["approved"]:
        return {"type": "reject", "message": value.get("note")}
    if "editedArgs" not in value:
        return {"type": "approve", "message": value.get("note")}
    return {"type": "edit", "edited_action": {"name": _name(request), "args": value["editedArgs"]}}


def _inbox(value: Json, request: ApprovalRecord, allowed: Sequence[str]) -> object:
    if not value["approved"]:
        answers_only = "ignore" not in allowed and "response" in allowed
        return {"type": "response", "args": value.get("note")} if answers_only else {"type": "ignore", "args": None}
    if "editedArgs" not in value:
        return {"type": "accept", "args": None}
    return {"type": "edit", "args": {"action": _name(request), "args": value["editedArgs"]}}


def _name(request: ApprovalRecord) -> object:
    return (request.action or {}).get("operation")
