"""The `command` step: one program with an argument list, never a shell.

A value fills a whole argument or a part of one; it never becomes a second argument, an option or a program.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.core.documents import DocumentModel
from orchestrator.core.errors import InvalidInput, StepFailed
from orchestrator.sdk import templates
from orchestrator.sdk.executors import processes
from orchestrator.sdk.executors.context import FILLED, OUTPUT_BYTES, Context, Result

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_SHOWN = 600


class Command(DocumentModel):
    """Run `argv` in `directory`.

    `environment` names the worker's variables that are passed on, beside PATH, HOME and the like; `variables` adds
    others. The result is `exit_code`, `stdout`, `stderr`, `shortened`, and with `output: json` what was printed as
    `json`. A step that changes something finds its idempotency key in KEYTURN_IDEMPOTENCY_KEY.
    """

    argv: Annotated[tuple[str, ...], FILLED]
    directory: str = "${keyturn.runbooks}"
    environment: tuple[VariableName, ...] = ()
    variables: dict[VariableName, str] = Field(default_factory=dict[str, str])
    exit_codes: Annotated[tuple[int, ...], FILLED] = (0,)
    output: Literal["text", "json"] = "text"

    def summary(self) -> str:
        """For the approver: what will run, templates unfilled."""
        return f"command: {' '.join(self.argv)}"


async def run(spec: Command, context: Context) -> Result:
    """Run the command. Raises StepFailed for another exit code, no JSON, or when time runs out; ToolMissing."""
    argv = arguments(spec.argv, context.values)
    added = {name: templates.text(value, context.values) for name, value in spec.variables.items()}
    if context.key:
        added["KEYTURN_IDEMPOTENCY_KEY"] = context.key
    added["KEYTURN_WORKFLOW_ID"] = context.workflow_id
    ended = await processes.run(
        argv,
        directory=folder(spec.directory, context.values),
        variables=processes.environment(spec.environment, added),
        seconds=context.seconds,
        limit=OUTPUT_BYTES,
    )
    if ended.exit_code not in spec.exit_codes:
        words = context.secrets.hide(ended.stderr.strip() or ended.stdout.strip())[-_SHOWN:]
        raise StepFailed(f"{spec.argv[0]} ended with exit code {ended.exit_code}: {words or 'it said nothing'}")
    result: Result = {
        "exit_code": ended.exit_code,
        "stdout": ended.stdout,
        "stderr": ended.stderr,
        "shortened": ended.shortened,
    }
    if spec.output == "json":
        result["json"] = _json(spec, ended.stdout)
    context.check(result)
    return context.secrets.clean(result)


def arguments(argv: tuple[str, ...], values: Mapping[str, object]) -> list[str]:
    """`argv` filled. InvalidInput for a value that would be read as an option."""
    filled: list[str] = []
    for index, template in enumerate(argv):
        argument = templates.text(template, values)
        if index and argument.startswith("-") and not template.startswith("-"):
            raise InvalidInput(f"{template} is {argument!r}, which a program would read as an option; nothing ran")
        filled.append(argument)
    return filled


def folder(template: str, values: Mapping[str, object]) -> Path:
    """A folder from a template. InvalidInput for a value that is not the plain name of a file or folder."""
    for piece in templates.read(template):
        if isinstance(piece, templates.Slot) and piece.source != "keyturn":
            name = templates.scalar_text(piece.name, templates.value_of(piece, values))
            if name in {"", ".", ".."} or any(mark in name for mark in '/\\:"'):
                raise InvalidInput(f"{piece.name} is {name!r}; allowed in a path: the plain name of a file or folder")
    return Path(templates.text(template, values))


def _json(spec: Command, stdout: str) -> object:
    try:
        return json.loads(stdout)
    except ValueError as error:
        raise StepFailed(f"{spec.argv[0]} did not print JSON: {error}") from error
