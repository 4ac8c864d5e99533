"""What the routes of one application share, made when it starts and taken down when it stops.

Everything a route needs comes from here: there are no globals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.requests import HTTPConnection

from orchestrator.service.context import Context
from orchestrator.service.identity import Keyring
from orchestrator.settings import Settings
from orchestrator.telemetry import Telemetry
from orchestrator.web.counting import Counting
from orchestrator.web.hub import Hub


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a running application."""

    settings: Settings
    context: Context
    keyring: Keyring
    hub: Hub
    telemetry: Telemetry
    counting: Counting


async def parts_of(request: HTTPConnection) -> Parts:
    """The parts of the application that serves `request`."""
    return cast("Parts", request.app.state.parts)
