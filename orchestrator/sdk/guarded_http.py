"""HTTP to addresses that others have a say in: no redirects, and nothing in one's own network unless that is allowed.

A name is resolved once, every address it has must be allowed, and the connection goes to one of those very addresses:
what the name says afterwards does not matter. The name stays in Host and in the TLS handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import httpx

from orchestrator.core.errors import InvalidInput, StepFailed

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS: Final = {"https": 443, "http": 80}
_MOST_ADDRESSES: Final = 4


def _networks(*texts: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


# Where another address hides in this one, or where nobody's receiver can be. Denied always, switches or not.
_NEVER: Final = _networks(
    "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "168.63.129.16/32",  # the host of a cloud's machines, by a public address
    "::/128", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23",
    "2002::/16", "3fff::/20", "fe80::/10", "fec0::/10", "ff00::/8",
)  # fmt: skip
# All of IPv6 that is given out.
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
# One's own machine and network, which may be allowed.
_PRIVATE: Final = _networks(
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"
)


def allowed(address: str, *, private: bool) -> bool:
    """Whether a connection to this address may be made."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if _within(found, _NEVER) or found.is_multicast or found.is_unspecified:
        return False
    if _within(found, _PRIVATE):
        return private
    # IPv4-compatible and documentation addresses, and whatever else is no place on the internet.
    return found.is_global and not found.is_reserved and (found.version == 4 or found in _UNICAST)  # noqa: PLR2004


def _within(address: _Address, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Whom TLS trusts. Reading them all takes some milliseconds, so it is done once."""
    return httpx.create_ssl_context(trust_env=False)


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """The addresses that this machine knows for a name."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class DeniedAddress(InvalidInput):
    """The address must not be asked, now or later; nothing was sent."""


class NoAnswer(StepFailed):
    """Nobody answered, or not in time; it may be different later."""


@dataclass(frozen=True, slots=True)
class Reached:
    """What came back: a status, the headers, the body up to the limit, and whether that is all of it."""

    status: int
    headers: httpx.Headers
    body: bytes
    whole: bool


@dataclass(frozen=True, slots=True)
class Guard:
    """A client that is allowed little. `verify` is whom TLS trusts; `seconds` bounds one request altogether.

    `longest` is how many bytes of an answer are read.
    """

    allow_private: bool = False
    allow_http: bool = False
    resolver: Resolver = system_resolver
    verify: ssl.SSLContext | None = None
    seconds: float = 15.0
    longest: int = 64 * 1024

    async def request(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Reached:
        """Send one request, whatever its answer. Raises DeniedAddress, NoAnswer; neither repeats the address' path."""
        target = self._target(url)
        # As it goes over the wire: another way to write the name must not be another name to the resolver.
        host = target.raw_host.decode("ascii")
        try:
            async with asyncio.timeout(self.seconds):
                addresses = await self._resolve(host, target.port or _PORTS[target.scheme])
                return await self._send_to_one(method, target, addresses, body, headers)
        except TimeoutError:
            raise NoAnswer(f"{host} did not answer within {self.seconds:g} s") from None
        except (httpx.HTTPError, OSError) as error:
            raise NoAnswer(f"{host}: {type(error).__name__}") from None

    def _target(self, url: str) -> httpx.URL:
        try:
            target = httpx.URL(url)
        except httpx.InvalidURL:
            raise DeniedAddress("it is no address") from None
        schemes = ("https", "http") if self.allow_http else ("https",)
        if target.scheme not in schemes or not target.host or target.userinfo:
            raise DeniedAddress(f"it must be {' or '.join(schemes)}://, a host, and no user or password")
        return target

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        try:
            found = list(await self.resolver(host, port))
        except (socket.gaierror, UnicodeError):
            raise NoAnswer(f"{host}: there is no such host") from None
        if not found:
            raise NoAnswer(f"{host}: there is no such host")
        if not all(allowed(address, private=self.allow_private) for address in found):
            raise DeniedAddress(f"{host} is at an address that is not allowed", host=host)
        return found[:_MOST_ADDRESSES]

    async def _send_to_one(
        self, method: str, target: httpx.URL, addresses: Sequence[str], body: bytes, headers: Mapping[str, str]
    ) -> Reached:
        """Send to the first address that takes a connection; until there is one, nothing has been sent."""
        for address in addresses[:-1]:
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._send(method, target, address, body, headers)
        return await self._send(method, target, addresses[-1], body, headers)

    async def _send(
        self, method: str, target: httpx.URL, address: str, body: bytes, headers: Mapping[str, str]
    ) -> Reached:
        host = target.netloc.decode("ascii")
        request = httpx.Request(
            method, target.copy_with(host=address), content=body,
            headers={**headers, "Host": host, "User-Agent": "keyturn", "Accept-Encoding": "identity"},
            extensions={
                "sni_hostname": target.raw_host.decode("ascii"),
                "timeout": {**dict.fromkeys(("read", "write", "pool"), self.seconds), "connect": self.seconds / 3},
            },
        )  # fmt: skip
        # The transport itself: it follows no redirects, asks no proxy, and does not log addresses.
        async with httpx.AsyncHTTPTransport(verify=self.verify or _trusted(), trust_env=False, retries=0) as transport:
            response = await transport.handle_async_request(request)
            try:
                content = bytearray()
                async for chunk in response.aiter_raw():
                    content += chunk
                    if len(content) > self.longest:
                        break
            finally:
                await response.aclose()
        whole = len(content) <= self.longest
        return Reached(response.status_code, response.headers, bytes(content[: self.longest]), whole)
