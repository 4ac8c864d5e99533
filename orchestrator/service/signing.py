"""The file with the key that anchors are signed with: made once, closed to others, and read when it is needed.

What is signed is in `core.anchors`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.core.anchors import make_key, public_hex, read_key
from orchestrator.core.errors import AnchorKeyMissing, InvalidInput

FILE_NAME: Final = "anchor-key.pem"
_OWNER_ONLY: Final = 0o600
_HOW: Final = "make one with `keyturn audit key FILE` and name it in KEYTURN_ANCHOR_KEY_FILE where the server runs"


def load_key(file: Path | None) -> Ed25519PrivateKey:
    """The key in `file`; raises AnchorKeyMissing, which says what to do."""
    if file is None:
        raise AnchorKeyMissing(f"this server has no key to sign anchors with; {_HOW}")
    try:
        content = file.read_bytes()
        mode = file.stat().st_mode
    except OSError as error:
        raise AnchorKeyMissing(f"{file} cannot be read ({error.strerror}); {_HOW}") from error
    if sys.platform != "win32" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise AnchorKeyMissing(f"{file} can be read by others than its owner; close it with: chmod 600 {file}")
    try:
        return read_key(content)
    except InvalidInput as error:
        raise AnchorKeyMissing(f"{file}: {error.detail}; {_HOW}") from error


def ensure_key(file: Path) -> str:
    """See to it that `file` holds a key, and return its public half in hex; one that is there is kept."""
    # Written whole and then linked to its name: two processes that start at once must not overwrite each other's.
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        building = file.with_name(f"{file.name}.{os.getpid()}")
        descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
        try:
            with os.fdopen(descriptor, "wb") as writing:
                writing.write(make_key())
            with contextlib.suppress(FileExistsError):
                os.link(building, file)
        finally:
            building.unlink()
    return public_hex(load_key(file))
