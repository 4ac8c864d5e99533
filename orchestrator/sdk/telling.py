"""`progress(...)`: how far a node is, for whoever watches. Any node may call it, async or in a thread.

Each call tells the whole of what is known of the node, so that a watcher needs only the newest.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from orchestrator.core.errors import InvalidInput
from orchestrator.sdk.runtime import Host, Visit, current_host, current_visit

T = TypeVar("T")
S = TypeVar("S")


@dataclass(slots=True)
class Attempt:
    """One attempt of a step, and whether it is over although a thread of it may still run."""

    number: int
    of: int
    over: bool = False
    _inside: bool = False
    _left: Callable[[], None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def within(self, handler: Callable[[S], T], state: S) -> T:
        """Run a plain handler, in its thread."""
        with self._lock:
            if self.over:
                raise asyncio.CancelledError
            self._inside = True
        try:
            return handler(state)
        finally:
            with self._lock:
                self._inside = False
                left = self._left
            if left is not None:
                left()

    def leave(self, then: Callable[[], None]) -> None:
        """The step goes on without this attempt; `then` is called when its thread, if it has one, has ended."""
        with self._lock:
            self.over = True
            if self._inside:
                self._left = then
                return
        then()


current_attempt: ContextVar[Attempt | None] = ContextVar("keyturn_attempt", default=None)


def progress(
    percent: float | None = None,
    *,
    message: str = "",
    done: float | None = None,
    total: float | None = None,
    substep: str | None = None,
) -> None:
    """Tell how far the running node is: by `percent` (0 to 100), or by `done` of `total`.

    With `substep` the figures are those of that sub-step, and the node's own follow from those that its `Step`
    declares, by their weights; where it declares none, tell `done` and `total` behind it. What is not given stays as
    it was told before. It may be called in every turn of a loop: of what is told faster than about ten times a second
    only the newest is written. Outside of a Keyturn worker it does nothing.

    Raises InvalidInput for a figure that is none, and asyncio.CancelledError in a thread whose step timed out or was
    cancelled.
    """
    attempt = current_attempt.get()
    if attempt is not None and attempt.over:
        raise asyncio.CancelledError
    share = _share(percent, done, total)
    host, visit = current_host.get(), current_visit.get()
    if host is None or visit is None:
        return
    part = "/".join(one for one in (visit.inner, substep or "") if one)
    if part:
        body = visit.told.add_substep(part, share, message)
    else:
        body = visit.told.add(share, message=message, done=done, total=total)
    _note(host, visit, attempt, body)


def tell_attempt(attempt: Attempt) -> None:
    """Tell that a step is tried again; its figures begin anew."""
    host, visit = current_host.get(), current_visit.get()
    if attempt.number > 1 and host is not None and visit is not None:
        _note(host, visit, attempt, visit.told.add(0.0, message=f"attempt {attempt.number} of {attempt.of}"))


def _note(host: Host, visit: Visit, attempt: Attempt | None, body: dict[str, object]) -> None:
    again = {} if attempt is None or attempt.number == 1 else {"attempt": attempt.number}
    host.note("progress", {"node": visit.outermost, **again, **body})


def _share(percent: float | None, done: float | None, total: float | None) -> float | None:
    """The percentage told, within its limits; None where only a message or a count is."""
    for name, value in (("percent", percent), ("done", done), ("total", total)):
        if value is not None and not math.isfinite(value):
            raise InvalidInput(f"progress: {name} is {value}; give a number")
    if total is not None and total <= 0:
        raise InvalidInput(f"progress: total is {total}; give a number above 0")
    if percent is None and done is not None and total is not None:
        percent = 100 * done / total
    return None if percent is None else min(100.0, max(0.0, float(percent)))
