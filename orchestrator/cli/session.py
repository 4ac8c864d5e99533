"""One run of a command against a server: the client, the output, and what each failure means for the exit code."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, NoReturn, cast

import httpx
import typer
from pydantic import ValidationError

from orchestrator.cli.credentials import Target, UsageError, find_target
from orchestrator.cli.output import Output, complain
from orchestrator.sdk.client import ApiError, Keyturn, Unreachable

REFUSED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
CHOOSE: Final = "Choose one with --approval-id:"
NAME_ONE: Final = "Name one of them in place of the workflow:"
_AWAY: Final = 503
_UNAUTHENTICATED: Final = 401

Url = Annotated[
    str | None, typer.Option("--url", envvar="KEYTURN_URL", help="The server, such as http://127.0.0.1:8001")
]
Profile = Annotated[
    str | None, typer.Option("--profile", envvar="KEYTURN_PROFILE", help="A profile of the configuration file")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's answer as JSON")]
WorkflowId = Annotated[str, typer.Argument(help="The workflow's id", metavar="WORKFLOW_ID")]
ApprovalId = Annotated[
    str | None, typer.Option("--approval-id", help="Which approval, when the workflow has several pending")
]


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works with."""

    client: Keyturn
    output: Output
    target: Target


@contextlib.contextmanager
def connect(url: str | None, profile: str | None, *, as_json: bool) -> Generator[Session]:
    """A session with the server that is meant; every failure inside is said, and becomes the exit code."""
    output = Output(as_json=as_json)
    target = None
    try:
        target = find_target(url, profile)
        with Keyturn(target.url, target.key, timeout=30.0) as client:
            yield Session(client, output, target)
    except ApiError as error:
        _refused(error, output, target)
    except Unreachable as error:
        complain(f"{error}\nStart a server with `keyturn up`, or name another with --url or KEYTURN_URL.")
        raise typer.Exit(UNREACHABLE) from None
    except TimeoutError as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
    except (UsageError, httpx.InvalidURL, ValueError) as error:
        complain(f"this cannot be sent: {_wrong(error)}" if isinstance(error, ValueError) else str(error))
        raise typer.Exit(USAGE) from None


def _wrong(error: ValueError) -> str:
    """What is wrong with a request, field by field, without the words that are for whoever wrote the model."""
    if not isinstance(error, ValidationError):
        return str(error)
    told = ((".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in error.errors())
    return "; ".join(f"{where}: {what}" if where else what for where, what in told)


def _refused(error: ApiError, output: Output, target: Target | None) -> NoReturn:
    problem = error.problem
    if output.as_json:
        output.json(problem)
    complain(f"{problem.title} ({problem.code}): {problem.detail}")
    listed = problem.facts.get("approvals")
    if isinstance(listed, list):
        show_choices(output, cast("Sequence[Mapping[str, object]]", listed))
    if problem.status == _UNAUTHENTICATED and target is not None and target.key is None:
        complain(f"There is no key for {target.url}: set KEYTURN_KEY, or use a profile or `keyturn up`.")
    raise typer.Exit(UNREACHABLE if problem.status == _AWAY else REFUSED) from None


def show_choices(output: Output, approvals: Sequence[Mapping[str, object]], how: str = CHOOSE) -> None:
    """The approvals of which one has to be named."""
    if output.as_json:
        return
    complain(how)
    for approval in approvals:
        told = json.dumps(approval.get("description") or approval.get("node"), ensure_ascii=False)
        complain(f"  {approval.get('approval_id')}  {told}")
