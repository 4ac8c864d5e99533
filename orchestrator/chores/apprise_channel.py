"""Everything else, by Apprise. It tells only whether it worked, and cannot mark a repetition."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import apprise

from orchestrator.chores.message import Message, Undelivered

# What it logs holds addresses with their passwords, and whole messages.
_SILENT = logging.CRITICAL + 1


def check_address(url: str) -> None:
    """Raises ValueError, which does not repeat it, for an address that Apprise does not know."""
    _silence()
    with warnings.catch_warnings():
        # It loads modules that Python is about to drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        known = _made(url) is not None
    if not known:
        raise ValueError("is no address that Apprise knows")


@dataclass(frozen=True, slots=True)
class AppriseSender:
    """Sends to one address of Apprise's."""

    url: str = field(repr=False)
    seconds: float = 30.0

    @property
    def secrets(self) -> Sequence[str]:
        """The address holds whatever is needed to send there."""
        return (self.url,)

    async def send(self, message: Message) -> str | None:
        """Send it in a thread."""
        schema = self.url.partition(":")[0]
        try:
            async with asyncio.timeout(self.seconds):
                worked = await asyncio.to_thread(self._notify, message)
        except TimeoutError:
            raise Undelivered(f"{schema}:// did not end within {self.seconds:g} s") from None
        except Exception as error:  # noqa: BLE001 each of a hundred services raises its own
            raise Undelivered(f"{schema}:// failed: {type(error).__name__}") from None
        if not worked:
            raise Undelivered(f"{schema}:// was not taken")
        return None

    def _notify(self, message: Message) -> bool:
        _silence()
        made = _made(self.url)
        return bool(made and made.notify(message.text, message.subject, body_format=apprise.NotifyFormat.TEXT.value))


class _Made(Protocol):
    """As much of Apprise's client as is used here; its own types are partial."""

    def add(self, services: str) -> bool: ...

    def notify(self, body: str, title: str, *, body_format: str) -> object: ...


def _made(url: str) -> _Made | None:
    asset = apprise.AppriseAsset(app_id="Keyturn", app_desc="Keyturn", interpret_escapes=False, async_mode=False)
    made = cast("_Made", apprise.Apprise(asset=asset))
    return made if made.add(url) else None


def _silence() -> None:
    for name in ("apprise", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(_SILENT)
