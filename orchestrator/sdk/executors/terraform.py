"""The `terraform_plan` and `terraform_apply` steps: exactly the plan file that was looked at is applied, by its digest.

A plan is kept under its own SHA-256 in the workflow's folder, so planning again never replaces one that somebody has
approved. Terraform's own folder (providers, modules) is kept beside it, never in the module.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast

from pydantic import Field, JsonValue

from orchestrator.core.documents import DocumentModel
from orchestrator.core.errors import DigestMismatch, StepFailed, ToolMissing
from orchestrator.sdk import templates
from orchestrator.sdk.executors import processes
from orchestrator.sdk.executors.command import VariableName, folder
from orchestrator.sdk.executors.context import Context, Result

PLAN_FACTS = {"additions": "additions", "changes": "changes", "deletions": "deletions", "plan_digest": "digest"}
_QUIET = {"TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}
_OUTPUT_BYTES = 16 * 1024 * 1024
_RESOURCES_SHOWN = 100
# Terraform saves its state when it is asked to end; give it time for that.
_GRACE_SECONDS = 15.0
_LOCK_WAIT = "-lock-timeout=60s"
_MISSING = (
    "terraform is not installed on this machine (there is no `terraform` in the PATH of the worker). "
    "Install it from https://developer.hashicorp.com/terraform/install, or run a worker where it is."
)


class TerraformPlan(DocumentModel):
    """Plan the module in `directory`.

    `variables` are its input variables, `backend` the settings its backend block leaves open, `environment` the
    worker's variables that Terraform needs. The result is `additions`, `changes`, `deletions` (a replacement is one
    of each), `digest` of the plan file, and the `resources` concerned.
    """

    directory: str
    variables: dict[VariableName, JsonValue] = Field(default_factory=dict[str, JsonValue])
    backend: dict[VariableName, str] = Field(default_factory=dict[str, str])
    environment: tuple[VariableName, ...] = ()

    def summary(self) -> str:
        """For the approver."""
        return f"terraform plan of {self.directory}"


class TerraformApply(DocumentModel):
    """Apply the plan file that the plan step named `plan` made, and nothing else."""

    plan: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]

    def summary(self) -> str:
        """For the approver."""
        return f"terraform apply of exactly the plan file of step {self.plan}"


async def plan(spec: TerraformPlan, context: Context) -> Result:
    """Plan, keep the plan file, and say what it would do. Raises StepFailed, ToolMissing."""
    call = await _prepare(spec, context)
    with tempfile.TemporaryDirectory(dir=call.home) as scratch, _variable_file(spec, context, Path(scratch)) as extra:
        made = Path(scratch) / "plan"
        await call.terraform("plan", "-input=false", "-no-color", _LOCK_WAIT, f"-out={made}", *extra)
        shown = await call.terraform("show", "-json", "-no-color", str(made))
        found = hashlib.sha256(made.read_bytes()).hexdigest()
        made.replace(plan_file(context, found))
    result: Result = {**_summary(shown), "digest": found}
    context.check(result)
    return context.secrets.clean(result)


async def apply(spec: TerraformPlan, approved: str, context: Context) -> Result:
    """Apply the plan file with the digest `approved`.

    Raises DigestMismatch, with nothing applied, when the file is not what was approved; StepFailed when it is not on
    this machine or Terraform refuses it (it does when the state has moved on since); ToolMissing.
    """
    call = await _prepare(spec, context)
    content = read_plan(context, approved)
    with tempfile.TemporaryDirectory(dir=call.home) as scratch:
        # A copy of what was hashed: the file cannot change between the look at it and Terraform's.
        copy = Path(scratch) / "plan"
        copy.write_bytes(content)
        said = await call.terraform("apply", "-input=false", "-no-color", _LOCK_WAIT, str(copy))
    counts = re.search(r"(\d+) added, (\d+) changed, (\d+) destroyed", said)
    done = [int(count) for count in counts.groups()] if counts else [0, 0, 0]
    result: Result = {**dict(zip(("added", "changed", "destroyed"), done, strict=True)), "digest": approved}
    context.check(result)
    return context.secrets.clean(result)


def plan_file(context: Context, digest: str) -> Path:
    """Where the plan with this digest is kept."""
    return _home(context) / f"{digest}.tfplan"


def read_plan(context: Context, approved: str) -> bytes:
    """The kept plan file, whole. Raises DigestMismatch when it is not the one approved, StepFailed when it is gone."""
    try:
        content = plan_file(context, approved).read_bytes()
    except FileNotFoundError:
        raise StepFailed(
            f"the approved plan file {approved[:12]}… is not on this machine; let workers share KEYTURN_DATA_DIR"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != approved:
        raise DigestMismatch(
            f"the plan file is not the one that was approved ({found[:12]}…, approved {approved[:12]}…); nothing ran",
            approved=approved, found=found,
        )  # fmt: skip
    return content


class _Call:
    """Terraform in one module, with the environment and the folder of one workflow."""

    def __init__(self, program: str, directory: Path, home: Path, spec: TerraformPlan, context: Context) -> None:
        self.home = home
        self._program = program
        self._directory = directory
        self._context = context
        # A module has its own providers: two modules of one workflow must not share Terraform's folder.
        settings = json.dumps([str(directory), spec.backend], sort_keys=True)
        self.terraform_folder = home / f"terraform-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
        added = _QUIET | {"TF_DATA_DIR": str(self.terraform_folder)}
        if context.key:
            added["KEYTURN_IDEMPOTENCY_KEY"] = context.key
        self._variables = processes.environment(("TF_PLUGIN_CACHE_DIR", *spec.environment), added)

    async def terraform(self, *arguments: str) -> str:
        """What Terraform printed. StepFailed with its own words when it refuses."""
        ended = await processes.run(
            [self._program, *arguments],
            directory=self._directory,
            variables=self._variables,
            seconds=self._context.seconds,
            limit=_OUTPUT_BYTES,
            grace=_GRACE_SECONDS,
        )
        if ended.exit_code:
            words = self._context.secrets.hide(" ".join((ended.stderr or ended.stdout).split()))[:1000]
            raise StepFailed(f"terraform {arguments[0]} failed: {words}")
        return ended.stdout


async def _prepare(spec: TerraformPlan, context: Context) -> _Call:
    """Terraform, initialised for the module if it is not yet."""
    program = shutil.which("terraform")
    if program is None:
        raise ToolMissing(_MISSING, tool="terraform")
    directory = folder(spec.directory, context.values)
    if not any(directory.glob("*.tf")) and not any(directory.glob("*.tf.json")):
        raise StepFailed(f"{directory} is no Terraform module: there is no .tf file in it")
    home = _home(context)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)  # a plan file may hold secrets
    call = _Call(program, directory, home, spec, context)
    ready = call.terraform_folder / "keyturn-ready"
    if not ready.exists():
        backend = [
            f"-backend-config={key}={templates.text(value, context.values)}" for key, value in spec.backend.items()
        ]
        await call.terraform("init", "-input=false", "-no-color", *backend)
        ready.parent.mkdir(parents=True, exist_ok=True)
        ready.touch()
    return call


def _home(context: Context) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", context.workflow_id) or not context.workflow_id.strip("."):
        raise StepFailed(f"{context.workflow_id!r} cannot name a folder for plan files")
    return context.data_dir / "plans" / context.workflow_id


@contextmanager
def _variable_file(spec: TerraformPlan, context: Context, scratch: Path) -> Generator[Sequence[str]]:
    """The arguments that name a file of variables: as JSON, a value stays a value. It is gone afterwards."""
    path = scratch / "keyturn.tfvars.json"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(templates.fill(spec.variables, context.values), file)
    try:
        yield [f"-var-file={path}"]
    finally:
        path.unlink(missing_ok=True)


def _summary(shown: str) -> Result:
    try:
        document = cast("Mapping[str, object]", json.loads(shown))
    except ValueError as error:
        raise StepFailed(f"terraform show did not print JSON: {error}") from error
    counts: Counter[str] = Counter()
    resources: list[object] = []
    for resource in cast("Sequence[Mapping[str, object]]", document.get("resource_changes", [])):
        actions = cast("Sequence[str]", cast("Mapping[str, object]", resource["change"])["actions"])
        counts.update(actions)
        if not {"no-op", "read"} & set(actions):
            resources.append({"address": resource["address"], "actions": list(actions)})
    return {
        "additions": counts["create"],
        "changes": counts["update"],
        "deletions": counts["delete"],
        "resources": resources[:_RESOURCES_SHOWN],
    }
