"""The wheel carries everything, and an installed Keyturn finds it from any folder."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

ASK = """
import json, orchestrator
from orchestrator.settings import load_settings
from orchestrator.store.migrate import read_migrations
found = load_settings()
print(json.dumps({
    "package": orchestrator.__file__, "config": str(found.config_dir), "migrations": str(found.migrations_dir),
    "app": str(found.app), "count": len(read_migrations(found.migrations_dir)),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY))
    (built,) = folder.glob("keyturn-*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--target", str(folder), str(wheel))
    return folder


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", *arguments]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1"})


def test_the_wheel_carries_code_graphs_migrations_and_config(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in [*(REPOSITORY / "migrations").glob("*.sql"), *(REPOSITORY / "config").rglob("*.yaml")]:
        assert f"orchestrator/_packaged/{path.relative_to(REPOSITORY).as_posix()}" in names
    for path in [*(REPOSITORY / "graphs").glob("*.py"), REPOSITORY / "graphs" / "langgraph.json"]:
        assert f"graphs/{path.name}" in names
    for path in (REPOSITORY / "orchestrator").rglob("*.py"):
        assert path.relative_to(REPOSITORY).as_posix() in names
    assert "orchestrator/py.typed" in names


def test_the_wheel_carries_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"graphs", "orchestrator", next(top for top in tops if top.endswith(".dist-info"))}
    assert [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".env"))] == []


def test_the_wheel_installs_the_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (entry,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "keyturn = orchestrator.cli:main" in archive.read(entry).decode()


def ask_installed(site: Path, cwd: Path) -> dict[str, str]:
    # The installed copy comes before the editable one on the path.
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=cwd, env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_an_installed_keyturn_finds_its_own_files_from_any_folder(site: Path, tmp_path: Path) -> None:
    found = ask_installed(site, tmp_path)
    assert Path(found["package"]).parent == site / "orchestrator"
    assert Path(found["config"]) == site / "orchestrator" / "_packaged" / "config"
    assert Path(found["migrations"]) == site / "orchestrator" / "_packaged" / "migrations"
    assert Path(found["app"]) == site / "graphs" / "langgraph.json"
    assert found["count"] == len(list((REPOSITORY / "migrations").glob("0*.sql")))


def test_the_repositorys_own_files_win_inside_it(site: Path) -> None:
    found = ask_installed(site, REPOSITORY / "tests")
    assert Path(found["config"]) == REPOSITORY / "config"
    assert Path(found["migrations"]) == REPOSITORY / "migrations"
    assert Path(found["app"]) == REPOSITORY / "graphs" / "langgraph.json"
