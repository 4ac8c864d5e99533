"""The OpenAPI document: FastAPI's, with the problem documents that every route may answer with."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI

from orchestrator.web.problems import MEDIA_TYPE

_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457. Further members are facts, such as `resolved_by`, `allowed` or `retry_after`.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Stable, for programs"},
    },
    "additionalProperties": True,
}
_RESPONSE: Final[dict[str, Any]] = {
    "description": "The request was refused, or cannot be answered now",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_REFERENCE: Final = {"$ref": "#/components/responses/Problem"}
# FastAPI's own description of a refused body, which is not what ours look like.
_NOT_OURS: Final = ("HTTPValidationError", "ValidationError")


class DescribedApp(FastAPI):
    """An application whose OpenAPI document tells of problem documents."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            describe_problems(super().openapi())
        return super().openapi()


def describe_problems(document: dict[str, Any]) -> None:
    """Say in `document`, for each operation, that refusals are problem documents."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in _NOT_OURS:
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    components["responses"] = {"Problem": _RESPONSE}
    for operations in document["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            responses.pop("422", None)
            responses["4XX"] = _REFERENCE
            responses.setdefault("503", _REFERENCE)
