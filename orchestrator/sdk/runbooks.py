"""Finding and loading runbooks: one YAML file each in `config/runbooks`, checked whole, with a version of its own.

The schema of an operation's input is made here as well, from all of them. Running a runbook is `operations`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.documents import parse
from orchestrator.core.errors import InvalidDocument, NotFound
from orchestrator.sdk.runbook import Runbook
from orchestrator.sdk.runbook_rules import mistakes
from orchestrator.settings import find_config


@dataclass(frozen=True, slots=True)
class LoadedRunbook:
    """A runbook with its version: the SHA-256, hex, of its file and of the files it runs. `folder` is where it lies."""

    runbook: Runbook
    digest: str
    folder: Path


def runbooks_folder() -> Path:
    """Where the runbooks are: of KEYTURN_CONFIG_DIR if that is set, else of the project around, else those shipped."""
    given = os.environ.get("KEYTURN_CONFIG_DIR")
    return (Path(given).expanduser().resolve() if given else find_config(Path.cwd())) / "runbooks"


def load_runbook(path: Path) -> LoadedRunbook:
    """One runbook. Raises InvalidDocument with every mistake, each with file, line and path."""
    text = path.read_text(encoding="utf-8")
    document = parse(text, str(path))
    runbook = document.validate(Runbook)
    found = [document.problem(where, what) for where, what in mistakes(runbook)]
    if runbook.name != path.stem:
        found.append(document.problem(("name",), f"{runbook.name!r} is not the name of the file; write {path.stem}"))
    contents = [hashlib.sha256(text.encode()).hexdigest()]
    for index, name in enumerate(runbook.files):
        try:
            contents.append(hashlib.sha256((path.parent / name).read_bytes()).hexdigest())
        except OSError as error:
            found.append(document.problem(("files", index), f"cannot read {name}: {error.strerror}"))
    if found:
        raise InvalidDocument(tuple(found))
    return LoadedRunbook(runbook, hashlib.sha256("\n".join(contents).encode()).hexdigest(), path.parent)


def load_runbooks(folder: Path | None = None) -> dict[str, LoadedRunbook]:
    """Every runbook of `folder` by name. Raises InvalidDocument with the mistakes of all files, or if there is none."""
    where = folder or runbooks_folder()
    loaded: dict[str, LoadedRunbook] = {}
    problems: list[str] = []
    for path in sorted(where.glob("*.yaml")):
        try:
            loaded[path.stem] = load_runbook(path)
        except InvalidDocument as error:
            problems.extend(error.problems)
    if problems:
        raise InvalidDocument(tuple(problems))
    if not loaded:
        raise InvalidDocument((f"{where}: there is no runbook here; write one as <name>.yaml",))
    return loaded


def find_runbook(name: str) -> LoadedRunbook:
    """The runbook as it is on disk now. NotFound names those there are."""
    folder = runbooks_folder()
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise NotFound(f"there is no runbook {name!r}; there are: {', '.join(known) or 'none'}", runbooks=known)
    return load_runbook(folder / f"{name}.yaml")


def input_schema(runbooks: Mapping[str, LoadedRunbook]) -> dict[str, object]:
    """The JSON Schema of `{"runbook": …, "parameters": {…}}`: a known name, and parameters that fit that runbook."""
    cases: list[object] = []
    for name, loaded in runbooks.items():
        # Its own address, so that a `$ref` within it still points into it.
        schema = {"$id": f"urn:keyturn:runbook:{name}", **loaded.runbook.parameter_schema}
        then: dict[str, object] = {"properties": {"parameters": schema}}
        if schema.get("required"):
            then["required"] = ["parameters"]
        cases.append({"if": {"properties": {"runbook": {"const": name}}, "required": ["runbook"]}, "then": then})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["runbook"],
        "additionalProperties": False,
        "properties": {
            "runbook": {"enum": sorted(runbooks), "description": "The name of a runbook"},
            "parameters": {"type": "object", "description": "The runbook's parameters"},
        },
        "allOf": cases,
    }
