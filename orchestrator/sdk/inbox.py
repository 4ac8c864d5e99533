"""The inbox for both clients: its calls, and the methods that send them."""

from __future__ import annotations

import uuid
from typing import TypedDict, TypeVar

from typing_extensions import Unpack

from orchestrator.sdk.request import Call, get, path_of, post
from orchestrator.wire_inbox import Captured, CaptureRequest, InboxPage, InboxRecord

T = TypeVar("T")


class InboxOptions(TypedDict, total=False):
    """Which captures a page shows."""

    limit: int
    offset: int
    category: str | None
    status: str | None


def _capture(text: str, title: str, graph: str | None, key: str | None) -> Call[Captured]:
    # Without a key of the caller's it gets one, so that it may safely be sent again.
    request = CaptureRequest(text=text, title=title, graph=graph)
    return post("/inbox", Captured, request, key or uuid.uuid4().hex)


def _page(options: InboxOptions) -> Call[InboxPage]:
    return get("/inbox", InboxPage, dict(**options))


def _item(workflow_id: str) -> Call[InboxRecord]:
    return get(path_of("inbox", workflow_id), InboxRecord)


class Inbox:
    """What the sync client does with the inbox."""

    def send(self, call: Call[T]) -> T:
        """Send one call and return its answer."""
        raise NotImplementedError

    def capture(
        self, text: str, *, title: str = "", graph: str | None = None, idempotency_key: str | None = None
    ) -> Captured:
        """Capture something; it is durable when this returns, and filed a moment later."""
        return self.send(_capture(text, title, graph, idempotency_key))

    def inbox(self, **options: Unpack[InboxOptions]) -> InboxPage:
        """What was captured, newest first."""
        return self.send(_page(options))

    def inbox_item(self, workflow_id: str) -> InboxRecord:
        """A capture whole."""
        return self.send(_item(workflow_id))


class AsyncInbox:
    """What the async client does with the inbox."""

    async def send(self, call: Call[T]) -> T:
        """Send one call and return its answer."""
        raise NotImplementedError

    async def capture(
        self, text: str, *, title: str = "", graph: str | None = None, idempotency_key: str | None = None
    ) -> Captured:
        """Capture something; it is durable when this returns, and filed a moment later."""
        return await self.send(_capture(text, title, graph, idempotency_key))

    async def inbox(self, **options: Unpack[InboxOptions]) -> InboxPage:
        """What was captured, newest first."""
        return await self.send(_page(options))

    async def inbox_item(self, workflow_id: str) -> InboxRecord:
        """A capture whole."""
        return await self.send(_item(workflow_id))
