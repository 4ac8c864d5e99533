"""What a session is at some instant, and what a message becomes of a graph's input. Nothing here reads a clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, cast

from orchestrator.core.errors import InvalidInput
from orchestrator.core.model import Status

# Why a session ended of itself.
IDLE: Final = "idle"
MESSAGES: Final = "messages"
# Under work: nobody needs to say anything for it to go on.
_BUSY: Final = frozenset({Status.READY, Status.RUNNING})


class State(StrEnum):
    """Where a session is: nothing runs, something runs, a person is asked, or it is over."""

    IDLE = "idle"
    RUNNING = "running"
    WAITING = "waiting"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Standing:
    """A session as it is kept. `touched_at` is when anything was last done for it, `run` what its newest run is."""

    touched_at: datetime
    idle_seconds: float
    run: Status | None = None
    ended_at: datetime | None = None

    @property
    def busy(self) -> bool:
        """Whether a run is queued or under way, so that it cannot be idle."""
        return self.run in _BUSY

    @property
    def ends_at(self) -> datetime | None:
        """When it ends unless something happens before; None while it runs, and once it has ended."""
        if self.ended_at is not None or self.busy:
            return None
        return self.touched_at + timedelta(seconds=self.idle_seconds)

    def over(self, now: datetime) -> bool:
        """Whether it has ended, be it that nobody has written that down yet. At the instant, it has."""
        return self.ended_at is not None or (self.ends_at is not None and self.ends_at <= now)

    def state(self, now: datetime) -> State:
        """What it is now."""
        if self.over(now):
            return State.ENDED
        if self.busy:
            return State.RUNNING
        return State.WAITING if self.run is Status.WAITING else State.IDLE

    def look_again(self, now: datetime) -> datetime:
        """When it could be idle at the earliest: a run that is under way now still has to finish."""
        return self.ends_at or now + timedelta(seconds=self.idle_seconds)


def message_field(schema: Mapping[str, object]) -> str | None:
    """The field of an input that takes what a user says: `messages`, else the one field that must be there (or, where
    none must, that there is), if it is a text.
    """
    properties = cast("Mapping[str, Any]", schema.get("properties") or {})
    if MESSAGES in properties:
        return MESSAGES
    needed = list(cast("Sequence[str]", schema.get("required") or ())) or list(properties)
    return needed[0] if len(needed) == 1 and _is_text(properties.get(needed[0])) else None


def _is_text(field: object) -> bool:
    return isinstance(field, Mapping) and cast("Mapping[str, object]", field).get("type") == "string"


def said(field: str | None, text: str, message_id: str) -> dict[str, object]:
    """The input that a user's message is to a graph whose `message_field` this is.

    Raises InvalidInput where it is blank or the graph takes no messages.
    """
    if not text.strip():
        raise InvalidInput("the message is blank; say something, or send `input`", field="content")
    if field is None:
        detail = "the graph takes no messages: it has no `messages`, nor is its input one text; send `input` instead"
        raise InvalidInput(detail, field="input")
    return {field: [{"role": "user", "content": text, "id": message_id}] if field == MESSAGES else text}


def told(given: Mapping[str, Any]) -> object:
    """What an input says: the last of its `messages`, its one text, or else the whole of it."""
    messages = given.get(MESSAGES)
    if isinstance(messages, list) and messages:
        last = cast("list[object]", messages)[-1]
        return text_of(cast("Mapping[str, Any]", last)) if isinstance(last, Mapping) else last
    values = list(given.values())
    return values[0] if len(values) == 1 and isinstance(values[0], str) else dict(given)


def text_of(message: Mapping[str, Any]) -> str:
    """What a message says: its text, or the texts among its blocks."""
    content: object = message.get("content")
    if isinstance(content, str):
        return content
    blocks = cast("list[object]", content) if isinstance(content, list) else []
    return "".join(_text_of_block(one) for one in blocks)


def _text_of_block(block: object) -> str:
    text = cast("Mapping[str, object]", block).get("text") if isinstance(block, Mapping) else block
    return text if isinstance(text, str) else ""
