"""What the steps of a runbook can do: SQL, a command, an HTTP request, Terraform.

Each executor is one module with its settings (a model) and one function that runs them. None knows of graphs, gates
or the effects ledger; whether and when a step runs is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from orchestrator.sdk.executors import command, http, sql, terraform
from orchestrator.sdk.executors.command import Command
from orchestrator.sdk.executors.context import FILLED, Context, Result, Secrets, secret_texts
from orchestrator.sdk.executors.http import Http
from orchestrator.sdk.executors.sql import Sql
from orchestrator.sdk.executors.terraform import TerraformApply, TerraformPlan

Call: TypeAlias = Sql | Command | Http | TerraformPlan

__all__ = [
    "FILLED",
    "Call",
    "Command",
    "Context",
    "Http",
    "Result",
    "Secrets",
    "Sql",
    "TerraformApply",
    "TerraformPlan",
    "execute",
    "rehearse",
    "secret_texts",
]


async def execute(call: Call, context: Context) -> Result:
    """Run one call and return its result as JSON, without secrets.

    Raises StepFailed when it does not do what it should, ToolMissing where its program is not installed, InvalidInput
    for a value that must not be used there; then nothing was sent, changed or started.
    """
    match call:
        case Sql():
            return await sql.run(call, context)
        case Command():
            return await command.run(call, context)
        case Http():
            return await http.run(call, context)
        case TerraformPlan():
            return await terraform.plan(call, context)


def rehearse(call: Call, values: Mapping[str, object]) -> None:
    """Fill every template whose values are guarded, and run nothing. InvalidInput for a value that must not be used."""
    match call:
        case Sql():
            for statement in call.statements:
                sql.compose(statement, values)
        case Command():
            command.arguments(call.argv, values)
            command.folder(call.directory, values)
        case Http():
            http.address(call.url, call.hosts, values)
        case TerraformPlan():
            command.folder(call.directory, values)
