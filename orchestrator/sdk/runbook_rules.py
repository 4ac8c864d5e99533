"""What a runbook must keep to beyond its fields' shape: names that exist, values that stay values, reads that read.

Every rule yields the path of what is wrong and a sentence; nothing is read, run or raised here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from orchestrator.sdk import templates
from orchestrator.sdk.executors import Command
from orchestrator.sdk.executors.http import SAFE_METHODS
from orchestrator.sdk.executors.sql import TRANSACTION_WORDS
from orchestrator.sdk.executors.terraform import PLAN_FACTS
from orchestrator.sdk.runbook import BUILT_IN, FactName, Probe, Runbook, Step, schema_problems

Path: TypeAlias = tuple[str | int, ...]
Mistake: TypeAlias = tuple[Path, str]

RESERVED_FACTS = ("runbook", "runbook_digest", "steps")
_ACTION_TEXTS = ("description", "operation", "environment", "target", "resource_type", "estimated_cost", "metadata",
                 "security_findings")  # fmt: skip
_FILTERS = ("identifier", "equals")
_SECTIONS = ("plan", "apply", "verify", "rollback")


def mistakes(runbook: Runbook) -> Iterator[Mistake]:
    """Everything that is wrong with the runbook."""
    yield from _parameter_mistakes(runbook)
    yield from _fact_mistakes(runbook)
    facts = {f"plan.{name}" for step in runbook.plan for name in fact_paths(step)}
    parameters = set(runbook.properties)
    for field in _ACTION_TEXTS:
        for path, text in templates.texts(getattr(runbook, field), (field,)):
            yield from _names(text, path, parameters | facts)
    known: set[str] = set()
    for section in _SECTIONS:
        for index, step in enumerate(cast("Sequence[Step]", getattr(runbook, section))):
            names = parameters | set(BUILT_IN) | (known if section == "plan" else facts)
            yield from _step_mistakes(runbook, section, step, (section, index), names)
            known |= {f"plan.{name}" for name in fact_paths(step)}
        yield from _repeated_steps(section, getattr(runbook, section))


def fact_paths(step: Step) -> Mapping[FactName, str]:
    """The facts a step of the plan gives: those it names, and of a Terraform plan its counts and its digest."""
    return {**(PLAN_FACTS if step.terraform_plan else {}), **step.facts}


def _parameter_mistakes(runbook: Runbook) -> Iterator[Mistake]:
    where: Path = ("parameters",)
    try:
        Draft202012Validator.check_schema(runbook.parameters)
    except SchemaError as error:
        yield (*where, *error.absolute_path), f"is no JSON Schema: {error.message}"
        return
    if runbook.parameters.get("type") != "object":
        yield where, "must describe a mapping; write `type: object` and `properties`"
        return
    required = cast("Sequence[str]", runbook.parameters.get("required", []))
    for name in sorted(set(required) - set(runbook.properties)):
        yield (*where, "required"), f"{name} is required and not described in `properties`"
    for name, schema in runbook.properties.items():
        here = (*where, "properties", name)
        if not name.isidentifier():
            yield here, "is no name for a parameter; allowed: letters, digits and _"
        if "default" in schema:
            for problem in schema_problems(schema, schema["default"]):
                yield (*here, "default"), f"does not fit its own schema: {problem.removeprefix('parameters: ')}"
        elif name not in required:
            yield here, "is neither required nor has a default, so it might have no value"


def _fact_mistakes(runbook: Runbook) -> Iterator[Mistake]:
    seen = set(RESERVED_FACTS) | set(runbook.metadata)
    for index, step in enumerate(runbook.plan):
        for name in fact_paths(step):
            if name in seen:
                yield ("plan", index, "facts", name), f"the fact {name} is given twice, or its name is reserved"
            seen.add(name)


def _repeated_steps(section: str, steps: Sequence[Step]) -> Iterator[Mistake]:
    seen: set[str] = set()
    for index, step in enumerate(steps):
        if step.name in seen:
            yield (section, index, "name"), f"there are two steps {step.name} in `{section}`"
        seen.add(step.name)


def _names(text: str, path: Path, known: set[str]) -> Iterator[Mistake]:
    """Templates that are malformed, or name something that does not exist."""
    try:
        pieces = templates.read(text)
    except ValueError as error:
        yield path, str(error)
        return
    for piece in pieces:
        if not isinstance(piece, templates.Slot):
            continue
        in_header = piece.source == "env" and "headers" in path
        if piece.name not in known and not in_header:
            yield path, f"${{{piece.name}}} is not defined here; allowed: {', '.join(sorted(known)) or 'none'}"
        if piece.filter and "statements" not in path:
            yield path, f"!{piece.filter} is for SQL statements only"


def _step_mistakes(runbook: Runbook, section: str, step: Step, path: Path, known: set[str]) -> Iterator[Mistake]:
    yield from _probe_mistakes(runbook, step, path, known)
    reads = section in {"plan", "verify"}
    if reads:
        yield from _read_mistakes(step, path)
        if step.terraform_apply or step.idempotent or step.verified_by:
            yield path, f"`{section}` only looks; terraform_apply, idempotent and verified_by belong to what changes"
    else:
        yield from _change_mistakes(runbook, step, path)
    if step.facts and section != "plan":
        yield (*path, "facts"), "only steps of the plan give facts"
    if step.verified_by:
        here = (*path, "verified_by")
        yield from _probe_mistakes(runbook, step.verified_by, here, known)
        yield from _read_mistakes(step.verified_by, here)
        if not step.verified_by.expect:
            yield here, "needs `expect`: what is true once the step has happened"


def _read_mistakes(probe: Probe, path: Path) -> Iterator[Mistake]:
    if probe.sql and probe.sql.autocommit:
        yield (*path, "sql", "autocommit"), "is for steps that change something; here everything runs read-only"
    if probe.http and probe.http.method not in SAFE_METHODS:
        yield (*path, "http", "method"), f"{probe.http.method} changes something; allowed here: GET, HEAD"


def _change_mistakes(runbook: Runbook, step: Step, path: Path) -> Iterator[Mistake]:
    if step.terraform_plan:
        yield (*path, "terraform_plan"), "belongs to `plan` or `verify`; to change something use terraform_apply"
    if step.retry:
        yield (*path, "retry"), "would repeat a change; allowed in `plan`, `verify` and `verified_by`"
    if step.terraform_apply:
        planned = [other.name for other in runbook.plan if other.terraform_plan]
        if step.terraform_apply.plan not in planned:
            allowed = ", ".join(planned) or "none"
            yield (*path, "terraform_apply", "plan"), f"names no terraform_plan step of `plan`; there are: {allowed}"


def _probe_mistakes(runbook: Runbook, probe: Probe, path: Path, known: set[str]) -> Iterator[Mistake]:
    content = probe.model_dump(include={"sql", "command", "http", "terraform_plan", "expect"}, exclude_none=True,
                               by_alias=True)  # fmt: skip
    wrong = False
    for where, text in templates.texts(content, path):
        for mistake in _names(text, where, known):
            wrong = True
            yield mistake
    if wrong:
        return  # the rules below read the templates
    if probe.sql:
        yield from _sql_mistakes(runbook, probe.sql.statements, (*path, "sql", "statements"))
    if probe.command:
        yield from _command_mistakes(runbook, probe.command, (*path, "command"))
    if probe.terraform_plan:
        yield from _folder_mistakes(runbook, probe.terraform_plan.directory, (*path, "terraform_plan", "directory"))


def _sql_mistakes(runbook: Runbook, statements: Sequence[str], path: Path) -> Iterator[Mistake]:
    for index, text in enumerate(statements):
        here = (*path, index)
        if TRANSACTION_WORDS.match(text):
            yield here, "transactions are opened and committed by Keyturn; leave such statements out"
        quotes = 0
        for piece in templates.read(text):
            if isinstance(piece, str):
                quotes += piece.count("'")
                continue
            if quotes % 2:
                yield here, f"${{{piece.name}}} stands within quotes; values are bound, so leave the quotes out"
            yield from _filter_mistakes(runbook, piece, here)


def _filter_mistakes(runbook: Runbook, slot: templates.Slot, path: Path) -> Iterator[Mistake]:
    if not slot.filter:
        return
    schema = runbook.properties.get(slot.name)
    if slot.filter not in _FILTERS:
        yield path, f"!{slot.filter} is not known; allowed: {', '.join(_FILTERS)}"
    elif schema is None:
        yield path, f"!{slot.filter} is for parameters, and {slot.name} is none"
    elif slot.filter == "identifier" and not _constrained(schema):
        yield path, f"{slot.name} becomes a name in SQL, so its schema needs a `pattern`, an `enum` or a `const`"
    elif slot.filter == "equals" and not _columns_constrained(schema):
        yield path, f"{slot.name} needs `type: object` and `propertyNames` with a `pattern` or an `enum`"


def _constrained(schema: Mapping[str, object]) -> bool:
    return any(key in schema for key in ("pattern", "enum", "const"))


def _columns_constrained(schema: Mapping[str, object]) -> bool:
    names = schema.get("propertyNames")
    return schema.get("type") == "object" and isinstance(names, Mapping) and _constrained(
        cast("Mapping[str, object]", names)
    )  # fmt: skip


def _command_mistakes(runbook: Runbook, command: Command, path: Path) -> Iterator[Mistake]:
    program = command.argv[0]
    slots = [piece for piece in templates.read(program) if isinstance(piece, templates.Slot)]
    if any(slot.source != "keyturn" for slot in slots):
        yield (*path, "argv", 0), "the program is fixed by the runbook; a value must not choose it"
    if program.lower().endswith((".bat", ".cmd")):
        yield (*path, "argv", 0), "a batch file runs in a shell; name a program"
    yield from _folder_mistakes(runbook, command.directory, (*path, "directory"))


def _folder_mistakes(runbook: Runbook, text: str, path: Path) -> Iterator[Mistake]:
    for piece in templates.read(text):
        if isinstance(piece, templates.Slot) and piece.source != "keyturn":
            schema = runbook.properties.get(piece.name)
            if schema is None or not _constrained(schema):
                yield path, f"{piece.name} becomes part of a path, so its schema needs a `pattern` or an `enum`"
