"""Request and response models of execution sessions; see `wire` for what they have in common with the others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.wire import CaseId, Json, Name, PendingApproval, Request, Response

Said = Annotated[str, Field(min_length=1, max_length=200_000)]


class SessionRequest(Request):
    """`POST /sessions`. With a `message` or an `input` the first run begins at once; `idle_seconds` without activity
    end the session, at most as many as the server's setting.
    """

    graph: Name
    mode: Literal["interactive", "autonomous"] = "interactive"
    title: Annotated[str, Field(max_length=500)] = ""
    case_id: CaseId | None = None
    message: Said | None = None
    input: Json | None = None
    idle_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.message is not None and self.input is not None:
            raise ValueError("send `message` or `input`, not both")
        return self


class MessageRequest(Request):
    """`POST /sessions/{session_id}/messages`: something said (`content`: a text, or any JSON where a question takes
    it), or a whole `input`. `approval_id` says which question it answers, and that it is to be nothing else.
    """

    content: object = None
    input: Json | None = None
    approval_id: Name | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if ("content" in self.model_fields_set) == (self.input is not None):
            raise ValueError("send either `content` or `input`")
        if self.input is not None and self.approval_id is not None:
            raise ValueError("a question is answered with `content`; `input` begins a run")
        return self


class SessionSummary(Response):
    """One line of a list of sessions. `workflow_id` is its newest run; `ends_at` when it ends if nothing happens."""

    session_id: str
    graph: str
    mode: str
    title: str
    case_id: str | None
    person: str
    state: Literal["idle", "running", "waiting", "ended"]
    workflow_id: str | None
    workflow_status: str | None
    created_at: datetime
    last_activity: datetime
    idle_seconds: float
    ends_at: datetime | None
    ended_at: datetime | None
    ended_reason: str | None


class SessionRecord(SessionSummary):
    """A session, what it waits for, and in `note` what to do about that."""

    success: Literal[True] = True
    pending: Sequence[PendingApproval]
    error: Json | None
    note: str | None


class SessionStarted(SessionRecord):
    """The answer to beginning a session."""

    replayed: bool = False


class SessionPage(Response):
    """`GET /sessions`: open ones first, each kind newest first; pass `next_cursor` as `cursor` for the next page."""

    success: Literal[True] = True
    sessions: Sequence[SessionSummary]
    next_cursor: str | None


class MessageTaken(Response):
    """What became of a message: it `began` the run `workflow_id`, or `answered` the question `approval_id` of it."""

    success: Literal[True] = True
    session_id: str
    did: Literal["began", "answered"]
    workflow_id: str
    status: str
    approval_id: str | None
    replayed: bool = False


class SessionMessage(Response):
    """One entry of a session's history. `id` is the cursor; `by` who said it, `content` what: a text, or JSON.

    `messages` are what an assistant's graph added to its conversation, `facts` what else belongs to the entry.
    """

    id: str
    at: datetime
    role: Literal["user", "assistant", "system"]
    type: Literal["message", "question", "answer", "approval", "decision", "result", "ended"]
    by: str
    workflow_id: str
    approval_id: str | None
    content: object
    messages: Sequence[Json] = ()
    facts: Json = Field(default_factory=dict)


class SessionHistory(Response):
    """`GET /sessions/{session_id}/messages`: in order; `more` says that there are more after the last one."""

    success: Literal[True] = True
    session_id: str
    messages: Sequence[SessionMessage]
    more: bool
