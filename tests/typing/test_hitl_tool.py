"""What a type checker sees of a governed tool: its own parameters and its own result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = '''
from typing import assert_type

from langchain_core.tools import BaseTool

from orchestrator.sdk import hitl_tool


@hitl_tool("pay", "high", auto_threshold=90, quick_threshold=50, cost="amount")
async def pay(to: str, amount: float, *, note: str = "") -> dict[str, int]:
    """Pay."""
    return {"paid": int(amount)}


def how_sure(to: str) -> float:
    return float(len(to))


@hitl_tool("greet", confidence=how_sure)
async def greet(to: str) -> str:
    """Greet."""
    return to


async def use() -> None:
    assert_type(await pay("ann", 1.5, note="for tea"), dict[str, int])
    assert_type(await greet(to="ann"), str)
    assert_type(pay.as_tool(), BaseTool)
'''


def errors_of(folder: Path, text: str) -> list[tuple[int, str]]:
    """The line and the rule of every error that the checker finds in `text`."""
    (folder / "snippet.py").write_text(text)
    settings: dict[str, Any] = {
        "extraPaths": [str(REPOSITORY)], "venvPath": str(REPOSITORY), "venv": ".venv", "pythonVersion": "3.11",
        "typeCheckingMode": "strict", "reportMissingTypeStubs": False,
    }  # fmt: skip
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "-p", str(folder / "pyrightconfig.json")]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=110)
    errors = [one for one in json.loads(found.stdout)["generalDiagnostics"] if one["severity"] == "error"]
    return [(one["range"]["start"]["line"], one["rule"]) for one in errors]


@pytest.mark.timeout(115)
def test_a_governed_tool_keeps_its_parameters_and_its_result(tmp_path: Path) -> None:
    wrong = ('    await pay("ann")', '    await pay("ann", "ten")', "    await pay(to=1, amount=1, note=None)",
             '    await pay("ann", 1.0, "note")', "    number: int = await greet('ann')")  # fmt: skip
    found = errors_of(tmp_path, "\n".join((TOOL.rstrip(), *wrong, "    del number", "")))
    first = TOOL.rstrip().count("\n") + 1
    assert {line for line, _ in found} == {first + place for place in range(len(wrong))}, found
    assert {rule for _, rule in found} <= {"reportCallIssue", "reportArgumentType", "reportAssignmentType"}
