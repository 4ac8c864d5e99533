"""Gates for use inside a node: ask for an approval, a confirmation or an answer, and wait without holding anything.

Each call is one LangGraph `interrupt()`. Call it before the node has any effect: the node runs again from its start
when the decision arrives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, cast

from langgraph.types import interrupt

from orchestrator.core.actions import action_from
from orchestrator.core.canonical import digest
from orchestrator.core.confidence import Confidence
from orchestrator.core.errors import DigestMismatch, InvalidInput
from orchestrator.core.model import Action

OnReject = Literal["cancel", "resume"]
OnMismatch = Literal["fail", "ask"]
MAX_ASKS = 20


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided. `action` is the action as approved, `digest` its SHA-256 without the volatile fields;
    `asked_digest` is that of the action as it was asked, another one where it was edited.
    """

    approved: bool
    by: tuple[str, ...]
    note: str
    action: Mapping[str, object]
    approval_id: str
    digest: str
    volatile_fields: tuple[str, ...] = ()
    asked_digest: str = ""
    revision: int = 1

    @property
    def edited(self) -> bool:
        """Whether somebody changed the action before it was approved: run `action`, not what was asked."""
        return self.revision > 1

    def to_json(self) -> dict[str, object]:
        """Plain JSON, to be kept in a graph's state; `Decision.from_json` reads it back."""
        return {**asdict(self), "by": list(self.by), "volatile_fields": list(self.volatile_fields)}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Decision:
        """A decision kept in a graph's state. Raises InvalidInput when it is not one."""
        try:
            return cls(
                approved=bool(value["approved"]),
                by=tuple(cast("Sequence[str]", value["by"])),
                note=str(value["note"]),
                action=cast("Mapping[str, object]", value["action"]),
                approval_id=str(value["approval_id"]),
                digest=str(value["digest"]),
                volatile_fields=tuple(cast("Sequence[str]", value.get("volatile_fields", ()))),
                asked_digest=str(value.get("asked_digest") or ""),
                revision=int(cast("int", value.get("revision") or 1)),
            )
        except (KeyError, TypeError) as error:
            detail = f"this is not a decision of an approval: {error}"
            raise InvalidInput(detail) from error


def as_action(value: Action | Mapping[str, object]) -> Action:
    """`value` as an Action of plain JSON. Raises InvalidInput for an unknown field or a missing `operation`."""
    return action_from(value.to_json() if isinstance(value, Action) else value)


def request_approval(
    action: Action | Mapping[str, object],
    *,
    confidence: float | Confidence | None = None,
    risk: str | None = None,
    on_reject: OnReject = "cancel",
    on_mismatch: OnMismatch = "fail",
    description: str = "",
    editable: bool = False,
    justification: str = "",
) -> Decision:
    """Ask for an approval of `action` and wait for it, for as long as it takes.

    `confidence` (0 to 100) is an agent's; leave it out for what a person or a pipeline asked for. A number is adjusted
    as `confidence.yaml` says; what `calculate_confidence` gave brings its own adjustments. NaN and infinities count as
    0. `risk` can raise the risk that the rules find, never lower it. When the request is rejected the workflow ends,
    unless `on_reject` is `resume`: then the decision comes back with `approved` false. `justification` is the
    requester's, where a policy wants one.

    With `editable` people may change the action before they approve it: run `decision.action` then, which is what was
    approved. Without it nobody can edit the request.

    What runs must be what was approved: when the action computed now differs from the approved one, DigestMismatch is
    raised and nothing runs; with `on_mismatch="ask"` the new action is requested anew instead.
    """
    wanted = as_action(action).to_json()
    payload: dict[str, object] = {
        "type": "approval", "action": wanted, "on_reject": on_reject, "description": description,
    }  # fmt: skip
    payload |= confidence_payload(confidence)
    if risk is not None:
        payload["risk"] = risk
    if editable:
        payload["editable"] = True
    if justification:
        payload["justification"] = justification
    for _ in range(MAX_ASKS):
        decision = read_decision(interrupt(payload), wanted)
        asked = decision.asked_digest or decision.digest
        if not decision.approved or asked == digest(wanted, decision.volatile_fields):
            return decision
        if on_mismatch == "fail":
            raise mismatch(decision, wanted)
    detail = f"the action changed {MAX_ASKS} times while its approval was pending"
    raise DigestMismatch(detail)


def confidence_payload(confidence: float | Confidence | None) -> dict[str, object]:
    """The part of a payload that says how sure the agent is; empty where no agent asks."""
    if confidence is None:
        return {}
    if isinstance(confidence, Confidence):
        own = [one.to_json() for one in confidence.adjustments]
        return {"confidence": confidence.base, "adjustments": own}
    return {"confidence": confidence if math.isfinite(confidence) else 0.0}


def read_decision(value: object, wanted: Mapping[str, object]) -> Decision:
    """The engine's answer to an approval interrupt; tolerant of a runner that is not Keyturn (a bare yes or no)."""
    if isinstance(value, Mapping) and "approval_id" in value:
        return Decision.from_json(cast("Mapping[str, object]", value))
    approved = bool(cast("Mapping[str, object]", value).get("approved")) if isinstance(value, Mapping) else bool(value)
    return Decision(approved, (), "", wanted, "", digest(wanted))


def mismatch(decision: Decision, wanted: Mapping[str, object]) -> DigestMismatch:
    """The refusal for an action that is not the approved one, naming the fields that differ."""
    changed = sorted(key for key in {*wanted, *decision.action} if wanted.get(key) != decision.action.get(key))
    detail = f"what would run differs from what was approved in: {', '.join(changed) or 'nothing shown'}; nothing ran"
    return DigestMismatch(detail, approval_id=decision.approval_id, changed=changed)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and who gave it. `defaulted`: nobody was asked, it is the default that the question declares."""

    value: object
    by: tuple[str, ...] = ()
    defaulted: bool = False


def ask(
    prompt: str,
    *,
    options: Sequence[str] | None = None,
    schema: Mapping[str, object] | None = None,
    default: object = None,
    open: bool = False,  # noqa: A002 what such questions are called
) -> object:
    """Ask a person a question and wait for the answer.

    `options` limits the answer to one of these; `schema` is a JSON Schema the answer must match; both are checked
    before the graph sees it. With `open`, the options are only offered, and whatever matches the schema (without one,
    any text that is not blank) is an answer too. `default` answers at once in a session that may not ask.
    """
    return asked(prompt, options=options, schema=schema, default=default, open=open).value


def asked(
    prompt: str,
    *,
    options: Sequence[str] | None = None,
    schema: Mapping[str, object] | None = None,
    default: object = None,
    open: bool = False,  # noqa: A002 what such questions are called
) -> Answer:
    """The same as `ask`, with who answered."""
    payload: dict[str, object] = {"type": "question", "prompt": prompt}
    if options is not None:
        payload["options"] = list(options)
    if open:
        payload["open"] = True
    if schema is not None:
        payload["schema"] = dict(schema)
    if default is not None:
        payload["default"] = default
    value = interrupt(payload)
    if not isinstance(value, Mapping):
        # A runner that is not Keyturn gives the bare answer.
        return Answer(value)
    told = cast("Mapping[str, object]", value)
    by = cast("Sequence[str]", told.get("by") or ())
    return Answer(told.get("answer"), tuple(by), defaulted=bool(told.get("defaulted")))


def confirm(prompt: str, *, default: bool | None = None) -> bool:
    """Ask for a yes or no. It is a question, not an approval: no risk rule looks at it."""
    return bool(ask(prompt, schema={"type": "boolean"}, default=default))
