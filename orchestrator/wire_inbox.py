"""Request and response models of the inbox, shared by the API and the client."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import Field

from orchestrator.wire import Json, Name, Request, Response, Submitted

LONGEST_CAPTURE = 20_000


class CaptureRequest(Request):
    """`POST /inbox`. `graph` is needed only where several graphs take captures."""

    text: Annotated[str, Field(min_length=1, max_length=LONGEST_CAPTURE, pattern=r"\S")]
    title: Annotated[str, Field(max_length=500)] = ""
    graph: Name | None = None


class Captured(Submitted):
    """A capture is accepted and durable; `id` is its workflow's."""

    id: str


class InboxQuestion(Response):
    """A question about a capture: what it offers, and what was answered by whom. `open`: other answers are taken too.
    `defaulted`: nobody was asked.
    """

    approval_id: str
    prompt: str
    options: Sequence[str]
    open: bool = False
    state: str
    asked_at: datetime
    expires_at: datetime
    answer: object = None
    answered_by: str | None = None
    answered_at: datetime | None = None
    defaulted: bool = False


class InboxItem(Response):
    """One capture. What it was filed as is None until it is; `question` is the one that waits for an answer."""

    id: str
    created_at: datetime
    graph: str
    captured_by: str
    title: str
    text: str
    status: str
    reason: str | None
    category: str | None
    confidence: float | None
    scorer: str | None
    guessed: bool | None
    question: InboxQuestion | None


class InboxPage(Response):
    """`GET /inbox`: newest first. `count` is how many there are in all, with the same filters."""

    items: Sequence[InboxItem]
    count: int


class InboxAlternative(Response):
    """Another category it could have been."""

    category: str
    confidence: float | None


class InboxRecord(InboxItem):
    """`GET /inbox/{id}`: a capture whole. `events` is where its events are."""

    finished_at: datetime | None
    reasons: Sequence[str]
    alternatives: Sequence[InboxAlternative]
    questions: Sequence[InboxQuestion]
    error: Json | None
    events: str
