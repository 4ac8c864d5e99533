"""Response and request models of feeds over several workflows and of cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.wire import EventRecord, PendingApproval, Request, Response


class FeedEvent(EventRecord):
    """One event of a feed; `position` is the cursor. `request_id` is the request that a confirmation is about."""

    position: int
    graph: str | None
    case_id: str | None
    request_id: str | None


class FeedPage(Response):
    """`GET /events` and `GET /cases/{case_id}/events` as JSON: go on behind `next_position`. `more` says that there are
    more events already.
    """

    success: Literal[True] = True
    events: Sequence[FeedEvent]
    next_position: int
    more: bool


class Confirmation(PendingApproval):
    """What waits in a case. `request_id` names it; `yes_or_no` is false for a question that wants another answer."""

    request_id: str
    case_id: str
    yes_or_no: bool


class ConfirmationList(Response):
    """`GET /cases/{case_id}/confirmations/pending`."""

    success: Literal[True] = True
    case_id: str
    confirmations: Sequence[Confirmation]


class ConfirmRequest(Request):
    """`POST /cases/{case_id}/confirmations/{request_id}`. `revision` names what was seen of an edited request."""

    approved: bool
    note: Annotated[str, Field(max_length=4000)] = ""
    revision: int | None = None
    digest: str | None = None
