"""The repository itself: services that start in order, and nothing of a machine or a registry in a committed file."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]

# Written apart, so that this file does not hold what it looks for.
REGISTRY_HOSTS = [
    "".join(parts)
    for parts in [("py", "pi.org"), ("python", "hosted.org"), ("registry.", "npmjs"), ("deb.", "debian.org")]
]


def compose() -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))


def committed_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [REPOSITORY / name for name in listed.stdout.decode().split("\0") if name and (REPOSITORY / name).is_file()]


def test_compose_runs_postgres_migrate_two_api_and_three_workers() -> None:
    services = compose()["services"]
    commands = {name: service["command"][0] for name, service in services.items()}
    assert sorted(commands.values()) == ["migrate", "postgres", "serve", "serve", "worker", "worker", "worker"]


def test_compose_starts_the_rest_after_a_healthy_postgres_and_a_finished_migrate() -> None:
    services = compose()["services"]
    assert "pg_isready" in " ".join(services["postgres"]["healthcheck"]["test"])
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["migrate"]["restart"] == "no"
    for name, service in services.items():
        if name not in {"postgres", "migrate"}:
            assert service["depends_on"]["postgres"]["condition"] == "service_healthy", name
            assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully", name


def test_compose_opens_ports_to_this_machine_only() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned_and_postgres_is_18() -> None:
    images = {service["image"] for service in compose()["services"].values()}
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    images |= set(re.findall(r"^FROM (\S+)", dockerfile, flags=re.MULTILINE))
    assert any(image.startswith("postgres:18") for image in images)
    assert [image for image in images if ":" not in image or image.endswith(":latest")] == []


def test_the_image_runs_as_a_normal_user_from_hashed_requirements() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    assert "--require-hashes -r requirements.lock" in dockerfile
    assert re.findall(r"^USER (\S+)", dockerfile, flags=re.MULTILINE) == ["keyturn"]


def test_no_committed_file_names_a_package_registry() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}: {host}"
        for path in committed_files()
        for host in REGISTRY_HOSTS
        if host.encode() in path.read_bytes()
    ]
    assert found == []


def test_no_committed_file_is_large_or_a_working_file() -> None:
    files = committed_files()
    assert [str(path) for path in files if path.stat().st_size > 1_000_000] == []
    kept_out = {".venv", ".keyturn", "__pycache__", ".terraform"}
    assert [str(path) for path in files if kept_out & set(path.relative_to(REPOSITORY).parts)] == []


@pytest.mark.skipif(sys.platform == "win32", reason="file modes")
@pytest.mark.parametrize("name", ["task", ".ci/run"])
def test_scripts_can_be_run(name: str) -> None:
    assert (REPOSITORY / name).stat().st_mode & stat.S_IXUSR


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    """A copy of the command files with a `keyturn` that only prints its arguments, in a folder with a space."""
    folder = tmp_path / "a checkout"
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ["task", "Taskfile.yml", "pyproject.toml", "requirements.lock"]:
        shutil.copy2(REPOSITORY / name, folder / name)
    (programs / "task").symlink_to(Path(sys.executable).parent / "task")
    (programs / "keyturn").write_text('#!/bin/sh\nfor word in "$@"; do printf "[%s]\\n" "$word"; done\n')
    (programs / "keyturn").chmod(0o755)
    stamp = '{ printf "%s\\n" "$PWD"; cat requirements.lock pyproject.toml; } | cksum >.venv/.keyturn-installed'
    subprocess.run(["sh", "-c", stamp], cwd=folder, check=True)
    return folder


def run_task(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"REASON", "JUSTIFICATION"}}
    return subprocess.run(
        ["sh", "./task", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


AWKWARD = [
    "two words",
    'it\'s "quoted"',
    "; touch pwned; $(touch pwned) `touch pwned` $HOME | cat & > pwned",
    "{{.PATH}} {{",
    "-x --flag",
    "a\nb",
    "key=value \\ é",
]


@pytest.mark.skipif(sys.platform == "win32", reason="the POSIX script")
@pytest.mark.parametrize("value", AWKWARD)
def test_values_reach_a_command_as_they_were_written(sandbox: Path, value: str) -> None:
    rejected = run_task(sandbox, "workflow:reject", "WORKFLOW_ID=wf 1", f"REASON={value}")
    assert rejected.stdout == f"[reject]\n[--reason={value}]\n[--]\n[wf 1]\n"
    approved = run_task(sandbox, "workflow:approve", "WORKFLOW_ID=wf_1", f"JUSTIFICATION={value}", "--", "--json")
    assert approved.stdout == f"[approve]\n[--justification={value}]\n[--json]\n[--]\n[wf_1]\n"
    assert not (sandbox / "pwned").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the POSIX script")
def test_commands_pass_arguments_on_and_name_what_is_missing(sandbox: Path) -> None:
    assert run_task(sandbox, "workflow:list-pending", "--", "--json").stdout == "[list-pending]\n[--json]\n"
    assert run_task(sandbox, "workflow:status", "WORKFLOW_ID=-rf").stdout == "[status]\n[--]\n[-rf]\n"
    missing = run_task(sandbox, "workflow:reject", "WORKFLOW_ID=wf_1")
    assert missing.returncode != 0
    assert "REASON" in missing.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="the POSIX script")
def test_a_machine_without_a_fitting_python_is_told_so(sandbox: Path, tmp_path: Path) -> None:
    shutil.rmtree(sandbox / ".venv")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ["sh", "cat", "cksum", "dirname", "mkdir", "rm", "rmdir", "sleep"]:
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    refused = subprocess.run(
        ["sh", "./task", "test"], cwd=sandbox, env={"PATH": str(programs)}, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "needs Python 3.11, 3.12 or 3.13 and found none" in refused.stderr
    assert not (sandbox / ".venv.lock").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the POSIX script")
def test_a_lock_left_by_a_killed_run_does_not_block(sandbox: Path, tmp_path: Path) -> None:
    shutil.rmtree(sandbox / ".venv")
    gone = subprocess.Popen(["true"])
    gone.wait()
    (sandbox / ".venv.lock").mkdir()
    (sandbox / ".venv.lock" / "pid").write_text(f"{gone.pid}\n")
    # With a python that cannot make environments the run gets past the lock and says what is missing.
    programs = tmp_path / "bin"
    programs.mkdir()
    fake = programs / "python3"
    fake.write_text("#!/bin/sh\ncase $2 in *version_info*) exit 0 ;; esac\nexit 1\n")
    fake.chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin"}
    refused = subprocess.run(
        ["sh", "./task", "test"], cwd=sandbox, env=environment, capture_output=True, text=True, check=False
    )
    assert "has no venv module" in refused.stderr
    assert not (sandbox / ".venv.lock").exists()
