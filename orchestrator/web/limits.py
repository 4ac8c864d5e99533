"""What is refused before anything is parsed: large bodies, and text or JSON that the database could not hold.

Pure ASGI, so it stands in front of every route and no route can forget it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.core.canonical import MAX_DEPTH
from orchestrator.core.errors import InvalidInput, KeyturnError
from orchestrator.web.problems import Malformed, TooLarge, problem

MAX_BODY: Final = 1_048_576
# A refused body is read on up to here, so that its sender gets to see the answer and not a broken connection.
_DRAIN: Final = 32 * MAX_BODY
_MAX_TARGET: Final = 8_192
_WITH_FORMS: Final = "/links/"
_INT64_DIGITS: Final = 20
_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Limits:
    """ASGI middleware that refuses with a problem document what no route may see."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the target and the body of an HTTP request, then hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            check_target(str(scope["path"]), bytes(scope["query_string"]))
            if scope["method"] in _BODY_METHODS:
                receive = await _checked_body(scope, receive)
        except KeyturnError as error:
            await problem(error)(scope, receive, send)
            return
        except _Gone:
            return
        await self._app(scope, receive, send)


class _Gone(Exception):  # noqa: N818 - not an error: the client went away
    """The client closed the connection before its body was complete."""


async def _checked_body(scope: Scope, receive: Receive) -> Receive:
    """Read the body, check it, and return a `receive` that replays it."""
    body = await _read(scope, receive)
    if body and _is_form(scope):
        check_form(body)
    elif body:
        check_body(body)
    replayed = False

    async def replay() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _is_form(scope: Scope) -> bool:
    """Whether this is the form of a link's page, the one body that is not JSON."""
    headers = cast("Iterable[tuple[bytes, bytes]]", scope["headers"])
    kind = next((value for name, value in headers if name == b"content-type"), b"")
    return str(scope["path"]).startswith(_WITH_FORMS) and is_form(kind.decode("latin-1"))


def is_form(content_type: str) -> bool:
    """Whether a browser's form was sent."""
    return content_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded"


async def _read(scope: Scope, receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise _Gone
        chunk = cast("bytes", message.get("body", b""))
        more = bool(message.get("more_body", False))
        size += len(chunk)
        if size <= MAX_BODY:
            chunks.append(chunk)
        elif size > _DRAIN:
            break
        else:
            chunks.clear()
    if size > MAX_BODY:
        raise TooLarge(f"{scope['path']} takes a body of at most {MAX_BODY} bytes", limit=MAX_BODY)
    return b"".join(chunks)


def check_target(path: str, query: bytes) -> None:
    """Refuse a path or query that holds a NUL or is longer than any of ours; raises InvalidInput."""
    if "\x00" in path or b"%00" in query or b"\x00" in query:
        raise InvalidInput("the address holds a NUL character")
    if len(path) + len(query) > _MAX_TARGET:
        raise InvalidInput(f"the address is longer than {_MAX_TARGET} characters")


def check_form(body: bytes) -> None:
    """Refuse a form that is not text, or that Postgres could not hold; raises Malformed, InvalidInput."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _undecodable(body) from None
    if "\x00" in text or "%00" in text:
        raise InvalidInput("the body holds a NUL character")


def check_body(body: bytes) -> None:
    """Refuse a JSON body that is malformed, or that Postgres or another JSON reader could not hold.

    Raises Malformed, and InvalidInput for NUL, lone surrogates, integers over 64 bits, NaN and infinities, and nesting
    deeper than 64.
    """
    value = _parse(body)
    # Only these can carry a lone surrogate, a NUL or too deep a nesting, so most bodies are not walked.
    if b"\\u" in body or body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _walk(value)


def _parse(body: bytes) -> object:
    try:
        return cast(
            "object",
            json.loads(body.decode(), parse_int=_checked_int, parse_float=_checked_float, parse_constant=_no_constant),
        )
    except UnicodeDecodeError:
        raise _undecodable(body) from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        if b"\x00" in body:
            raise InvalidInput("the body holds a NUL character") from None
        where = f"line {error.lineno}, column {error.colno}"
        raise Malformed(f"the body is not JSON: {error.msg} at {where}") from None


def _undecodable(body: bytes) -> KeyturnError:
    try:
        body.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        return Malformed(f"the body is not UTF-8 (at byte {error.start})")
    return InvalidInput("the body holds a lone surrogate")


def _checked_int(digits: str) -> int:
    # Long digits are refused unread: turning them into a number takes time that grows with their square.
    if len(digits) > _INT64_DIGITS or not _INT64_MIN <= int(digits) <= _INT64_MAX:
        raise InvalidInput("the body holds an integer that does not fit into 64 bits")
    return int(digits)


def _checked_float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise InvalidInput("the body holds a number that is too large")
    return number


def _no_constant(name: str) -> float:
    raise InvalidInput(f"the body holds {name}, which is not JSON")


def _walk(value: object) -> None:
    """Check depth and text, with a stack of our own: what is checked may be deeper than Python's."""
    stack: list[tuple[object, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, str):
            _check_text(item)
            continue
        if isinstance(item, dict):
            fields = cast("Mapping[str, object]", item)
            stack.extend((name, 0) for name in fields)
            children = list(fields.values())
        elif isinstance(item, list):
            children = cast("list[object]", item)
        else:
            continue
        if depth >= MAX_DEPTH:
            raise _too_deep()
        stack.extend((child, depth + 1) for child in children)


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise InvalidInput("the body holds a NUL character")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput("the body holds a lone surrogate")


def _too_deep() -> InvalidInput:
    return InvalidInput(f"the body is nested deeper than {MAX_DEPTH} levels")
