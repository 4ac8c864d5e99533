"""The `http` step: one request to an allow-listed host, no redirects, no proxy from the environment.

Values are percent-encoded into the address, so a value can change neither its host nor its path.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal
from urllib.parse import quote

import httpx
from pydantic import AfterValidator, Field, JsonValue

from orchestrator.core.documents import DocumentModel
from orchestrator.core.errors import InvalidInput, StepFailed
from orchestrator.sdk import templates
from orchestrator.sdk.executors.context import FILLED, OUTPUT_BYTES, Context, Result, secret_texts

SAFE_METHODS = ("GET", "HEAD")
_ALLOWED = re.compile(r"(?P<host>\[[0-9a-f:]+\]|[a-z0-9.-]+)(?::(?P<port>\d{1,5}|\*))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TOO_LONG = 1024 * 1024


def _host(text: str) -> str:
    if not _ALLOWED.fullmatch(text):
        raise ValueError(f"{text!r} is no host; allowed: a name in small letters, name:port, or name:* for any port")
    return text


Host = Annotated[str, AfterValidator(_host)]


class Http(DocumentModel):
    """Send one request. `hosts` are the allowed hosts: `name` (the scheme's port), `name:port` or `name:*`.

    `status` are the accepted status codes (default: any 2xx). The result is `status`, `body`, `shortened` and, where
    the body is JSON, `json`. `${env.NAME}` in a header is the worker's environment variable. A step that changes
    something sends its idempotency key as Idempotency-Key.
    """

    url: str
    hosts: Annotated[tuple[Host, ...], FILLED]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    json_body: JsonValue = Field(default=None, alias="json")
    status: tuple[int, ...] = ()

    def summary(self) -> str:
        """For the approver: what will be sent, templates unfilled."""
        body = "" if self.json_body is None else f" {json.dumps(self.json_body, ensure_ascii=False)}"
        return f"http: {self.method} {self.url}{body}"


async def run(spec: Http, context: Context) -> Result:
    """Send the request. Raises StepFailed for another status, a redirect, or no answer in time."""
    url = address(spec.url, spec.hosts, context.values)
    headers, secret = _headers(spec, context)
    request = httpx.Request(
        spec.method, url, headers=headers,
        json=None if spec.json_body is None else templates.fill(spec.json_body, context.values),
    )  # fmt: skip
    try:
        async with asyncio.timeout(context.seconds):
            response, body, whole = await _send(request, context.seconds)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        raise StepFailed(f"{spec.method} {url.scheme}://{url.netloc.decode()}{url.path}: {why}") from error
    secrets = context.secrets.plus(secret)
    result = _result(response, body, whole=whole)
    _check_status(spec, response, secrets.hide(str(result["body"])))
    context.check(result)
    return secrets.clean(result)


def address(template: str, hosts: Sequence[str], values: Mapping[str, object]) -> httpx.URL:
    """The filled address. InvalidInput when its host is not allowed or a value would move it to another path."""
    for piece in templates.read(template):
        if isinstance(piece, templates.Slot) and str(values.get(piece.name)) in {".", ".."}:
            raise InvalidInput(f"{piece.name} must not be {values[piece.name]!r} in the address {template}")
    filled = templates.text(template, values, lambda value: quote(value, safe=""))
    try:
        url = httpx.URL(filled)
    except httpx.InvalidURL as error:
        raise InvalidInput(f"{filled!r} is no address: {error}") from error
    if url.scheme not in _DEFAULT_PORTS or url.userinfo or not url.host:
        raise InvalidInput(f"{filled!r} is not allowed: write http:// or https://, a host, and no user or password")
    if not any(_matches(allowed, url) for allowed in hosts):
        raise InvalidInput(f"the host of {filled!r} is not allowed; allowed: {', '.join(hosts)}")
    return url


def _matches(allowed: str, url: httpx.URL) -> bool:
    rule = _ALLOWED.fullmatch(allowed)
    if rule is None or rule["host"].strip("[]") != url.raw_host.decode():
        return False
    port = url.port or _DEFAULT_PORTS[url.scheme]
    return rule["port"] == "*" or port == int(rule["port"] or _DEFAULT_PORTS[url.scheme])


def _headers(spec: Http, context: Context) -> tuple[dict[str, str], list[str]]:
    """The headers, and the secrets in them."""
    names = [piece.name for text in spec.headers.values() for piece in templates.read(text)
             if isinstance(piece, templates.Slot) and piece.source == "env"]  # fmt: skip
    found = {name: os.environ.get(name.removeprefix("env.")) for name in names}
    missing = sorted(name for name, value in found.items() if value is None)
    if missing:
        raise StepFailed(f"the worker's environment has no {', '.join(name.removeprefix('env.') for name in missing)}")
    headers = {name: templates.text(text, {**context.values, **found}) for name, text in spec.headers.items()}
    for name, value in headers.items():
        if re.search(r"[\r\n]", value):
            raise InvalidInput(f"the header {name} would contain a line break; nothing was sent")
    if context.key:
        headers["Idempotency-Key"] = context.key
    return headers, [*(value for value in found.values() if value), *secret_texts(headers)]


async def _send(request: httpx.Request, seconds: float) -> tuple[httpx.Response, bytes, bool]:
    """The response, its body up to 1 MB, and whether that is all of it."""
    async with httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=seconds) as client:
        response = await client.send(request, stream=True)
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _TOO_LONG:
                break
        await response.aclose()
    return response, bytes(body[:_TOO_LONG]), len(body) <= _TOO_LONG


def _result(response: httpx.Response, body: bytes, *, whole: bool) -> Result:
    shown = body[:OUTPUT_BYTES].decode(errors="replace")
    result: Result = {
        "status": response.status_code,
        "body": shown,
        "shortened": not whole or len(body) > OUTPUT_BYTES,
    }
    try:
        result["json"] = json.loads(body) if whole and body else None
    except ValueError:
        result["json"] = None
    return result


def _check_status(spec: Http, response: httpx.Response, body: str) -> None:
    accepted = response.status_code in spec.status if spec.status else response.is_success
    if accepted:
        return
    wanted = ", ".join(map(str, spec.status)) or "2xx"
    hint = " (redirects are not followed)" if response.is_redirect else ""
    raise StepFailed(
        f"{spec.method} {response.url.path} answered {response.status_code}{hint}, expected {wanted}: {body[:300]}"
    )
