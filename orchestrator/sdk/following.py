"""Following events over server-sent events: parsing, where to go on, and how long to try.

Nothing is sent or awaited here. The clients do the sending and the sleeping; all they decide by is here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Generic, Literal, TypeVar

import httpx

from orchestrator.core.model import Status
from orchestrator.sdk.calls import events_path, wait
from orchestrator.sdk.request import ApiError, Call, ClientError, Unreachable, problem_of
from orchestrator.wire import EventRecord, Until, WorkflowStatus

# The server sends a sign of life every 15 seconds; two that are missing mean that the connection is dead.
_SILENCE_SECONDS: Final = 35.0
_CONNECT_SECONDS: Final = 5.0
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 2.0
_OK: Final = 200
_AWAY: Final = 503
# Of one call, well below what proxies allow a request.
_LONGEST_WAIT: Final = 25.0

E = TypeVar("E", bound=EventRecord)


class SseParser:
    """Turns chunks of a `text/event-stream` into the `data` of each event. Names are in our data too; `last_id` is the
    newest id, which may come without an event.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._data: list[bytes] = []
        self._id: bytes | None = None
        self.last_id: bytes | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that `chunk` completes."""
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        found: list[bytes] = []
        for line in (line.removesuffix(b"\r") for line in lines):
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif line.startswith(b"id:"):
                self._id = line[3:].strip()
            elif not line:
                self.last_id = self._id
                if self._data:
                    found.append(b"\n".join(self._data))
                    self._data.clear()
        return found


class Enduring:
    """How long one client goes on with something: `timeout` is the seconds for all of it (None: no end), `patience` the
    seconds without a connection that are borne. `name` is what it is called where it took too long.
    """

    def __init__(
        self,
        name: str,
        timeout: float | None = None,
        patience: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._timeout = timeout
        self._patience = patience
        self._monotonic = monotonic
        self._ends = None if timeout is None else monotonic() + timeout
        self._gone_since: float | None = None
        self._pause = _FIRST_PAUSE

    def there(self) -> None:
        """The server has answered: patience begins anew."""
        self._gone_since, self._pause = None, _FIRST_PAUSE

    def pause(self, error: Exception) -> float:
        """Seconds to wait after a broken connection; raises TimeoutError, and Unreachable when patience is over."""
        left, now = self.left(), self._monotonic()
        if self._gone_since is None:
            self._gone_since = now
        if now - self._gone_since > self._patience:
            raise Unreachable(f"the connection was lost and did not come back: {error}") from error
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
        return min(pause, left)

    def excuse(self, error: ApiError) -> Literal[False]:
        """Bear a database that is away, which the next connection will find again; any other problem is raised."""
        if error.status != _AWAY:
            raise error
        return False

    def left(self) -> float:
        """The seconds that are left; raises TimeoutError when there are none."""
        if self._ends is None:
            return float("inf")
        left = self._ends - self._monotonic()
        if left <= 0:
            raise TimeoutError(f"{self.name} was not there after {self._timeout:g} seconds")
        return left


class Streaming(Enduring, Generic[E]):
    """Where one client stands in a stream of events, and until when it goes on."""

    def __init__(
        self,
        name: str,
        path: str,
        event: type[E],
        *,
        after: int | None,
        timeout: float | None = None,
        patience: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name, timeout, patience, monotonic)
        self.path = path
        self._event = event
        # The last id that came; None begins where the server begins.
        self._last = after
        self._read_seconds = _SILENCE_SECONDS
        self._parser = SseParser()

    def begin(self) -> tuple[dict[str, str], httpx.Timeout]:
        """Headers and time-outs of the next connection; raises TimeoutError when the time is up."""
        left = self.left()
        self._read_seconds = min(_SILENCE_SECONDS, left)
        self._parser = SseParser()
        headers = {"Accept": "text/event-stream"}
        if self._last is not None:
            headers["Last-Event-ID"] = str(self._last)
        return headers, httpx.Timeout(min(_CONNECT_SECONDS, left), read=self._read_seconds)

    def answered(self, status: int, content: bytes) -> None:
        """Judge the answer's status; raises ApiError for a refusal that another try would not change."""
        if status == _AWAY:
            raise Away
        if status != _OK:
            raise ApiError(problem_of(status, content))
        self.there()

    def feed(self, chunk: bytes) -> list[E]:
        """The new events in `chunk`; the next connection goes on after them."""
        found = self._parser.feed(chunk)
        if self._parser.last_id is not None:
            self._last = int(self._parser.last_id)
        return [self._event.model_validate_json(data) for data in found]

    def must_renew(self) -> bool:
        """Whether the connection would outlast the time that is left, so that a shorter one is due."""
        return self._ends is not None and self.left() < self._read_seconds * 0.75


class Following(Streaming[EventRecord]):
    """Where one client stands in one workflow's events, and until when it goes on."""

    def __init__(
        self,
        workflow_id: str,
        *,
        after: int = 0,
        timeout: float | None = None,
        patience: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            f"workflow {workflow_id}", events_path(workflow_id), EventRecord,
            after=after, timeout=timeout, patience=patience, monotonic=monotonic,
        )  # fmt: skip
        self.workflow_id = workflow_id

    @property
    def cursor(self) -> int:
        """The number of the last event that came."""
        return self._last or 0


class Waiting(Enduring):
    """One client that waits for a workflow, one long call after the other, each answered as soon as it is there."""

    def __init__(
        self,
        workflow_id: str,
        until: Until,
        timeout: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(f"workflow {workflow_id}", timeout, monotonic=monotonic)
        self.workflow_id = workflow_id
        self._until: Until = until
        self._answered = False

    def call(self) -> Call[WorkflowStatus]:
        """The next call; raises TimeoutError when the time is up."""
        return wait(self.workflow_id, self._until, min(_LONGEST_WAIT, self.left()))

    def over(self, status: WorkflowStatus) -> bool:
        """Whether this answer is what was waited for."""
        self._answered = True
        self.there()
        now = Status(status.status)
        return now.finished or (self._until == "settled" and now.settled)

    def bear(self, error: ClientError) -> float:
        """Seconds to wait before the next call; raises what another would not change, and the first one's failure."""
        if not self._answered:
            raise error
        if isinstance(error, ApiError):
            self.excuse(error)
        return self.pause(error)


class Away(Exception):  # noqa: N818 - a state to wait out
    """The server answers, but its database is away."""
