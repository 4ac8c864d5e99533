"""Every error answer, as RFC 9457 `application/problem+json`, and the one mapping of codes to HTTP statuses.

No rule is decided here, and no stack trace, statement or input value leaves through here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import ClassVar, Final, TypedDict, cast

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from orchestrator.core.errors import KeyturnError, Refusal

MEDIA_TYPE: Final = "application/problem+json"
_INTERNAL: Final = HTTPStatus.INTERNAL_SERVER_ERROR

# Codes that are not here are ours to explain, not the client's: they answer 500.
STATUS: Final[Mapping[str, HTTPStatus]] = {
    "malformed": HTTPStatus.BAD_REQUEST,
    "unauthenticated": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "not_eligible": HTTPStatus.FORBIDDEN,
    "self_approval": HTTPStatus.FORBIDDEN,
    "identity_mismatch": HTTPStatus.FORBIDDEN,
    "not_owner": HTTPStatus.FORBIDDEN,
    "stage_not_open": HTTPStatus.FORBIDDEN,
    "review_outstanding": HTTPStatus.FORBIDDEN,
    "token_wrong_user": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "token_invalid": HTTPStatus.NOT_FOUND,
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "not_acceptable": HTTPStatus.NOT_ACCEPTABLE,
    "already_resolved": HTTPStatus.CONFLICT,
    "already_executed": HTTPStatus.CONFLICT,
    "stale_revision": HTTPStatus.CONFLICT,
    "vote_final": HTTPStatus.CONFLICT,
    "principal_already_counted": HTTPStatus.CONFLICT,
    "person_already_counted": HTTPStatus.CONFLICT,
    "approver_ineligible": HTTPStatus.CONFLICT,
    "hash_mismatch": HTTPStatus.CONFLICT,
    "approval_id_needed": HTTPStatus.CONFLICT,
    "nothing_pending": HTTPStatus.CONFLICT,
    "idempotency_conflict": HTTPStatus.CONFLICT,
    "conflict": HTTPStatus.CONFLICT,
    "thread_exists": HTTPStatus.CONFLICT,
    "thread_busy": HTTPStatus.CONFLICT,
    "approval_pending": HTTPStatus.CONFLICT,
    "graph_changed": HTTPStatus.CONFLICT,
    "lease_lost": HTTPStatus.CONFLICT,
    "rejected": HTTPStatus.CONFLICT,
    "expired": HTTPStatus.GONE,
    "thread_ended": HTTPStatus.GONE,
    "session_ended": HTTPStatus.GONE,
    "approval_lapsed": HTTPStatus.GONE,
    "token_used": HTTPStatus.GONE,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "invalid_input": HTTPStatus.UNPROCESSABLE_ENTITY,
    "invalid_document": HTTPStatus.UNPROCESSABLE_ENTITY,
    "not_storable": HTTPStatus.UNPROCESSABLE_ENTITY,
    "invalid_answer": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unroutable": HTTPStatus.UNPROCESSABLE_ENTITY,
    "not_editable": HTTPStatus.UNPROCESSABLE_ENTITY,
    "justification_required": HTTPStatus.UNPROCESSABLE_ENTITY,
    "frozen": HTTPStatus.LOCKED,
    "too_many": HTTPStatus.TOO_MANY_REQUESTS,
    "too_many_sessions": HTTPStatus.TOO_MANY_REQUESTS,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "anchor_key_missing": HTTPStatus.CONFLICT,
    "anchor_invalid": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unknown_interrupt": HTTPStatus.NOT_FOUND,
    "more_approvals_needed": HTTPStatus.CONFLICT,
    "unsupported": HTTPStatus.UNPROCESSABLE_ENTITY,
}

_log: Final = logging.getLogger(__name__)


class Malformed(Refusal):
    """What was sent is not JSON, or not HTTP as we speak it."""

    code: ClassVar[str] = "malformed"
    title: ClassVar[str] = "Malformed request"


class TooLarge(Refusal):
    """The body is larger than is taken; facts carry `limit` in bytes."""

    code: ClassVar[str] = "too_large"
    title: ClassVar[str] = "The body is too large"


class _Mistake(TypedDict):
    """One of pydantic's findings; its `input` is left alone, as it may be a secret."""

    loc: Sequence[str | int]
    msg: str
    type: str


