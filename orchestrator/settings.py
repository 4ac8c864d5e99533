"""What an operator may set, from `KEYTURN_…` environment variables or from the command line, checked once at start.

Only values and the search for Keyturn's own folders live here. Nothing is opened, connected or created.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.core.errors import InvalidInput

ENV_PREFIX = "KEYTURN_"

# Values of these are credentials, or carry one: an error names the variable and never repeats the value.
_SECRET_FIELDS = frozenset({"database_url"})

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


def default_data_dir() -> Path:
    """Where `keyturn up` keeps its data unless told otherwise: beside what it is run in."""
    return Path(".keyturn").resolve()


class Settings(BaseSettings):
    """Every setting of a Keyturn process; frozen. Times are in seconds.

    `database_url` is None when Keyturn is to run the embedded Postgres in `data_dir`. The folders left None are
    found by `find_config`, `find_migrations` and `find_app`.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", validate_default=False
    )

    database_url: str | None = Field(default=None, repr=False)
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8001, ge=0, le=65_535)
    data_dir: Path = Field(default_factory=default_data_dir)
    config_dir: Path = Field(default_factory=lambda: find_config(Path.cwd()))
    migrations_dir: Path = Field(default_factory=lambda: find_migrations(Path.cwd()))
    app: Path = Field(default_factory=lambda: find_app(Path.cwd()))
    namespace: str = Field(default="default", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    lease_seconds: Annotated[float, Field(ge=1, le=3_600, allow_inf_nan=False)] = 15.0
    worker_concurrency: int = Field(default=16, ge=1, le=1_024)
    max_attempts: int = Field(default=5, ge=1, le=1_000)

    pool_min: int = Field(default=2, ge=0, le=1_000)
    pool_max: int = Field(default=16, ge=1, le=1_000)
    # An API call must answer 503 in under a second when no connection is to be had.
    pool_timeout_seconds: Seconds = 0.8
    connect_timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 5
    statement_timeout_seconds: Seconds = 30.0

    # The live view of a person's tasks: how many at most, and how long those that have ended stay in it.
    tasks_shown: int = Field(default=10, ge=1, le=100)
    tasks_finished_seconds: Seconds = 300.0
    # Of one person: how long a session may be idle, and how many may be open.
    session_idle_seconds: Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)] = 1_800.0
    session_limit: int = Field(default=5, ge=1, le=10_000)
    # A live stream gives a sign of life when it was silent for so long; clients take one that gives none for dead.
    keepalive_seconds: Annotated[float, Field(gt=0, le=15, allow_inf_nan=False)] = 15.0

    # Names that mark a key's value as a secret, besides those that always do; with commas between them.
    secret_keys: str | None = Field(default=None, max_length=2_000)

    # Where applications that run in a browser come from and may call this API, with commas between them.
    cors_origins: str | None = Field(
        default=None, max_length=2_000, pattern=r"^https?://[^/\s?#@,]+(\s*,\s*https?://[^/\s?#@,]+)*$"
    )

    # Where people reach this Keyturn, for the links in messages.
    public_url: str | None = Field(default=None, pattern=r"^https?://[^/\s?#@]+(/[^\s?#]*)?$")
    notify_attempts: int = Field(default=30, ge=1, le=1_000)
    notify_backoff_seconds: Seconds = 5.0
    notify_backoff_max_seconds: Seconds = 3_600.0
    # One request of an attempt.
    notify_timeout_seconds: Annotated[float, Field(gt=0, le=30, allow_inf_nan=False)] = 10.0
    # The Ed25519 key that anchors of the audit trail are signed with; `keyturn up` makes one of its own.
    anchor_key_file: Path | None = None

    @field_validator("database_url")
    @classmethod
    def _database_url_is_postgres(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            conninfo_to_dict(value)
        except ProgrammingError as error:
            # psycopg's message may repeat the password, so it is not passed on.
            message = "not a Postgres address; write postgresql://user:password@host:5432/database"
            raise ValueError(message) from error
        return value

    @field_validator("config_dir", "migrations_dir")
    @classmethod
    def _folder_exists(cls, value: Path) -> Path:
        if not value.is_dir():
            raise ValueError(f"there is no folder {value}")
        return value.resolve()

    @field_validator("app")
    @classmethod
    def _app_exists(cls, value: Path) -> Path:
        if not value.is_file():
            raise ValueError(f"there is no file {value}; name a langgraph.json")
        return value.resolve()

    @field_validator("data_dir")
    @classmethod
    def _data_dir_is_absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @model_validator(mode="after")
    def _pool_bounds(self) -> Self:
        if self.pool_min > self.pool_max:
            raise ValueError(
                f"{ENV_PREFIX}POOL_MIN ({self.pool_min}) is larger than {ENV_PREFIX}POOL_MAX ({self.pool_max})"
            )
        return self

    @property
    def public_address(self) -> str:
        """Where people reach this Keyturn, without a slash at the end."""
        return (self.public_url or f"http://127.0.0.1:{self.port}").rstrip("/")

    @property
    def secret_key_names(self) -> list[str]:
        """The names of `secret_keys`."""
        return [name for part in (self.secret_keys or "").split(",") if (name := part.strip())]

    @property
    def browser_origins(self) -> list[str]:
        """The origins of `cors_origins`."""
        return [origin for part in (self.cors_origins or "").split(",") if (origin := part.strip())]

    def require_database_url(self) -> str:
        """The address of the database, for processes that do not run one of their own."""
        if self.database_url is None:
            raise InvalidInput(
                f"{ENV_PREFIX}DATABASE_URL is not set. Set it to the address of your Postgres "
                "(postgresql://user:password@host:5432/database), or run 'keyturn up', which brings its own.",
                variable=f"{ENV_PREFIX}DATABASE_URL",
            )
        return self.database_url


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, with `overrides` (from the command line; None means not given) on top.

    Raises `InvalidInput` that names each wrong variable, what it said and what is allowed.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        # Settings(**given) is how pydantic takes untyped input; it checks every value.
        return Settings(**given)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        problems = [
            _describe_problem(str(item["loc"][0]) if item["loc"] else "", item["msg"], item["input"])
            for item in error.errors(include_url=False, include_context=False)
        ]
        raise InvalidInput("\n".join(problems), problems=problems) from None


def _describe_problem(field: str, message: str, value: object) -> str:
    plain = message.removeprefix("Value error, ")
    if not field:
        return plain
    variable = ENV_PREFIX + field.upper()
    if field not in Settings.model_fields:
        return f"{field}: there is no such setting"
    if field in _SECRET_FIELDS:
        return f"{variable}: {plain}"
    return f"{variable}={value}: {plain}"


def find_config(start: Path) -> Path:
    """The folder with `hitl/` in it: of the project around `start`, else the one Keyturn ships."""
    for folder in _project_folders(start):
        if (folder / "config" / "hitl").is_dir():
            return folder / "config"
    return _shipped("config")


def find_migrations(start: Path) -> Path:
    """Keyturn's own migrations: of the source tree around `start`, else the shipped ones.

    Another project's `migrations` folder is never taken for ours, so the whole source tree is looked for.
    """
    for folder in _project_folders(start):
        if (folder / "orchestrator" / "settings.py").is_file() and (folder / "migrations").is_dir():
            return folder / "migrations"
    return _shipped("migrations")


def find_app(start: Path) -> Path:
    """The `langgraph.json` to serve: `graphs/langgraph.json` of the project around `start`, else the shipped one."""
    for folder in _project_folders(start):
        if (folder / "graphs" / "langgraph.json").is_file():
            return folder / "graphs" / "langgraph.json"
    return Path(__file__).resolve().parent.parent / "graphs" / "langgraph.json"


def shipped_config() -> Path:
    """The configuration that Keyturn ships, which stands in for what a project's own does not have."""
    return _shipped("config")


def _project_folders(start: Path) -> list[Path]:
    """`start`, and the folders above it up to the root of its git repository.

    Outside a repository only `start` itself counts: rules planted in a shared folder above must not be picked up.
    """
    here = start.resolve()
    above = [here, *here.parents]
    for depth, folder in enumerate(above):
        if (folder / ".git").exists():
            return above[: depth + 1]
    return [here]


def _shipped(name: str) -> Path:
    """A folder of the wheel; of the source tree when Keyturn is installed in editable mode."""
    package = Path(__file__).resolve().parent
    packaged = package / "_packaged" / name
    return packaged if packaged.is_dir() else package.parent / name
