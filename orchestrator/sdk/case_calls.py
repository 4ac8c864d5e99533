"""The calls of cases and of feeds over several workflows, as values like those of `calls`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict
from urllib.parse import urlencode

from orchestrator.sdk.following import Streaming
from orchestrator.sdk.request import Call, get, path_of, post
from orchestrator.wire import Decided
from orchestrator.wire_feeds import ConfirmationList, ConfirmRequest, FeedEvent


class FeedOptions(TypedDict, total=False):
    """Which events of a feed come, and for how long: `after` is a position, `types` the only ones that are wanted;
    `timeout` is the seconds for all of it, `patience` those without a connection that are borne.
    """

    after: int
    types: Sequence[str]
    timeout: float | None
    patience: float


class SeenOptions(TypedDict, total=False):
    """What was seen of a request that was edited."""

    revision: int | None
    digest: str | None


def pending(case_id: str) -> Call[ConfirmationList]:
    """What waits in a case."""
    return get(path_of("cases", case_id, "confirmations", "pending"), ConfirmationList)


def confirm(
    case_id: str, request_id: str, note: str, seen: SeenOptions, idempotency_key: str | None, *, approved: bool
) -> Call[Decided]:
    """Yes or no to what waits in a case."""
    request = ConfirmRequest(approved=approved, note=note, **seen)
    return post(path_of("cases", case_id, "confirmations", request_id), Decided, request, idempotency_key)


def following_case(case_id: str, options: FeedOptions) -> Streaming[FeedEvent]:
    """A case's events, from its beginning."""
    return _streaming(f"case {case_id}", path_of("cases", case_id, "events"), options)


def following_all(options: FeedOptions) -> Streaming[FeedEvent]:
    """The events of all workflows, from now on."""
    return _streaming("the end", "/events", options)


def _streaming(name: str, path: str, options: FeedOptions) -> Streaming[FeedEvent]:
    if types := options.get("types", ()):
        path = f"{path}?{urlencode({'types': ','.join(types)})}"
    return Streaming(
        name, path, FeedEvent, after=options.get("after"), timeout=options.get("timeout"),
        patience=options.get("patience", 30.0),
    )  # fmt: skip
