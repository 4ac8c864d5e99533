"""One operation: a runbook with parameters, from its plan to its verification or its roll-back.

Each change is an effect of the ledger, so a crash between two steps repeats neither. The graph around it decides the
order; the executors do the work.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from orchestrator.core.canonical import canonical_json
from orchestrator.core.errors import ApprovalLapsed, InvalidInput, KeyturnError, RolledBack, StepFailed, ToolMissing
from orchestrator.core.model import Action
from orchestrator.sdk import templates
from orchestrator.sdk.effects import Happened, Unknown, effect
from orchestrator.sdk.executors import Context, Result, Secrets, execute, rehearse, secret_texts, sql, terraform
from orchestrator.sdk.runbook import Probe, Runbook, Step
from orchestrator.sdk.runbook_rules import fact_paths
from orchestrator.sdk.runbooks import LoadedRunbook, find_runbook
from orchestrator.sdk.runtime import host, idempotency_key

_LONGEST_TEXT = 2000
# What a step may end with that the operation can answer with a roll-back; a lost lease or a wrong digest is not that.
_STEP_ERRORS = (StepFailed, InvalidInput, ToolMissing)


@dataclass(frozen=True, slots=True)
class Approved:
    """The decision an operation runs under, and the action it was found to be right before."""

    decision: Mapping[str, object] | None
    action: Action | None


class _NotAsExpectedError(StepFailed):
    """The step ran, and its result is not what the runbook expects."""


def data_dir() -> Path:
    """Where Keyturn keeps files on this machine: KEYTURN_DATA_DIR, else `.keyturn` in the working directory."""
    return Path(os.environ.get("KEYTURN_DATA_DIR") or ".keyturn").expanduser().resolve()


@dataclass(frozen=True, slots=True)
class Operation:
    """A runbook as it is on disk now, its parameters with defaults, and what its plan found (empty before)."""

    loaded: LoadedRunbook
    parameters: Mapping[str, object]
    planned: Mapping[str, object]

    @classmethod
    def of(cls, name: str, given: Mapping[str, object], planned: Mapping[str, object] | None = None) -> Operation:
        """Raises NotFound for an unknown runbook, InvalidInput for parameters that do not fit, InvalidDocument."""
        loaded = find_runbook(name)
        return cls(loaded, loaded.runbook.arguments(given), planned or {})

    @property
    def runbook(self) -> Runbook:
        """What it runs."""
        return self.loaded.runbook

    @property
    def facts(self) -> Mapping[str, object]:
        """What the plan found, by name."""
        return cast("Mapping[str, object]", self.planned.get("facts", {}))

    async def plan(self) -> dict[str, object]:
        """Look, without changing anything: `facts` by name, and `plans`, the digests of Terraform's plan files.

        Whether every later step could be filled with its values is checked as well, so that a value which must not
        be used is refused here and not after somebody approved it. Raises StepFailed, InvalidInput, ToolMissing.
        """
        facts: dict[str, object] = {}
        plans: dict[str, object] = {}
        operation = Operation(self.loaded, self.parameters, {"facts": facts})
        for step in self.runbook.plan:
            result = await operation.look("plan", step.name, step)
            facts.update({name: pick(result, path) for name, path in fact_paths(step).items()})
            if step.terraform_plan:
                plans[step.name] = result["digest"]
        for step in (*self.runbook.apply, *self.runbook.verify, *self.runbook.rollback):
            if not step.terraform_apply:
                rehearse(step.call, operation.values())
        return {"facts": facts, "plans": plans}

    def action(self) -> Action:
        """What is asked for and what its digest binds: the runbook's version, the parameters and the plan's facts."""
        book = self.runbook
        values = self._known()
        return Action(
            operation=templates.text(book.operation, values),
            environment=templates.text(book.environment, values),
            target=templates.text(book.target, values),
            resource_type=templates.text(book.resource_type, values),
            arguments=dict(self.parameters),
            estimated_cost=_cost(templates.fill(book.estimated_cost, values)),
            security_findings=[
                cast("dict[str, object]", templates.fill(finding, values)) for finding in book.security_findings
            ],
            metadata={
                **cast("dict[str, object]", templates.fill(book.metadata, values)),
                **self.facts,
                "runbook": book.name,
                "runbook_digest": self.loaded.digest,
                "steps": [step.summary() for step in book.apply],
            },
        )

    def description(self) -> str:
        """The runbook's sentence, filled."""
        return templates.text(self.runbook.description, self._known())

    def present_action(self) -> Action:
        """The action from what would run now; the plan files are read and hashed again.

        Raises DigestMismatch when a plan file is not the one that was planned, StepFailed when it is gone.
        """
        for name, digest in cast("Mapping[str, str]", self.planned.get("plans", {})).items():
            terraform.read_plan(self._context(name, "", self.runbook.plan[0]), digest)
        return self.action()

    async def apply(self, under: Approved) -> dict[str, object]:
        """Run the steps: what each resulted in as `steps`; `failure` is the one that failed, if there is a roll-back.

        Without a roll-back a failure is raised: the workflow fails there, and a retry goes on from that step. Each step
        begins only while the approval is good; one that comes too late behind others counts as failed.
        """
        done: list[object] = []
        for index, step in enumerate(self.runbook.apply):
            try:
                result = await self._change("apply", index, step, under)
            except (*_STEP_ERRORS, ApprovalLapsed) as error:
                if not self.runbook.rollback or (isinstance(error, ApprovalLapsed) and not done):
                    raise
                return {"steps": done, "failure": _failure(step, error)}
            done.append({"step": step.name, "result": _brief(result)})
        return {"steps": done, "failure": None}

    async def verify(self) -> dict[str, object]:
        """Check: the names of the `checks` that passed; `failure` is the first that did not, if there is a roll-back.

        Without a roll-back a failure is raised, and a retry checks again.
        """
        passed: list[object] = []
        for step in self.runbook.verify:
            try:
                await self.look("verify", step.name, step)
            except _STEP_ERRORS as error:
                if not self.runbook.rollback:
                    raise
                return {"checks": passed, "failure": _failure(step, error)}
            passed.append(step.name)
        return {"checks": passed, "failure": None}

    async def roll_back(self) -> dict[str, object]:
        """Undo, by the runbook's own steps. StepFailed when that fails; a retry goes on with it."""
        done: list[object] = []
        for index, step in enumerate(self.runbook.rollback):
            try:
                result = await self._change("rollback", index, step)
            except _STEP_ERRORS as error:
                raise StepFailed(
                    f"the roll-back failed and may be incomplete: {error.detail}", **error.facts
                ) from error
            done.append({"step": step.name, "result": _brief(result)})
        return {"steps": done}

    async def look(self, section: str, name: str, probe: Probe) -> Result:
        """Run a call that only reads, as often as its `retry` says, until its result is as expected."""
        attempts = probe.retry.attempts if probe.retry else 1
        for attempt in range(attempts):
            try:
                return await execute(probe.call, self._context(name, "", probe))
            except StepFailed as error:
                if attempt + 1 == attempts or probe.retry is None:
                    raise _placed(section, name, error) from error
                await asyncio.sleep(probe.retry.every.total_seconds())
        raise AssertionError

    async def _change(self, section: str, index: int, step: Step, under: Approved | None = None) -> Result:
        """Run one step as an effect of its own, at most once as far as its target lets anybody know."""
        name = f"{section}:{index}"
        context = self._context(step.name, idempotency_key(name), step)

        async def run() -> object:
            try:
                if step.terraform_apply:
                    planned, digest = self._plan_of(step.terraform_apply.plan)
                    return await terraform.apply(planned, digest, context)
                return await execute(step.call, context)
            except StepFailed as error:
                raise _placed(section, step.name, error) from error

        bound = under or Approved(None, None)
        async with effect(
            name, verify=lambda: self._happened(step, context), approval=bound.decision, action=bound.action
        ) as entry:
            return cast("Result", await entry.once(run) or {})

    async def _happened(self, step: Step, context: Context) -> Happened | Unknown | None:
        """Whether a step that a crash cut short happened: what its target says, or that nobody can tell."""
        try:
            if step.sql and not step.sql.autocommit:
                found = await sql.applied(step.sql, context)
                return None if found is None else Happened(found)
            if step.verified_by:
                return Happened({"verified": await self.look("verified_by of", step.name, step.verified_by)})
            if step.terraform_apply:
                return await self._terraform_happened(step.terraform_apply.plan)
        except _NotAsExpectedError:
            return None
        except (StepFailed, ToolMissing):
            return Unknown()
        return None if step.idempotent else Unknown()

    async def _terraform_happened(self, plan: str) -> Happened | None:
        """With nothing left to change, the plan was applied.

        Else it is applied again, which Terraform itself refuses when the state has moved on since.
        """
        planned, digest = self._plan_of(plan)
        step = next(step for step in self.runbook.plan if step.name == plan)
        again = await terraform.plan(planned, self._context(plan, "", step))
        left = sum(cast("int", again[count]) for count in ("additions", "changes", "deletions"))
        return None if left else Happened({"digest": digest, "verified": "nothing is left to change"})

    def _plan_of(self, name: str) -> tuple[terraform.TerraformPlan, str]:
        step = next(step for step in self.runbook.plan if step.name == name)
        digest = cast("Mapping[str, str]", self.planned.get("plans", {})).get(name)
        if step.terraform_plan is None or digest is None:
            raise StepFailed(f"there is no plan {name} to apply")
        return step.terraform_plan, digest

    def _known(self) -> dict[str, object]:
        return {**self.parameters, **{f"plan.{name}": value for name, value in self.facts.items()}}

    def values(self) -> dict[str, object]:
        """What templates of steps may name."""
        built_in = {
            "keyturn.data_dir": str(data_dir()),
            "keyturn.python": sys.executable,
            "keyturn.runbooks": str(self.loaded.folder),
            "keyturn.workflow_id": host().workflow_id,
        }
        return self._known() | built_in

    def _context(self, name: str, key: str, probe: Probe) -> Context:
        values = self.values()
        return Context(
            step=name,
            workflow_id=host().workflow_id,
            key=key,
            values=values,
            folder=self.loaded.folder,
            data_dir=data_dir(),
            seconds=(probe.timeout or self.runbook.timeout).total_seconds(),
            secrets=Secrets(secret_texts(dict(self.parameters))),
            check=_expecting(probe, values),
        )


