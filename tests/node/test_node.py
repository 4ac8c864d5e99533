"""The npm clients can be installed from the lock file and loaded by the Node that is here."""

from __future__ import annotations

import json
from pathlib import Path

from tests.node.node import FOLDER, run_script


async def test_the_npm_clients_load(node_modules: Path) -> None:
    found = await run_script("installed.mjs", {"KEYTURN_URL": "http://127.0.0.1:1"})
    assert int(found["node"].split(".")[0]) >= 18
    assert sorted(found["clients"]) == ["@ag-ui/client", "@langchain/langgraph-sdk"]
    for name, version in found["clients"].items():
        assert json.loads((node_modules / name / "package.json").read_text())["version"] == version


def test_the_lock_file_has_hashes_and_names_no_registry() -> None:
    packages = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    installed = {name: found for name, found in packages.items() if name}
    assert [name for name, found in installed.items() if "resolved" in found] == []
    assert [name for name, found in installed.items() if not found["integrity"].startswith("sha512-")] == []
