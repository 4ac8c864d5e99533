"""One message: what is told of an approval, without secrets, and what became of handing it over.

What a channel makes of it is the channel's own; the words are in templates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol, cast

from orchestrator.core.canonical import MASK, redact
from orchestrator.core.channels import ASKING, NoticeKind
from orchestrator.store.db import Params

_LONGEST = 1500
_MOST = 20
_LINES = frozenset("\n\t")


class Undelivered(Exception):  # noqa: N818 the word for it: an attempt that failed
    """This attempt failed and another may not; `asked` is how many seconds the receiver wants to be left alone."""

    def __init__(self, why: str, asked: float | None = None) -> None:
        super().__init__(why)
        self.asked = asked


class Undeliverable(Undelivered):
    """No attempt can succeed as things are."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a link in a message is for: one `person` to cast `verdict`, or (both None) anybody to see the request."""

    namespace: str
    approval_id: str
    person: str | None = None
    verdict: Literal["approve", "reject"] | None = None
    revision: int = 1
    digest: str = ""
    expires_at: datetime | None = None


class Links(Protocol):
    """Makes the address of a link."""

    async def __call__(self, link: Link) -> str:
        """The whole address."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One message, ready to be sent. `delivery_id` is the same in every attempt; `at` is the instant of this one.

    `facts` are for programs. `links` are `page`, and `approve` and `reject` where it goes to one person who may
    decide; they are as good as a password.
    """

    delivery_id: str
    notice_id: int
    attempt: int
    queued_at: datetime
    at: datetime
    kind: NoticeKind
    approval_id: str
    state: str
    recipient: str
    subject: str
    text: str
    html: str
    links: Mapping[str, str]
    facts: Mapping[str, object]


class Sender(Protocol):
    """Hands messages over to one channel."""

    @property
    def secrets(self) -> Sequence[str]:
        """What must never be shown in an error."""
        ...

    async def send(self, message: Message) -> str | None:
        """Hand it over; returns what the receiver calls it. Raises Undelivered."""
        ...


def hidden(text: str, secrets: Sequence[str]) -> str:
    """`text` without `secrets`, on one visible line of at most 300 characters."""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(secret, MASK)
    return visible(" ".join(text.split()))[:300]


def visible(text: str, *, lines: bool = False) -> str:
    """`text` with control, bidi and zero-width characters as escapes; on one line unless `lines` may stand."""
    kept = _LINES if lines else frozenset[str]()
    return "".join(
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode() for char in text
    )


def facts_of(row: Params, links: Mapping[str, str], people: Sequence[str], recipient: str) -> dict[str, object]:
    """What templates can tell: no secrets, nothing that is not visible, nothing too long."""
    # All at once: a description or a reason may repeat what is hidden in the arguments.
    clean = cast("dict[str, object]", redact({name: row[name] for name in _TOLD}))
    action = cast("dict[str, object]", clean["action"] or {})
    question = cast("dict[str, object]", clean["question"] or {})
    reasons = cast("Sequence[Mapping[str, object]]", clean["reasons"] or ())
    data = cast("Mapping[str, object]", clean["data"] or {})
    return {
        "kind": row["kind"],
        "approval_id": row["approval_id"] or "",
        "state": _state(row),
        "asks": row["asks"] or "approval",
        "risk": row["risk_level"] or "",
        "urgent": bool(row["urgent"]),
        "title": _line(clean["title"]),
        "graph": _line(row["graph"]),
        "operation": _line(action.get("operation")),
        "environment": _line(action.get("environment")),
        "target": _line(action.get("target")),
        "resource_type": _line(action.get("resource_type")),
        "estimated_cost": action.get("estimated_cost"),
        "arguments": _arguments(action.get("arguments")),
        "question": _block(question.get("prompt")),
        "description": _block(clean["description"]),
        "reasons": [{"level": _line(one.get("level")), "text": _line(one.get("text"))} for one in reasons[:_MOST]],
        "requester": _line(row["requester"]),
        "on_behalf_of": _line(row["on_behalf_of"]),
        "roles": [_line(role) for role in row["roles"] or ()],
        "due_at": _time(row["due_at"]),
        "expires_at": _time(row["expires_at"]),
        "resolved_by": _line(row["resolved_by"]),
        "note": _block(_note(clean["decision"], data)),
        "data": {str(name): _line(value) for name, value in data.items() if isinstance(value, str | int | float)},
        "people": [_line(person) for person in people],
        "recipient": _line(recipient),
        "links": {name: links.get(name, "") for name in ("page", "approve", "reject")},
    }


_TOLD = ("action", "question", "description", "payload", "reasons", "decision", "data", "title")


def asks(row: Params) -> bool:
    """Whether a message about this can still be acted on."""
    return row["kind"] in ASKING and row["state"] == "pending"


def _state(row: Params) -> str:
    # That it has run already is of no interest to who is told how it was decided.
    return "approved" if row["state"] == "executed" else str(row["state"] or "")


def _note(decision: object, data: Mapping[str, object]) -> object:
    given = cast("Mapping[str, object]", decision if isinstance(decision, Mapping) else {})
    return data.get("justification") or given.get("note") or given.get("reason") or ""


def _arguments(value: object) -> str:
    return _cut(visible(json.dumps(value, indent=2, ensure_ascii=False), lines=True)) if value else ""


def _line(value: object) -> str:
    return _cut(visible(" ".join(str(value).split())), 200) if value not in (None, "") else ""


def _block(value: object) -> str:
    return _cut(visible(str(value), lines=True)) if value not in (None, "") else ""


def _cut(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest} more characters)"


def _time(at: datetime | None) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if at else ""
