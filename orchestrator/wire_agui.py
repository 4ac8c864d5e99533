"""Request models of the AG-UI routes beside those of the protocol itself. Shapes only."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.wire import Name, Request


class RespondRequest(Request):
    """`POST /ag-ui/respond`: the answer to what a thread waits for. `interrupt_id` says to which question, so that an
    answer sent twice never meets the next one.
    """

    thread_id: Annotated[str, Field(min_length=1, max_length=255)]
    response: object
    interrupt_id: Name | None = None
