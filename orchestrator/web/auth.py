"""Who calls, from the request's credential. Every route but the probes depends on this.

Identity is never taken from a body, a cookie or an address.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from orchestrator.core.errors import Unauthenticated
from orchestrator.service.context import Caller, Context
from orchestrator.service.refusals import noted
from orchestrator.web.parts import Parts, parts_of

_LONGEST_PATH: Final = 200

# Declared for the OpenAPI document; the refusals are ours, as problem documents.
BEARER = HTTPBearer(auto_error=False, bearerFormat="kt_<id>_<secret>", description="An API key as a bearer token")
KEY_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key in a header of its own")


async def presented_key(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)],
    header: Annotated[str | None, Security(KEY_HEADER)],
) -> str:
    """The key as it was sent; raises Unauthenticated when none was, or one of another scheme."""
    if bearer is not None:
        return bearer.credentials
    if "authorization" in request.headers:
        raise Unauthenticated("send the key as `Authorization: Bearer kt_…`; no other scheme is taken")
    if not header:
        raise Unauthenticated("no credential was sent; send `Authorization: Bearer kt_…` or `X-API-Key: kt_…`")
    return header


Presented = Annotated[str, Depends(presented_key)]


async def authenticated(request: Request, presented: Presented) -> Caller:
    """The caller; raises Unauthenticated, Unavailable."""
    return await (await parts_of(request)).keyring.authenticate(presented)


async def context(request: Request) -> Context:
    """What use cases are given."""
    return (await parts_of(request)).context


def _wanted(request: Request) -> str:
    """What a request is for, without its query and no longer than any of ours."""
    return f"{request.method} {request.url.path[:_LONGEST_PATH]}"


def permitted(*permissions: str) -> Callable[[Request, Caller], Awaitable[Caller]]:
    """A dependency: the caller, whose credential must carry one of `permissions`. The service checks it once more."""

    async def check(request: Request, who: Annotated[Caller, Depends(authenticated)]) -> Caller:
        async with noted((await parts_of(request)).context, who, wanted=_wanted(request)):
            who.need_any(*permissions)
        return who

    return check


Submitter = Annotated[Caller, Depends(permitted("submit"))]
Reader = Annotated[Caller, Depends(permitted("read"))]
Decider = Annotated[Caller, Depends(permitted("decide"))]
Editor = Annotated[Caller, Depends(permitted("submit", "decide"))]
Admin = Annotated[Caller, Depends(permitted("admin"))]
AdminOrAuditor = Annotated[Caller, Depends(permitted("admin", "audit"))]
Auditor = Annotated[Caller, Depends(permitted("audit"))]
Ctx = Annotated[Context, Depends(context)]
Using = Annotated[Parts, Depends(parts_of)]
