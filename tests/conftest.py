"""Real Postgres for every test: one server per run, a migrated template in it, a fresh copy per test."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from orchestrator.embedded import EmbeddedPostgres
from orchestrator.service.schema import prepare_database
from tests.node import node

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class PostgresForTests:
    """A server that tests may make databases on. `embedded` is None when the run was given a server of its own."""

    url: str
    embedded: EmbeddedPostgres | None

    def database_url(self, database: str) -> str:
        """The address of one database of this server, as a URL."""
        parts = conninfo_to_dict(self.url, dbname=database)
        login = f"{quote(str(parts.get('user', 'postgres')), '')}:{quote(str(parts.get('password', '')), '')}"
        return f"postgresql://{login}@{parts.get('host', '127.0.0.1')}:{parts.get('port', 5432)}/{database}"

    def create_database(self, template: str = "template0") -> str:
        """Make a database, empty or a copy of `template`, and return its name."""
        name = f"kt_{secrets.token_hex(6)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        self._execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, ending whoever is still connected to it."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(make_conninfo(self.url, connect_timeout=10), autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def pg() -> Iterator[PostgresForTests]:
    """The server of this run: embedded, or the one in KEYTURN_TEST_DATABASE_URL (its user may create databases)."""
    given = os.environ.get("KEYTURN_TEST_DATABASE_URL")
    if given:
        yield PostgresForTests(given, None)
        return
    # Not under pytest's own folder, which closes itself to other users: as root, the server runs as another one.
    folder = Path(tempfile.mkdtemp(prefix="keyturn-tests-"))
    server = EmbeddedPostgres(folder)
    try:
        server.start()
        yield PostgresForTests(server.url, server)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated_template(pg: PostgresForTests) -> Iterator[str]:
    """The name of a migrated database nobody is connected to, for copies."""
    import asyncio

    name = pg.create_database()
    asyncio.run(prepare_database(pg.database_url(name), REPOSITORY / "migrations"))
    yield name
    pg.drop_database(name)


@pytest.fixture
def database_url(pg: PostgresForTests, migrated_template: str) -> Iterator[str]:
    """The address of a freshly migrated database of this test's own."""
    name = pg.create_database(migrated_template)
    yield pg.database_url(name)
    pg.drop_database(name)


@pytest.fixture
def empty_database_url(pg: PostgresForTests) -> Iterator[str]:
    """The address of an empty database of this test's own."""
    name = pg.create_database()
    yield pg.database_url(name)
    pg.drop_database(name)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The npm clients of tests/node, installed."""
    return node.install()
