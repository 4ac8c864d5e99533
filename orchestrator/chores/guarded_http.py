"""Messages over guarded HTTP: which answers mean that it may be tried again, and which that it never will do."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from orchestrator.chores.message import Undeliverable, Undelivered
from orchestrator.sdk.guarded_http import DeniedAddress, Guard, NoAnswer, Resolver, allowed, system_resolver

__all__ = ["Answer", "GuardedHttp", "Resolver", "allowed", "system_resolver"]

_RETRY_LATER: Final = frozenset((429, 503))
# What ends an attempt for good: the receiver says that this address or this message will never do.
_HOPELESS: Final = frozenset((400, 404, 405, 410, 413, 414, 415, 422))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: a status and the beginning of a body."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class GuardedHttp:
    """A client that is allowed little. `verify` is whom TLS trusts; `seconds` bounds one request altogether."""

    allow_private: bool = False
    allow_http: bool = False
    resolver: Resolver = system_resolver
    verify: ssl.SSLContext | None = None
    seconds: float = 15.0

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a POST. Raises Undelivered when there is no good answer, Undeliverable when there will not be one."""
        return await self._request("POST", url, body, headers)

    async def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Send a GET; as `post`."""
        return await self._request("GET", url, b"", headers)

    async def _request(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        guard = Guard(self.allow_private, self.allow_http, self.resolver, self.verify, self.seconds)
        try:
            reached = await guard.request(method, url, body, headers)
        except DeniedAddress as denied:
            if "host" not in denied.facts:
                raise Undeliverable(f"the channel's url: {denied.detail}") from None
            hint = "" if self.allow_private else "; a receiver of your own needs allow_private: true"
            raise Undeliverable(
                f"{denied.facts['host']} is at an address that messages are not sent to{hint}"
            ) from None
        except NoAnswer as silent:
            raise Undelivered(silent.detail) from None
        _check(httpx.URL(url).raw_host.decode("ascii"), reached.status, _seconds(reached.headers))
        return Answer(reached.status, reached.body)


def _seconds(headers: httpx.Headers) -> float | None:
    """What Retry-After asks for, where it is a number."""
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None


def _check(host: str, status: int, asked: float | None) -> None:
    if httpx.codes.is_success(status):
        return
    if httpx.codes.is_redirect(status):
        raise Undeliverable(f"{host} answered {status}: redirects are not followed")
    if status in _HOPELESS:
        raise Undeliverable(f"{host} answered {status}")
    raise Undelivered(f"{host} answered {status}", asked if status in _RETRY_LATER else None)
