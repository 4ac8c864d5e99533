"""What both clients do with sessions: `Keyturn` and `AsyncKeyturn` have these methods too. The calls are values."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Literal, TypedDict, TypeVar

from typing_extensions import Unpack

from orchestrator.sdk.following import Streaming
from orchestrator.sdk.request import Call, get, path_of, post
from orchestrator.wire import CancelRequest
from orchestrator.wire_feeds import FeedEvent
from orchestrator.wire_sessions import (
    MessageRequest,
    MessageTaken,
    SessionHistory,
    SessionPage,
    SessionRecord,
    SessionRequest,
    SessionStarted,
)

T = TypeVar("T")


class SessionOptions(TypedDict, total=False):
    """What a session may begin with besides its graph: `message` or `input` also begin its first run."""

    mode: Literal["interactive", "autonomous"]
    title: str
    case_id: str | None
    message: str
    input: dict[str, object]
    idle_seconds: float


def create(graph: str, options: SessionOptions, idempotency_key: str | None) -> Call[SessionStarted]:
    """Begin a session. Without a key of yours it gets one, so that it may safely be sent again."""
    request = SessionRequest(graph=graph, **options)
    return post("/sessions", SessionStarted, request, idempotency_key or uuid.uuid4().hex)


def session(session_id: str) -> Call[SessionRecord]:
    """A session."""
    return get(path_of("sessions", session_id), SessionRecord)


def sessions(ended: bool, cursor: str | None, limit: int) -> Call[SessionPage]:
    """One's own sessions."""
    return get("/sessions", SessionPage, {"all": ended, "cursor": cursor, "limit": limit})


def say(
    session_id: str,
    content: object,
    values: Mapping[str, object] | None,
    approval_id: str | None,
    idempotency_key: str | None,
) -> Call[MessageTaken]:
    """Say something. Without a key of yours it gets one, so that sent again it is not said twice."""
    given: dict[str, object] = {"content": content} if values is None else {"input": dict(values)}
    named = {} if approval_id is None else {"approval_id": approval_id}
    request = MessageRequest.model_validate({**given, **named})
    path = path_of("sessions", session_id, "messages")
    return post(path, MessageTaken, request, idempotency_key or uuid.uuid4().hex)


def messages(session_id: str, after: str | None, limit: int) -> Call[SessionHistory]:
    """A page of a session's history."""
    return get(path_of("sessions", session_id, "messages"), SessionHistory, {"after": after, "limit": limit})


def end(session_id: str, reason: str) -> Call[SessionRecord]:
    """End a session."""
    content = CancelRequest(reason=reason).model_dump_json().encode()
    # Ended again, it stays as it is.
    return Call("DELETE", path_of("sessions", session_id), SessionRecord.model_validate_json, content=content)


def following(session_id: str, after: int, timeout: float | None, patience: float) -> Streaming[FeedEvent]:
    """Where a client stands in a session's events."""
    path = path_of("sessions", session_id, "events")
    return Streaming(f"session {session_id}", path, FeedEvent, after=after, timeout=timeout, patience=patience)


class Sessions:
    """What the sync client does with sessions."""

    def send(self, call: Call[T]) -> T:
        """Send one call, as the client does it."""
        raise NotImplementedError

    def _stream(self, where: Streaming[FeedEvent]) -> Iterator[FeedEvent]:
        raise NotImplementedError

    def create_session(
        self, graph: str, *, idempotency_key: str | None = None, **options: Unpack[SessionOptions]
    ) -> SessionStarted:
        """Begin a session with a graph; with `message` or `input` its first run begins too."""
        return self.send(create(graph, options, idempotency_key))

    def session(self, session_id: str) -> SessionRecord:
        """A session: its state and what it waits for."""
        return self.send(session(session_id))

    def sessions(self, *, ended: bool = False, cursor: str | None = None, limit: int = 50) -> SessionPage:
        """One's own open sessions, newest first; with `ended` those that are over behind them."""
        return self.send(sessions(ended, cursor, limit))

    def say(
        self,
        session_id: str,
        content: object = None,
        *,
        values: Mapping[str, object] | None = None,
        approval_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> MessageTaken:
        """Say something in a session: it answers the question that waits, else it begins the next run. `values` are a
        whole input; with `approval_id` it answers that question and does nothing else.
        """
        return self.send(say(session_id, content, values, approval_id, idempotency_key))

    def messages(self, session_id: str, after: str | None = None, limit: int = 100) -> SessionHistory:
        """A session's history after the entry of that id, in order."""
        return self.send(messages(session_id, after, limit))

    def end_session(self, session_id: str, reason: str = "") -> SessionRecord:
        """End a session; what it runs or asks is cancelled."""
        return self.send(end(session_id, reason))

    def follow_session(
        self, session_id: str, *, after: int = 0, timeout: float | None = None, patience: float = 30.0
    ) -> Iterator[FeedEvent]:
        """The events of all runs of a session behind a position, then live for as long as one goes on reading; a lost
        connection is made again. Raises TimeoutError and Unreachable as `follow` does.
        """
        return self._stream(following(session_id, after, timeout, patience))


class AsyncSessions:
    """What the async client does with sessions."""

    async def send(self, call: Call[T]) -> T:
        """Send one call, as the client does it."""
        raise NotImplementedError

    def _stream(self, where: Streaming[FeedEvent]) -> AsyncIterator[FeedEvent]:
        raise NotImplementedError

    async def create_session(
        self, graph: str, *, idempotency_key: str | None = None, **options: Unpack[SessionOptions]
    ) -> SessionStarted:
        """Begin a session with a graph; with `message` or `input` its first run begins too."""
        return await self.send(create(graph, options, idempotency_key))

    async def session(self, session_id: str) -> SessionRecord:
        """A session: its state and what it waits for."""
        return await self.send(session(session_id))

    async def sessions(self, *, ended: bool = False, cursor: str | None = None, limit: int = 50) -> SessionPage:
        """One's own open sessions, newest first; with `ended` those that are over behind them."""
        return await self.send(sessions(ended, cursor, limit))

    async def say(
        self,
        session_id: str,
        content: object = None,
        *,
        values: Mapping[str, object] | None = None,
        approval_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> MessageTaken:
        """Say something in a session; see `Keyturn.say`."""
        return await self.send(say(session_id, content, values, approval_id, idempotency_key))

    async def messages(self, session_id: str, after: str | None = None, limit: int = 100) -> SessionHistory:
        """A session's history after the entry of that id, in order."""
        return await self.send(messages(session_id, after, limit))

    async def end_session(self, session_id: str, reason: str = "") -> SessionRecord:
        """End a session; what it runs or asks is cancelled."""
        return await self.send(end(session_id, reason))

    def follow_session(
        self,
        session_id: str,
        *,
        after: int = 0,
        timeout: float | None = None,
        patience: float = 30.0,
    ) -> AsyncIterator[FeedEvent]:
        """The events of all runs of a session; see `Keyturn.follow_session`."""
        return self._stream(following(session_id, after, timeout, patience))
