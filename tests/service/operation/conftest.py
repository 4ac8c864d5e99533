"""Fixtures for tests of the operation graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.operations import SHIPPED, Operations


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Operations:
    monkeypatch.setenv("KEYTURN_CONFIG_DIR", str(SHIPPED))
    monkeypatch.setenv("KEYTURN_DATA_DIR", str(tmp_path / "data"))
    return Operations()


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, operations: Operations) -> Path:
    """A folder for runbooks of the test's own; `operations` runs those."""
    folder = tmp_path / "config" / "runbooks"
    folder.mkdir(parents=True)
    monkeypatch.setenv("KEYTURN_CONFIG_DIR", str(folder.parent))
    return folder


@pytest.fixture
def jobs(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """The local Postgres with a table of ten jobs, seven of them older than 30 days and five of those done."""
    monkeypatch.setenv("KEYTURN_CONNECTION_LOCAL", database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.jobs (id int PRIMARY KEY, state text, created_at timestamptz)")
        connection.execute(
            "INSERT INTO public.jobs SELECT n, CASE WHEN n <= 5 THEN 'done' ELSE 'open' END,"
            " now() - CASE WHEN n <= 7 THEN interval '40 days' ELSE interval '1 day' END FROM generate_series(1, 10) n"
        )
        yield connection
