"""Files that graphs read and write: only inside of a configured folder, whole or not at all, never over another one."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from orchestrator.sdk import InvalidInput
from orchestrator.sdk.operations import data_dir

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DEEPEST = 5


def folder(variable: str, default: str) -> Path:
    """A folder of an environment variable, else one below Keyturn's data folder; made when it is not there."""
    found = Path(os.environ.get(variable) or data_dir() / default).expanduser().resolve()
    found.mkdir(parents=True, exist_ok=True)
    return found


def inside(parent: Path, name: str, *, endings: tuple[str, ...] = ()) -> Path:
    """The path of the relative `name` below `parent`. InvalidInput for a name that could lead anywhere else."""
    parts = name.split("/")
    if not all(map(_PART.fullmatch, parts)) or len(parts) > _DEEPEST:
        detail = (
            f"{name!r} is no name of a file in the folder; write it relative, like `reports/orders.csv`: letters,"
            f" digits, dot, dash and underscore, each part beginning with a letter or digit, {_DEEPEST} parts at most"
        )
        raise InvalidInput(detail, file=name)
    if endings and not name.endswith(endings):
        raise InvalidInput(f"{name!r} must end in {' or '.join(endings)}", file=name)
    path = parent
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise InvalidInput(
                f"{name!r} passes through a link ({part}), which could lead out of the folder", file=name
            )
    if blocked := next((one for one in path.parents if one.is_file()), None):
        raise InvalidInput(f"{name!r} cannot be: {blocked.name} is a file, not a folder", file=name)
    return path


def free(path: Path) -> Path:
    """The path, if nothing is there. InvalidInput otherwise: what exists is never replaced."""
    if path.exists() or path.is_symlink():
        raise taken(path)
    return path


def taken(path: Path) -> InvalidInput:
    """The refusal for a name that something has already."""
    detail = f"there is a file {path.name} already, and it is not replaced: move it away or take another name"
    return InvalidInput(detail, file=path.name)


def draft_of(path: Path) -> Path:
    """A name in the same folder that no other attempt has; it begins with a dot."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")


def publish(draft: Path, path: Path) -> bool:
    """Give a draft, written and synced, its name in one step; False, with the draft gone, where the name is taken."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def write_draft(path: Path, content: bytes) -> Path:
    """A draft of `path` with this content, on the disk."""
    draft = draft_of(path)
    with draft.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return draft


def sync_folder(place: Path) -> None:
    """Make new names in a folder survive a power cut, where the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
