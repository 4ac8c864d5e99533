"""Cases and feeds over several workflows, for the sync client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

import httpx
from typing_extensions import Unpack

from orchestrator.sdk import case_calls
from orchestrator.sdk.case_calls import FeedOptions, SeenOptions
from orchestrator.sdk.following import Away, Streaming
from orchestrator.sdk.request import Call
from orchestrator.sdk.transport import BROKEN
from orchestrator.wire import Decided
from orchestrator.wire_feeds import ConfirmationList, FeedEvent

T = TypeVar("T")


class Cases:
    """What `Keyturn` does with cases."""

    _http: httpx.Client

    def send(self, call: Call[T]) -> T:
        """Send one call, as the client does it."""
        raise NotImplementedError

    def case_pending(self, case_id: str) -> ConfirmationList:
        """What waits in a case: approvals and questions, urgent first."""
        return self.send(case_calls.pending(case_id))

    def confirm_case(
        self,
        case_id: str,
        request_id: str,
        approved: bool,
        note: str = "",
        *,
        idempotency_key: str | None = None,
        **seen: Unpack[SeenOptions],
    ) -> Decided:
        """Yes or no to what waits in a case: a vote on an approval, or the answer to a yes-or-no question."""
        call = case_calls.confirm(case_id, request_id, note, seen, idempotency_key, approved=approved)
        return self.send(call)

    def follow_case(self, case_id: str, **options: Unpack[FeedOptions]) -> Iterator[FeedEvent]:
        """A case's events from its beginning, or after a position, and then live; it ends only with `timeout`.

        A lost connection is made again. Raises TimeoutError, and Unreachable when patience is over.
        """
        return self._stream(case_calls.following_case(case_id, options))

    def follow_all(self, **options: Unpack[FeedOptions]) -> Iterator[FeedEvent]:
        """The events of all workflows from now on, or after a position; otherwise as `follow_case`."""
        return self._stream(case_calls.following_all(options))

    def _stream(self, where: Streaming[FeedEvent]) -> Iterator[FeedEvent]:
        while True:
            try:
                headers, limits = where.begin()
                with self._http.stream("GET", where.path, headers=headers, timeout=limits) as response:
                    where.answered(response.status_code, b"" if response.is_success else response.read())
                    for chunk in response.iter_bytes():
                        yield from where.feed(chunk)
                        if where.must_renew():
                            break
                if not where.must_renew():
                    # The server stops, or it has revoked the key, which the next connection is told.
                    raise Away
            except BROKEN as error:
                time.sleep(where.pause(error))
