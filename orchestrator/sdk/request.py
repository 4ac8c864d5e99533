"""One request to the REST interface as a value, how its answer is read, and what can go wrong. Nothing is sent here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Params = Mapping[str, str | int | bool | None]


class Problem(BaseModel):
    """An RFC 9457 problem document. Members beyond these are in `facts`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
    code: str = ""

    @property
    def facts(self) -> Mapping[str, object]:
        """What else the server told: `resolved_by`, `approvals`, `allowed` and the like."""
        return self.model_extra or {}


class ClientError(Exception):
    """Base of what the client raises."""


class ApiError(ClientError):
    """The server answered with a problem: the request was refused, or the server failed. `problem` says which."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem

    @property
    def code(self) -> str:
        """The problem's stable code, such as `already_resolved`."""
        return self.problem.code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status


class Unreachable(ClientError):  # noqa: N818 - said from the caller's side, as the refusals are
    """No answer came: nothing listens there, or the connection broke. A request may or may not have arrived."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and how to read its answer. `answers` are statuses, besides 2xx, whose body `parse` reads;
    `seconds` is how long the server may take its time.
    """

    method: str
    path: str
    parse: Callable[[bytes], T]
    params: Params = field(default_factory=dict[str, "str | int | bool | None"])
    content: bytes | None = None
    idempotency_key: str | None = None
    answers: frozenset[int] = frozenset()
    seconds: float | None = None

    @property
    def repeatable(self) -> bool:
        """Whether sending it again changes nothing more."""
        return self.method == "GET" or self.idempotency_key is not None

    @property
    def headers(self) -> dict[str, str]:
        """The call's own headers."""
        headers = {"Accept": "application/json"}
        if self.content is not None:
            headers["Content-Type"] = "application/json"
        if self.idempotency_key is not None:
            headers["Idempotency-Key"] = self.idempotency_key
        return headers

    @property
    def query(self) -> dict[str, str]:
        """The parameters that were given, as text."""
        given = {name: value for name, value in self.params.items() if value is not None}
        return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}

    def outcome(self, status: int, content: bytes) -> T:
        """The answer, read; raises ApiError when it is a problem, or not what was asked for."""
        if not (200 <= status < 300 or status in self.answers):  # noqa: PLR2004 - HTTP's success
            raise ApiError(problem_of(status, content))
        try:
            return self.parse(content)
        except ValidationError as error:
            detail = f"{self.method} {self.path} was answered with something else than Keyturn's answer: {error}"
            raise ApiError(Problem(status=status, code="not_keyturn", title="Not a Keyturn", detail=detail)) from None


def problem_of(status: int, content: bytes) -> Problem:
    """The problem in an answer; one made up from the status when something in between answered."""
    try:
        return Problem.model_validate_json(content)
    except ValidationError:
        return Problem(status=status, code=f"http_{status}", title=f"HTTP {status}", detail=f"answered HTTP {status}")


def path_of(*parts: str) -> str:
    """The path of these parts, each made safe."""
    # An id is one segment, whatever it holds: `..` and `/` must not lead elsewhere.
    return "/" + "/".join(quote(part, safe="").replace(".", "%2E") for part in parts)


def get(path: str, model: type[M], params: Mapping[str, Any] | None = None) -> Call[M]:
    """A call that reads a model."""
    return Call("GET", path, model.model_validate_json, params or {})


def post(path: str, model: type[M], request: BaseModel, idempotency_key: str | None = None) -> Call[M]:
    """A call that sends a model and reads another; what was not given is not sent."""
    content = request.model_dump_json(exclude_unset=True, by_alias=True).encode()
    return Call("POST", path, model.model_validate_json, content=content, idempotency_key=idempotency_key)
