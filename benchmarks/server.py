"""A Postgres of the benchmark's own, with the settings every embedded one has: nothing durable is switched off."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from orchestrator.embedded import EmbeddedPostgres
from orchestrator.service.schema import prepare_database
from orchestrator.settings import find_migrations


@dataclass(frozen=True, slots=True)
class Server:
    """One server with a database for each side, both with the same tables and indexes of LangGraph."""

    bare_url: str
    keyturn_url: str
    pid: int
    log: Path
    version: str


@contextlib.asynccontextmanager
async def running() -> AsyncGenerator[Server]:
    """A fresh server while the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="keyturn-bench-"))
    postgres = EmbeddedPostgres(folder)
    try:
        await asyncio.to_thread(postgres.start)
        base = postgres.url.rsplit("/", 1)[0]
        async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as conn:
            await conn.execute("CREATE DATABASE bare")
            await conn.execute("CREATE DATABASE keyturn")
            version = conn.info.server_version
        migrations = find_migrations(Path(__file__).parent)
        for name in ("bare", "keyturn"):
            await prepare_database(f"{base}/{name}", migrations)
        assert postgres.pid is not None
        yield Server(
            bare_url=f"{base}/bare?options=-csearch_path%3Dlanggraph",
            keyturn_url=f"{base}/keyturn",
            pid=postgres.pid,
            log=postgres.log_file,
            version=f"{version // 10000}.{version % 10000}",
        )
    finally:
        await asyncio.to_thread(postgres.stop)
        shutil.rmtree(folder, ignore_errors=True)
