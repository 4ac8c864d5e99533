"""What is told of requests that end undecided, because their workflow does."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.model import ApprovalState
from orchestrator.store.events import Event


def unasked(were: Mapping[str, str], by: str, why: str) -> list[Event]:
    """One event for each request of a workflow that ended that was still `pending`; what was decided was told."""
    return [
        Event("confirmation-resolved", by, {"request_id": one, "state": "cancelled", "by": [by], "note": why})
        for one, was in were.items()
        if was == ApprovalState.PENDING
    ]
