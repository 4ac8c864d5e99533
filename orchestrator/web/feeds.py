"""Events over several workflows, in the order of their `position`: what one may see, a case, a thread.

Whoever follows holds no connection to the database while nothing happens.
"""

from __future__ import annotations

from collections.abc import Collection

from fastapi import Request
from fastapi.responses import Response

from orchestrator.service.context import Caller
from orchestrator.service.feeds import Scope
from orchestrator.web.parts import Parts


async def feed(
    request: Request,
    parts: Parts,
    who: Caller,
    presented: str,
    scope: Scope,
    *,
    after: int | None = None,
    last_event_id: str | None = None,
    types: Collection[str] = (),
    limit: int = 100,
) -> Response:
    """The events of `scope` behind a position: server-sent and live, or one page when `Accept` asks for JSON.

    `after` and `last_event_id` are positions; the header wins. Without any of the two a feed begins where
    `scope.begins` says. `types` names the only events that are wanted.
    """
    raise NotImplementedError
