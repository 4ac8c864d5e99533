"""What a runbook says: the models of its YAML, and the parameters it takes.

Whether the parts fit together is judged in `runbook_rules`; where runbooks are found and run is elsewhere too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

from jsonschema import Draft202012Validator
from pydantic import Field, JsonValue, model_validator

from orchestrator.core.documents import DocumentModel, Duration, duration
from orchestrator.core.errors import InvalidInput
from orchestrator.core.model import Level
from orchestrator.sdk.executors import FILLED, Call, Command, Http, Sql, TerraformApply, TerraformPlan

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
FactName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
# What a template may name beside parameters and the plan's facts.
BUILT_IN = ("keyturn.data_dir", "keyturn.python", "keyturn.runbooks", "keyturn.workflow_id")
_CALLS = ("sql", "command", "http", "terraform_plan", "terraform_apply")


class Retry(DocumentModel):
    """Try a read again, `attempts` times in all, `every` so long: for what takes a while to become true."""

    attempts: int = Field(ge=2, le=1000)
    every: Duration


class Probe(DocumentModel):
    """One look at the world: a call, and what its result must be. `expect` maps a dotted path in it to a value."""

    sql: Sql | None = None
    command: Command | None = None
    http: Http | None = None
    terraform_plan: TerraformPlan | None = None
    expect: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    timeout: Duration | None = None
    retry: Retry | None = None

    @property
    def call(self) -> Call:
        """What it runs."""
        found = self.sql or self.command or self.http or self.terraform_plan
        if found is None:
            message = "this step applies a plan; it has no call of its own"
            raise TypeError(message)
        return found

    def calls(self) -> list[str]:
        """The keys of the calls it names; a valid one names exactly one."""
        return [name for name in _CALLS if getattr(self, name, None) is not None]

    @model_validator(mode="after")
    def _one_call(self) -> Probe:
        if len(self.calls()) != 1:
            found = " and ".join(self.calls()) or "none"
            allowed = ", ".join(name for name in _CALLS if name in type(self).model_fields)
            raise ValueError(f"a step does one thing, this one names {found}; allowed: one of {allowed}")
        return self


class Step(Probe):
    """One step of a runbook.

    `facts` (in `plan`) names values of the result by dotted paths. In `apply` and `rollback`, for a step that was cut
    short by a crash: `verified_by` looks whether it happened, `idempotent` says that it may simply run again; with
    neither, a person is asked. SQL in a transaction needs neither.
    """

    name: Name
    terraform_apply: TerraformApply | None = None
    facts: dict[FactName, str] = Field(default_factory=dict[FactName, str])
    idempotent: bool = False
    verified_by: Probe | None = None

    def summary(self) -> str:
        """For the approver: the name and what will run, templates unfilled."""
        what = self.terraform_apply or self.call
        return f"{self.name}: {what.summary()}"


class Runbook(DocumentModel):
    """An operation: look (`plan`), ask, change (`apply`), look again (`verify`), undo where that fails (`rollback`).

    `parameters` is a JSON Schema whose every property is required or has a default. The texts and `estimated_cost`
    may name parameters and facts of the plan; `risk` can raise the risk that the rules find, never lower it. `files`
    are the scripts it runs, beside it: their content belongs to its version.
    """

    name: Name
    description: Annotated[str, Field(min_length=1)]
    operation: Annotated[str, Field(min_length=1)]
    environment: str = ""
    target: str = ""
    resource_type: str = ""
    risk: Level | None = None
    estimated_cost: float | str | None = None
    security_findings: tuple[dict[str, JsonValue], ...] = ()
    metadata: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    files: tuple[str, ...] = ()
    parameters: dict[str, JsonValue]
    plan: tuple[Step, ...] = ()
    apply: Annotated[tuple[Step, ...], FILLED]
    verify: tuple[Step, ...] = ()
    rollback: tuple[Step, ...] = ()
    timeout: Duration = Field(default_factory=lambda: duration("10m"))

    @property
    def parameter_schema(self) -> dict[str, object]:
        """The schema of the parameters; unknown ones are refused unless the runbook says otherwise."""
        return {"additionalProperties": False, **self.parameters}

    @property
    def properties(self) -> Mapping[str, Mapping[str, object]]:
        """Each parameter's own schema."""
        return cast("Mapping[str, Mapping[str, object]]", self.parameters.get("properties", {}))

    def arguments(self, given: Mapping[str, object]) -> dict[str, object]:
        """`given` with the defaults filled in. InvalidInput, naming every parameter that does not fit."""
        defaults = {name: schema["default"] for name, schema in self.properties.items() if "default" in schema}
        found = {**defaults, **given}
        problems = schema_problems(self.parameter_schema, found)
        if problems:
            raise InvalidInput(f"runbook {self.name}: {'; '.join(problems)}", problems=problems)
        return found


def schema_problems(schema: Mapping[str, object], value: object) -> list[str]:
    """How `value` does not fit `schema`: one sentence each, none when it fits."""
    found = Draft202012Validator(schema).iter_errors(cast("JsonValue", value))  # pyright: ignore[reportUnknownMemberType] partial types
    return sorted(
        f"{'.'.join(str(part) for part in problem.absolute_path) or 'parameters'}: {problem.message}"
        for problem in found
    )
