"""What both clients share of sending: options of the connection, when to try again, and when a wait is over."""

from __future__ import annotations

import ipaddress
from importlib.metadata import version
from typing import Any, Final, TypeVar

import httpx

from orchestrator.sdk.following import Away
from orchestrator.sdk.request import Call, Unreachable

T = TypeVar("T")
DEFAULT_URL: Final = "http://127.0.0.1:8001"
TRIES: Final = 4
# A stream that breaks in one of these ways is worth another connection.
BROKEN: Final = (httpx.TransportError, Away, Unreachable)
_AWAY: Final = 503
_LONGEST_PAUSE: Final = 3.0
_ANSWER_SECONDS: Final = 10.0


def is_loopback(url: str) -> bool:
    """Whether `url` names this machine."""
    host = httpx.URL(url).host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def options(url: str, key: str | None, timeout: float) -> dict[str, Any]:
    """Arguments of an httpx client that speaks to `url` with `key`."""
    headers = {"User-Agent": f"keyturn/{version('keyturn')}"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    # A proxy that the environment names is for the way out, not for this machine.
    return {"base_url": url, "headers": headers, "timeout": timeout, "trust_env": not is_loopback(url)}


def request(call: Call[T]) -> dict[str, Any]:
    """Arguments of one httpx request."""
    told: dict[str, Any] = {"params": call.query, "content": call.content, "headers": call.headers}
    # A call that is answered late on purpose may take so much longer.
    return {**told, "timeout": call.seconds + _ANSWER_SECONDS} if call.seconds is not None else told


def pause(call: Call[T], response: httpx.Response, tried: int) -> float | None:
    """Seconds until another try; None when this answer is the one to return."""
    if response.status_code != _AWAY or not call.repeatable or _AWAY in call.answers or tried == TRIES:
        return None
    wanted = response.headers.get("Retry-After", "")
    return min(float(wanted) if wanted.isdigit() else 1.0, _LONGEST_PAUSE)


def unreachable(url: str, error: httpx.TransportError) -> Unreachable:
    """The error for a request that got no answer."""
    return Unreachable(f"{url} does not answer: {error or type(error).__name__}")