def pick(result: object, path: str) -> object:
    """The value at a dotted path (`records.0.rows`) of a result. StepFailed when there is none."""
    found = result
    for part in path.split("."):
        if isinstance(found, Mapping) and part in found:
            found = cast("Mapping[str, object]", found)[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(cast("list[object]", found)):
            found = cast("list[object]", found)[int(part)]
        else:
            raise StepFailed(f"its result has no {path}")
    return found


def rolled_back(failure: Mapping[str, object], undone: Mapping[str, object]) -> RolledBack:
    """The error of an operation whose roll-back has run: what failed, and the names of the steps that undid it."""
    steps = [str(step["step"]) for step in cast("Sequence[Mapping[str, object]]", undone.get("steps", []))]
    detail = (
        f"{failure['reason']}; rolled back by {', '.join(steps)}. The operation did not take place: submit it again."
    )
    return RolledBack(detail, failure=dict(failure), rolled_back=steps)


def _expecting(probe: Probe, values: Mapping[str, object]) -> Callable[[Mapping[str, object]], None]:
    def check(result: Mapping[str, object]) -> None:
        for path, template in probe.expect.items():
            wanted = templates.fill(template, values)
            found = pick(result, path)
            if canonical_json(found) != canonical_json(wanted):
                raise _NotAsExpectedError(f"{path} is {found!r}, expected {wanted!r}")

    return check


def _placed(section: str, name: str, error: StepFailed) -> StepFailed:
    return type(error)(f"{section} step {name}: {error.detail}", step=name)


def _failure(step: Step, error: KeyturnError) -> dict[str, object]:
    return {"step": step.name, "code": error.code, "reason": error.detail}


def _cost(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"the runbook's estimated_cost is {value!r}; allowed: a number")
    return float(value)


def _brief(value: object) -> object:
    """A result for the workflow's state: long texts cut to their end. The ledger keeps the whole."""
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"… {value[-_LONGEST_TEXT:]}"
    if isinstance(value, Mapping):
        return {key: _brief(item) for key, item in cast("Mapping[str, object]", value).items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_brief(item) for item in cast("Sequence[object]", value)]
    return value
