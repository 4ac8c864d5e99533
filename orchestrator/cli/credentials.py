"""Where to talk to and with which key: options, environment, profiles, and the credentials file that `up` writes.

Files with keys are written for their owner only, and one that others could have written or can read is not used.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import typer
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.sdk.client import DEFAULT_URL
from orchestrator.sdk.transport import is_loopback

FILE_NAME: Final = "credentials.json"
FOLDER: Final = ".keyturn"
_OWNER_ONLY: Final = 0o600


class UsageError(Exception):
    """What was asked for on the command line, or set around it, cannot be; the message says what to change."""


class Credentials(BaseModel):
    """What the credentials file holds."""

    model_config = ConfigDict(frozen=True)

    url: str
    key: str
    person: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Target:
    """A server, the key for it (None: there is none), and where both were found."""

    url: str
    key: str | None
    source: str


def find_target(url: str | None, profile: str | None, environment: Mapping[str, str] = os.environ) -> Target:
    """The server to talk to. A key is sent only to the server it was made for; raises UsageError."""
    # A key read from a file often ends in a line break.
    key = environment.get("KEYTURN_KEY", "").strip() or None
    chosen = _profile(profile, environment)
    if chosen is not None and url is None:
        return Target(chosen.url, key or chosen.key, chosen.source)
    if key is not None:
        found = None if url else find_credentials(Path.cwd(), environment)
        return Target(url or (found.url if found else DEFAULT_URL), key, "KEYTURN_KEY")
    found = find_credentials(Path.cwd(), environment)
    if found is None:
        return Target(url or DEFAULT_URL, None, "nothing")
    if url is None or _same_machine(url, found.url):
        return Target(url or found.url, found.key, "the credentials file")
    return Target(url, None, "nothing")


def find_credentials(start: Path, environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """The nearest credentials file: of KEYTURN_DATA_DIR, of `start` and the folders above it, of the home folder."""
    for file in _places(start, environment):
        found = read_credentials(file)
        if found is not None:
            return found
    return None


def read_credentials(file: Path) -> Credentials | None:
    """The credentials in `file`; None when it is not there, not ours, or not readable as such."""
    if not _is_private(file):
        return None
    try:
        return Credentials.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def write_credentials(file: Path, credentials: Credentials) -> None:
    """Put `credentials` in place of the file at once, readable by its owner only from the first byte on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    building = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="utf-8") as writing:
        writing.write(credentials.model_dump_json(indent=2) + "\n")
    building.replace(file)


def _places(start: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    given = environment.get("KEYTURN_DATA_DIR")
    if given:
        yield Path(given) / FILE_NAME
    here = start.resolve()
    for folder in (here, *here.parents, Path.home()):
        yield folder / FOLDER / FILE_NAME


def _is_private(file: Path) -> bool:
    """Whether the file is this user's and closed to others: one planted in a shared folder must not be used."""
    try:
        found = file.stat()
    except OSError:
        return False
    if sys.platform == "win32":
        return stat.S_ISREG(found.st_mode)
    shared = found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not shared


def _same_machine(url: str, other: str) -> bool:
    return url.rstrip("/") == other.rstrip("/") or (is_loopback(url) and is_loopback(other))


def _profile(name: str | None, environment: Mapping[str, str]) -> Target | None:
    """The named profile, the file's `default` one, or None. UsageError for a name or a file that is wrong."""
    file = Path(environment.get("KEYTURN_CONFIG_FILE") or Path(typer.get_app_dir("keyturn")) / "config.toml")
    if not file.is_file():
        if name is not None:
            raise UsageError(f"there is no profile {name}: {file} does not exist")
        return None
    try:
        content: dict[str, object] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    name = name or cast("str | None", content.get("default"))
    if name is None:
        return None
    profiles = cast("dict[str, dict[str, object]]", content.get("profiles", {}))
    entry = profiles.get(name)
    if entry is None or not isinstance(entry.get("url"), str):
        known = ", ".join(sorted(profiles)) or "none"
        raise UsageError(f"{file}: there is no profile {name} with a `url`; profiles: {known}")
    return Target(str(entry["url"]), _profile_key(file, entry, environment), f"profile {name}")


def _profile_key(file: Path, entry: Mapping[str, object], environment: Mapping[str, str]) -> str | None:
    """The profile's key: from the variable that `key_env` names, or `key` itself in a file closed to others."""
    variable = entry.get("key_env")
    if isinstance(variable, str):
        return environment.get(variable)
    key = entry.get("key")
    if key is not None and not _is_private(file):
        raise UsageError(f"{file} holds a key and must be yours and closed to others: chmod 600 {file}")
    return str(key) if key is not None else None