# Where pydantic's own words speak to whoever wrote the model.
_WORDS: Final[Mapping[str, str]] = {
    "String should match pattern '\\S'": "must not be blank",
    "Input should be a valid dictionary or object to extract fields from": "must be a JSON object",
}


class ProblemResponse(JSONResponse):
    """A problem document."""

    media_type = MEDIA_TYPE


def status_of(error: KeyturnError) -> HTTPStatus:
    """The HTTP status that an error has."""
    return STATUS.get(error.code, _INTERNAL)


def problem(error: KeyturnError) -> ProblemResponse:
    """The answer to an error: its status, its problem document and the headers that go with it."""
    status = status_of(error)
    if status is _INTERNAL:
        _log.error("a request failed with %s: %s", error.code, error.detail)
        return unexplained()
    facts = jsonable_encoder(dict(error.facts))
    facts.pop("cause", None)
    if "status" in facts:
        # RFC 9457 has the name for the HTTP status; ours is a workflow's.
        facts["workflow_status"] = facts.pop("status")
    return _document(status, error.code, error.title, error.detail, facts, headers_of(status, error.facts))


def unexplained() -> ProblemResponse:
    """The answer when the fault is ours: what happened is in the log, not in the answer."""
    detail = "Keyturn failed to answer this request; nothing was half done. The server's log says why."
    return _document(_INTERNAL, "internal", "Something went wrong", detail, {}, {})


def headers_of(status: HTTPStatus, facts: Mapping[str, object]) -> dict[str, str]:
    """`WWW-Authenticate` and `Retry-After` where HTTP wants them."""
    headers: dict[str, str] = {}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="keyturn"'
    retry_after = facts.get("retry_after")
    if isinstance(retry_after, int | float):
        # Rounded up: who comes back then must not be too early.
        headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    elif status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = "1"
    return headers


def install_problems(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    app.add_exception_handler(KeyturnError, _on_keyturn_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)


async def _on_keyturn_error(_request: Request, error: Exception) -> ProblemResponse:
    return problem(cast("KeyturnError", error))


async def _on_invalid(request: Request, error: Exception) -> ProblemResponse:
    found = cast("Sequence[_Mistake]", cast("RequestValidationError", error).errors())
    if any(mistake["type"] == "json_invalid" for mistake in found):
        return problem(Malformed("the body is not JSON"))
    # A body of another type is a text here, which cannot have the fields.
    if found[0]["type"] == "model_attributes_type" and "json" not in request.headers.get("content-type", ""):
        return problem(Malformed("the body was not sent as JSON; send `Content-Type: application/json` with it"))
    errors = [{"where": ".".join(str(part) for part in item["loc"]), "what": _plain(item)} for item in found]
    detail = "; ".join(f"{item['where']}: {item['what']}" for item in errors)
    status = STATUS["invalid_input"]
    return _document(status, "invalid_input", "Invalid input", detail, {"errors": errors}, {})


async def _on_http_error(request: Request, error: Exception) -> ProblemResponse:
    """Starlette's own refusals: no such route, a method that the route does not take."""
    refused = cast("HTTPException", error)
    status = HTTPStatus(refused.status_code)
    if status is HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {request.url.path}; the routes are listed in /openapi.json"
    elif status is HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.url.path} does not take {request.method}"
    else:
        detail = str(refused.detail)
    code = "malformed" if status is HTTPStatus.BAD_REQUEST else status.phrase.lower().replace(" ", "_")
    return _document(status, code, status.phrase, detail, {}, dict(refused.headers or {}))


async def _on_bug(_request: Request, _error: Exception) -> ProblemResponse:
    # Starlette raises the error again after this answer, so the server logs the trace.
    return unexplained()


def _plain(mistake: _Mistake) -> str:
    return _WORDS.get(mistake["msg"]) or mistake["msg"].removeprefix("Value error, ")


def _document(
    status: HTTPStatus, code: str, title: str, detail: str, facts: Mapping[str, object], headers: Mapping[str, str]
) -> ProblemResponse:
    body = {
        **facts,
        "type": f"urn:keyturn:problem:{code}",
        "title": title,
        "status": status.value,
        "detail": detail,
        "code": code,
    }
    return ProblemResponse(body, status_code=status.value, headers=dict(headers))
