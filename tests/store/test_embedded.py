"""The embedded Postgres: one owner, durable, back after any death."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from orchestrator.core.errors import DirectoryInUse, Unavailable
from orchestrator.embedded import EmbeddedPostgres

OWNER = """
import sys
from pathlib import Path
from orchestrator.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print(server.pid, server.url, flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    # Not under pytest's own folder, which closes itself to other users: as root, the server runs as another one.
    folder = Path(tempfile.mkdtemp(prefix="keyturn-embedded-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Owner:
    """Another process that owns a server; it is killed at the end of the test if it still runs."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        assert len(words) == 2, "the owner did not start"
        self.server_pid, self.url = int(words[0]), words[1]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self) -> None:
        self.process.communicate("")


@pytest.fixture
def owner(data_dir: Path) -> Iterator[Owner]:
    running = Owner(data_dir)
    yield running
    if running.process.poll() is None:
        running.stop()


def runs(pid: int) -> bool:
    # An orphan stays a zombie where nothing collects it; it runs no more.
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def insert_one(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n integer)")
        connection.execute("INSERT INTO kept VALUES (1)")


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def test_a_second_owner_is_refused_and_told_who_has_it(data_dir: Path, owner: Owner) -> None:
    with pytest.raises(DirectoryInUse, match=f"pid {owner.process.pid}") as refused:
        EmbeddedPostgres(data_dir).start()
    assert refused.value.facts["pid"] == owner.process.pid
    assert count_databases(owner.url) > 0


def count_databases(url: str) -> int:
    with psycopg.connect(url) as connection:
        return len(connection.execute("SELECT datname FROM pg_database").fetchall())


def test_a_directory_is_free_again_after_an_orderly_stop(data_dir: Path, owner: Owner) -> None:
    insert_one(owner.url)
    owner.stop()
    assert not runs(owner.server_pid)
    with EmbeddedPostgres(data_dir) as server:
        assert count(server.url) == 1


def test_a_server_whose_owner_was_killed_is_replaced_and_keeps_its_data(data_dir: Path, owner: Owner) -> None:
    insert_one(owner.url)
    owner.kill()
    assert runs(owner.server_pid)
    with EmbeddedPostgres(data_dir) as server:
        assert server.pid != owner.server_pid
        assert count(server.url) == 1
    assert not runs(owner.server_pid)


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_owner_and_server_killed_together_lose_nothing_acknowledged(data_dir: Path, owner: Owner) -> None:
    insert_one(owner.url)
    os.kill(owner.server_pid, signal.SIGKILL)
    owner.kill()
    with EmbeddedPostgres(data_dir) as server:
        assert count(server.url) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_a_pid_file_that_names_a_stranger_does_not_block(data_dir: Path, owner: Owner) -> None:
    insert_one(owner.url)
    os.kill(owner.server_pid, signal.SIGKILL)
    owner.kill()
    pid_file = data_dir / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines(keepends=True)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        pid_file.write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
        with EmbeddedPostgres(data_dir) as server:
            assert count(server.url) == 1
        assert stranger.poll() is None
        stranger.kill()


def test_kill_and_restart_keep_the_address_and_the_data(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        url, first = server.url, server.pid
        insert_one(url)
        server.kill()
        assert server.pid is None
        with pytest.raises(psycopg.OperationalError):
            count(url)
        server.restart()
        assert server.pid not in {None, first}
        insert_one(url)
        server.restart()
        assert (server.url, count(url)) == (url, 2)


def test_it_is_durable_and_listens_to_this_machine_only_with_a_password(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        with psycopg.connect(server.url) as connection:
            for name, value in {
                "fsync": "on",
                "synchronous_commit": "on",
                "full_page_writes": "on",
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": "",
                "max_connections": "100",
                "TimeZone": "UTC",
            }.items():
                row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
                assert row == (value,), name
        password = (data_dir / "postgres.secret").read_text()
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.url.replace(password, "wrong"))
    if sys.platform != "win32":
        assert stat.S_IMODE((data_dir / "postgres.secret").stat().st_mode) == 0o600
        assert stat.S_IMODE((data_dir / "postgres").stat().st_mode) == 0o700


def test_a_setup_that_was_cut_off_is_done_again(data_dir: Path) -> None:
    (data_dir / "postgres.new").mkdir()
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    (data_dir / "postgres.secret").write_text("old")
    with EmbeddedPostgres(data_dir) as server:
        insert_one(server.url)


def test_a_broken_cluster_says_where_the_log_is_and_frees_the_directory(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir):
        pass
    control = data_dir / "postgres" / "global" / "pg_control"
    whole = control.read_bytes()
    control.write_bytes(b"")
    server = EmbeddedPostgres(data_dir)
    with pytest.raises(Unavailable, match=r"postgres\.log"):
        server.start()
    control.write_bytes(whole)
    with server:
        assert server.pid is not None
