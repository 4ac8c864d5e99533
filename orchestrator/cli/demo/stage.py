"""What the demo plays on: a folder, Postgres, the API and two workers, all its own, and their end.

Whatever happens in between, leaving the stage ends all of it and removes the folder. What is played is elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from orchestrator.cli.demo.children import TEMPORARY, Child, DemoFailed, end_strays
from orchestrator.embedded import EmbeddedPostgres
from orchestrator.settings import ENV_PREFIX, find_app, find_config, find_migrations
from orchestrator.store.db import Connection, Database

T = TypeVar("T")

LEASE_SECONDS: Final = 3.0
READY_SECONDS: Final = 60.0
_END_SECONDS: Final = 4.0
_NAMESPACE: Final = "default"


class Stage:
    """Use it in a `with` statement: everything runs inside, nothing is left afterwards."""

    def __init__(self) -> None:
        # The real path: commands are known by it, and a link on the way to it would make another text of it.
        self.folder = Path(tempfile.mkdtemp(prefix="keyturn-demo-")).resolve()
        self.scratch = self.folder / "tmp"
        self.data_dir = self.folder / "data"
        self.postgres = EmbeddedPostgres(self.data_dir)
        self.service_port = _free_port()
        self.children: list[Child] = []
        self.workers: dict[str, Child] = {}
        self.url = ""
        # What could not be ended or removed.
        self.left_behind: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self.children:
            child.ask_to_end()
        deadline = time.monotonic() + _END_SECONDS
        for child in self.children:
            child.end(deadline - time.monotonic())
        if not end_strays(self.scratch):
            self.left_behind.append(f"processes with {self.scratch} as their folder for temporary files")
        try:
            self.postgres.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.folder.exists():
                self.left_behind.append(f"the folder {self.folder}")

    @property
    def config_dir(self) -> Path:
        """The rules and runbooks that ship: the folder of the demo is no project, so none of the user's are found."""
        return find_config(self.folder)

    def start_postgres(self) -> None:
        """Start the database server."""
        self.scratch.mkdir()
        self.data_dir.mkdir()
        self.postgres.start()

    def start_api(self) -> None:
        """Start `keyturn serve` on any free port."""
        self._spawn("api", "serve", "--port", "0")

    def prepare(self) -> str:
        """Bring the database to this release and make its first person; returns their key."""
        from orchestrator.config import load_governance
        from orchestrator.service import identity
        from orchestrator.service.context import Context
        from orchestrator.service.schema import prepare_database

        async def work() -> str:
            await prepare_database(self.postgres.url, find_migrations(self.folder))
            async with _opened(self.postgres.url) as db:
                made = await identity.bootstrap(Context(db, load_governance(self.config_dir)), _NAMESPACE)
            if made is None:
                raise DemoFailed("a new database has people in it")
            return made.key

        return _run(work)

    def start_workers(self, count: int) -> None:
        """Start `keyturn worker` processes, and wait until they and the API are ready."""
        started = [self._spawn(f"worker-{number}", "worker") for number in range(1, count + 1)]
        self.url = self.children[0].word("Keyturn's API is on ", READY_SECONDS)
        for child in started:
            self.workers[child.word("Keyturn's worker ", READY_SECONDS)] = child

    def name_of(self, actor: str) -> str:
        """Who an event's actor is: the name of a worker of ours, or what it says."""
        child = self.workers.get(actor.removeprefix("worker:"))
        return child.name if child else actor

    def look(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Look into the database, or change what is no part of Keyturn."""

        async def looking() -> T:
            async with _opened(self.postgres.url) as db, db.connection() as conn:
                return await work(conn)

        return _run(looking)

    def keep_logs(self, where: Path) -> bool:
        """Copy the logs to `where`, in place of those kept there before; False when that cannot be written."""
        with contextlib.suppress(OSError):
            shutil.rmtree(where, ignore_errors=True)
            where.mkdir(parents=True)
            services = (self.data_dir / "services").glob("*.log")
            for log in (*self.folder.glob("*.log"), self.postgres.log_file, *services):
                if log.is_file():
                    shutil.copyfile(log, where / log.name)
            return True
        return False

    def _spawn(self, name: str, *arguments: str) -> Child:
        child = Child(name, arguments, self._environment(), self.folder / f"{name}.log")
        self.children.append(child)
        return child

    def _environment(self) -> dict[str, str]:
        """The environment without anything that the user set for a Keyturn of theirs."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith((ENV_PREFIX, "PG"))}
        own = {
            "DATABASE_URL": self.postgres.url,
            # Runbooks and tools name their databases; these are this one.
            "CONNECTION_LOCAL": self.postgres.url,
            "CONNECTION_EXPENSES": self.postgres.url,
            "DATA_DIR": str(self.data_dir),
            "CONFIG_DIR": str(self.config_dir),
            "MIGRATIONS_DIR": str(find_migrations(self.folder)),
            "APP": str(find_app(self.folder)),
            "NAMESPACE": _NAMESPACE,
            "LEASE_SECONDS": str(LEASE_SECONDS),
        }
        return kept | {f"{ENV_PREFIX}{name}": value for name, value in own.items()} | self.temporary()

    def temporary(self) -> dict[str, str]:
        """The variables by which processes of this stage are known."""
        return dict.fromkeys(TEMPORARY, str(self.scratch))


@contextlib.asynccontextmanager
async def _opened(url: str) -> AsyncGenerator[Database]:
    db = Database(url, min_size=1, max_size=2, timeout=READY_SECONDS)
    try:
        await db.open()
        yield db
    finally:
        await db.close()


def _run(work: Callable[[], Awaitable[T]]) -> T:
    async def running() -> T:
        return await work()

    # Psycopg needs a selector loop, which is not Windows' own choice.
    factory = asyncio.SelectorEventLoop if sys.platform == "win32" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(running())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
