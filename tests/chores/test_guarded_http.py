"""What is sent to addresses from outside goes to the internet, to the address that was checked, and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from orchestrator.chores.guarded_http import GuardedHttp, Resolver, allowed
from orchestrator.chores.message import Undeliverable, Undelivered
from tests.chores.receivers import Answer, certificate, receiving

DENIED = [
    "0.0.0.0",  # noqa: S104 nothing listens here
    "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8",
    "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::",
    "2002:808:808::1", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0",
    "fec0::1", "ff02::1", "not an address", "",
]  # fmt: skip
# With the switch on, one's own machine and network may be reached, and still nothing that hides or serves metadata.
OWN = {"10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "172.16.0.1", "172.31.255.255", "192.168.1.1", "::1",
       "fc00::1", "fd12:3456::1"}  # fmt: skip


@pytest.mark.parametrize("address", DENIED)
def test_an_address_that_is_not_on_the_internet_is_denied(address: str) -> None:
    assert not allowed(address, private=False)
    assert allowed(address, private=True) is (address in OWN)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1"])
def test_an_address_on_the_internet_is_allowed(address: str) -> None:
    assert allowed(address, private=False)


def resolver(*answers: Sequence[str]) -> Resolver:
    """Gives each answer once."""
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        del host, port
        return left.pop(0)

    return resolve


@pytest.mark.parametrize(
    "url",
    ["http://hook.example.org/", "ftp://hook.example.org/", "https://user:pass@hook.example.org/", "https:///x", "x",
     "https://[::1"],
)  # fmt: skip
async def test_only_https_without_a_password_is_spoken(url: str) -> None:
    with pytest.raises(Undeliverable):
        await GuardedHttp(resolver=resolver()).post(url, b"", {})


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "2130706433", "0x7f.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_one_own_machine_is_not_reached_by_any_way_to_write_it(host: str) -> None:
    with receiving() as receiver:
        with pytest.raises((Undeliverable, Undelivered)):
            await GuardedHttp(allow_http=True).post(f"http://{host}:{receiver.port}/", b"", {})
        assert receiver.requests == []


async def test_one_forbidden_address_among_several_is_enough() -> None:
    with pytest.raises(Undeliverable, match="not sent to; a receiver of your own needs allow_private: true"):
        await GuardedHttp(resolver=resolver(["93.184.216.34", "10.0.0.1"])).post("https://hook.example.org/", b"", {})


async def test_a_name_that_says_public_first_and_private_next_is_asked_once() -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        del port
        asked.append(host)
        return ["198.41.0.4"] if len(asked) == 1 else ["127.0.0.1"]

    with receiving() as receiver:
        client = GuardedHttp(allow_http=True, resolver=resolve, seconds=0.5)
        with pytest.raises(Undelivered):
            await client.post(f"http://hook.example.org:{receiver.port}/", b"", {})
        assert receiver.requests == []
    assert asked == ["hook.example.org"]


async def test_the_connection_goes_to_the_address_and_the_name_stays_in_host() -> None:
    with receiving() as receiver:
        client = GuardedHttp(allow_private=True, allow_http=True, resolver=resolver(["127.0.0.1"]))
        answer = await client.post(f"http://hook.example.org:{receiver.port}/a%20b?c=d", b"x", {"X-One": "1"})
        assert answer.status == 200
        (request,) = receiver.requests
        assert request.headers["host"] == f"hook.example.org:{receiver.port}"
        assert (request.path, request.body, request.headers["x-one"]) == ("/a%20b?c=d", b"x", "1")


async def test_where_one_address_takes_no_connection_the_next_is_tried() -> None:
    with receiving() as receiver:
        client = GuardedHttp(allow_private=True, allow_http=True, resolver=resolver(["127.0.0.2", "127.0.0.1"]))
        assert (await client.post(f"http://hook.example.org:{receiver.port}/", b"", {})).status == 200
        assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_refused_and_not_followed(status: int) -> None:
    with receiving() as secret, receiving() as receiver:
        receiver.respond = lambda _: Answer(status, headers={"Location": f"{secret.url}/metadata"})
        with pytest.raises(Undeliverable, match="redirects are not followed"):
            await GuardedHttp(allow_private=True, allow_http=True).post(receiver.url, b"", {})
        assert secret.requests == []


async def test_a_receiver_that_never_ends_its_answer_is_left_in_time() -> None:
    left, ended = asyncio.Event(), asyncio.Event()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not left.is_set():
                writer.write(b"x")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(left.wait(), 0.05)
        writer.close()
        ended.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = GuardedHttp(allow_private=True, allow_http=True, seconds=0.4)
    with pytest.raises(Undelivered, match="did not answer within"):
        await client.post(f"http://127.0.0.1:{port}/", b"", {})
    left.set()
    await ended.wait()
    server.close()
    await server.wait_closed()


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        await GuardedHttp(allow_private=True, allow_http=True).post(receiver.url, b"", {})
        assert proxy.requests == []


@contextlib.asynccontextmanager
async def tls_receiver(name: str, folder: Path) -> AsyncGenerator[tuple[int, list[str], ssl.SSLContext]]:
    """An https server with a certificate for `name`: its port, the names it was asked for, and who trusts it."""
    pem = certificate(name, folder / "both.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    names: list[str] = []
    context.sni_callback = lambda _s, asked, _c: names.append(str(asked))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], names, ssl.create_default_context(cadata=pem)


async def test_tls_is_for_the_name_and_not_for_the_address(tmp_path: Path) -> None:
    async with tls_receiver("hook.example.org", tmp_path) as (port, names, trusted):
        client = GuardedHttp(allow_private=True, resolver=resolver(["127.0.0.1"], ["127.0.0.1"]), verify=trusted)
        assert (await client.post(f"https://hook.example.org:{port}/", b"", {})).status == 200
        assert names == ["hook.example.org"]
        with pytest.raises(Undelivered):
            await client.post(f"https://other.example.org:{port}/", b"", {})
