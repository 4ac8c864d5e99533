"""Reading a `langgraph.json` and importing what it names, the way LangGraph's own tools do.

Importing runs the application's code; it happens in workers only.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, cast

from dotenv import dotenv_values

from orchestrator.core.errors import GraphFault

AgUi = Literal["1.0", "legacy"] | None
# A graph of this name could never be run at `/ag-ui/{graph}`.
_TAKEN = "respond"


@dataclass(frozen=True, slots=True)
class AppFile:
    """A `langgraph.json`: graph names, the `path:attribute` each is found at, the nodes whose text clients see, and
    which AG-UI its clients speak where the file says so.
    """

    file: Path
    graphs: Mapping[str, str]
    text_nodes: Mapping[str, frozenset[str]]
    ag_ui: Mapping[str, AgUi]

    def load(self, name: str) -> tuple[object, str]:
        """The object the file names for a graph, and the source text of the module it comes from."""
        place = self.graphs[name]
        module_name, _, attribute = place.rpartition(":")
        try:
            module = _module(self.file.parent, module_name)
            found: object = getattr(module, attribute)
        except Exception as error:
            detail = f"{self.file}: graphs.{name}: cannot load {place}: {type(error).__name__}: {error}"
            raise GraphFault(detail, graph=name) from error
        source = Path(module.__file__).read_text(encoding="utf-8") if module.__file__ else ""
        return found, source


def read_app(file: Path) -> AppFile:
    """Read the file, put its dependencies on the import path and its environment into ours.

    GraphFault names the file and what is wrong. Variables already set win over the file's.
    """
    try:
        content: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        detail = f"{file}: cannot be read as JSON: {error}"
        raise GraphFault(detail) from error
    body: Mapping[str, object] = cast("Mapping[str, object]", content) if isinstance(content, dict) else {}
    named = _mapping(file, body.get("graphs"))
    graphs = {name: _place(file, name, value) for name, value in named.items()}
    shown = {name: _text_nodes(file, name, value) for name, value in named.items()}
    spoken: dict[str, AgUi] = {name: _ag_ui(file, name, value) for name, value in named.items()}
    _environment(file, body.get("env"))
    for dependency in cast("list[object]", body.get("dependencies") or ["."]):
        folder = (file.parent / str(dependency)).resolve()
        if str(dependency).startswith(".") and folder.is_dir() and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    return AppFile(file, graphs, shown, spoken)


def _mapping(file: Path, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict) or not value:
        detail = f'{file}: `graphs` must name at least one graph, like {{"agent": "./agent.py:graph"}}'
        raise GraphFault(detail)
    return cast("Mapping[str, object]", value)


def _place(file: Path, name: str, value: object) -> str:
    if name == _TAKEN:
        detail = f"{file}: graphs.{name}: /ag-ui/{name} is where AG-UI's clients answer; give the graph another name"
        raise GraphFault(detail, graph=name)
    place = cast("Mapping[str, object]", value).get("path") if isinstance(value, dict) else value
    if not isinstance(place, str) or not all(place.rpartition(":")):
        detail = f"{file}: graphs.{name}: write `path/to/file.py:attribute`, not {value!r}"
        raise GraphFault(detail, graph=name)
    return place


def _text_nodes(file: Path, name: str, value: object) -> frozenset[str]:
    given = cast("Mapping[str, object]", value).get("text_nodes") if isinstance(value, dict) else None
    nodes = cast("list[object]", given) if isinstance(given, list) else [given] if given is not None else []
    if not all(isinstance(node, str) for node in nodes):
        detail = f'{file}: graphs.{name}.text_nodes: write the names of nodes, like ["respond"], not {given!r}'
        raise GraphFault(detail, graph=name)
    return frozenset(str(node) for node in nodes)


def _ag_ui(file: Path, name: str, value: object) -> AgUi:
    given = cast("Mapping[str, object]", value).get("ag_ui") if isinstance(value, dict) else None
    if given in ("1.0", "legacy", None):
        return given
    detail = f'{file}: graphs.{name}.ag_ui: write "1.0" or "legacy", not {given!r}'
    raise GraphFault(detail, graph=name)


def _environment(file: Path, value: object) -> None:
    if isinstance(value, str):
        named = file.parent / value
        if not named.is_file():
            detail = f"{file}: `env` names {value}, which is not there"
            raise GraphFault(detail)
        pairs: Mapping[str, object] = dotenv_values(named)
    else:
        pairs = cast("Mapping[str, object]", value or {})
    for key, content in pairs.items():
        if content is not None:
            os.environ.setdefault(key, str(content))


def _module(folder: Path, name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = (folder / name).resolve()
    if not path.is_file():
        message = f"there is no file {path}"
        raise FileNotFoundError(message)
    # A file inside a package is imported under its full name, so that its relative imports work.
    parts, root = [path.stem], path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if len(parts) > 1:
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
        return importlib.import_module(".".join(parts))
    unique = f"keyturn_app_{path.stem}_{abs(hash(path)):x}"
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None:
        message = f"{path} is not a Python file"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    spec.loader.exec_module(module)
    return module
