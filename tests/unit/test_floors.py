"""No locked version has a known hole. No audit service is asked: the floors are written here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# The first version without the known hole. An optional package may be absent; if it is locked, the floor holds.
FLOORS = {
    "langchain-core": "1.2.5",
    "langgraph": "1.0.10",
    "langgraph-checkpoint": "4.1.1",
    "langgraph-checkpoint-postgres": "3.1.1",
    "psycopg-pool": "3.3.1",
    "pyjwt": "2.12.0",
    "starlette": "1.5.1",
}
OPTIONAL_FLOORS = {"python-multipart": "0.0.27"}
POSTGRES_FLOORS = {15: (15, 18), 18: (18, 4)}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def locked() -> dict[str, str]:
    lines = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8").splitlines()
    found = [re.match(r"([a-z0-9.-]+)==([^ ;\\]+)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


@pytest.mark.parametrize(("package", "floor"), FLOORS.items())
def test_the_locked_version_is_above_the_floor(package: str, floor: str) -> None:
    assert numbers(locked()[package]) >= numbers(floor)


@pytest.mark.parametrize(("package", "floor"), OPTIONAL_FLOORS.items())
def test_an_optional_package_is_above_the_floor_if_it_is_locked(package: str, floor: str) -> None:
    version = locked().get(package)
    assert version is None or numbers(version) >= numbers(floor)


def test_every_locked_version_has_hashes_and_no_address() -> None:
    text = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    entries = re.split(r"\n(?=[a-z])", text)
    assert len(entries) > 50
    assert [entry.split("==")[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_embedded_postgres_is_above_the_floor() -> None:
    import subprocess

    from orchestrator.embedded import _program

    said = subprocess.run([_program("postgres"), "--version"], capture_output=True, text=True, check=True).stdout
    version = numbers(said)[:2]
    assert version >= POSTGRES_FLOORS[version[0]]
