"""The anchor: a signed list of the heads of all chains, to keep where the database's owner cannot write.

Lines of JSON: whose and when, one head a line, and a last line that signs everything before it. Ed25519 over a running
SHA-256, so that a long one is written and checked line by line. Nothing here reads a key's file or a clock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from orchestrator.core.audit import Head
from orchestrator.core.errors import AnchorInvalid, InvalidInput

_VERSION: Final = 1
# What is signed begins with this, so that no other signature of the key can pass for an anchor's.
_DOMAIN: Final = b"keyturn anchor 1\n"
_HASH_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class AnchorFacts:
    """What a good anchor says of itself; `public_key` is the key that it names, in hex."""

    namespace: str
    at: str
    chains: int
    public_key: str


def make_key() -> bytes:
    """A new signing key, as PEM."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(pem: bytes) -> Ed25519PrivateKey:
    """The signing key in a PEM text; raises InvalidInput."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise InvalidInput("it does not hold an unencrypted private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput("it holds a key of another kind than Ed25519")
    return key


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public half of a key, in hex: what who checks an anchor must know from somewhere else."""
    return key.public_key().public_bytes_raw().hex()


class AnchorWriter:
    """Gives the lines of one anchor, in order: `begin`, `head` for each chain, `end`."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._digest = hashlib.sha256()
        self._chains = 0

    def begin(self, namespace: str, at: datetime) -> str:
        """The first line."""
        return self._line({"keyturn_anchor": _VERSION, "namespace": namespace, "at": at.isoformat()})

    def head(self, name: str, head: Head) -> str:
        """The line of one chain."""
        self._chains += 1
        return self._line([name, head.seq, head.hash.hex()])

    def end(self) -> str:
        """The last line, with the signature."""
        digest = self._digest.digest()
        signed = {
            "chains": self._chains, "digest": digest.hex(), "public_key": public_hex(self._key),
            "signature": self._key.sign(_DOMAIN + digest).hex(),
        }  # fmt: skip
        return json.dumps(signed) + "\n"

    def _line(self, value: object) -> str:
        line = json.dumps(value) + "\n"
        self._digest.update(line.encode())
        return line


def check_anchor(lines: Iterable[str], public_key: str | None = None) -> AnchorFacts:
    """Check an anchor's form and signature, by `public_key` (hex) or else by the key that it names itself.

    Raises AnchorInvalid, and InvalidInput when `public_key` is not a key.
    """
    digest = hashlib.sha256()
    first: Mapping[str, Any] | None = None
    last: Mapping[str, Any] | None = None
    chains = 0
    for number, line in enumerate(lines, start=1):
        value = _value(number, line)
        if last is not None:
            raise AnchorInvalid(f"line {number} stands behind the signature")
        if isinstance(value, list):
            _head(number, cast("list[Any]", value))
            chains += 1
        elif number == 1:
            first = cast("Mapping[str, Any]", value)
        else:
            last = cast("Mapping[str, Any]", value)
            continue
        digest.update((line.rstrip("\r\n") + "\n").encode())
    if first is None or first.get("keyturn_anchor") != _VERSION:
        raise AnchorInvalid("this is not an anchor of Keyturn")
    if last is None or last.get("chains") != chains:
        raise AnchorInvalid("the anchor is cut off: it has no signature of everything before it")
    named = str(last.get("public_key"))
    wanted, signature = named if public_key is None else public_key, str(last.get("signature"))
    _check_signature(wanted, digest.digest(), signature, given=public_key is not None)
    return AnchorFacts(str(first.get("namespace")), str(first.get("at")), chains, named)


def anchored_heads(lines: Iterable[str]) -> Iterator[tuple[str, Head]]:
    """Chain and head of each line of an anchor that `check_anchor` has found good."""
    for number, line in enumerate(lines, start=1):
        value = _value(number, line)
        if isinstance(value, list):
            yield _head(number, cast("list[Any]", value))


def _value(number: int, line: str) -> object:
    try:
        value: object = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, list | dict):
        raise AnchorInvalid(f"line {number} is not one of an anchor")
    return cast("object", value)


def _head(number: int, value: list[Any]) -> tuple[str, Head]:
    try:
        name, seq, digest = value
        head = Head(seq, bytes.fromhex(digest))
    except (ValueError, TypeError):
        raise AnchorInvalid(f"line {number} is not the head of a chain") from None
    if not isinstance(name, str) or type(seq) is not int or len(head.hash) not in (0, _HASH_BYTES):
        raise AnchorInvalid(f"line {number} is not the head of a chain")
    return name, head


def _check_signature(public_key: str, digest: bytes, signature: str, *, given: bool) -> None:
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
    except ValueError:
        if given:
            raise InvalidInput("the public key is not 64 hexadecimal digits; `keyturn audit key` shows it") from None
        raise AnchorInvalid("the anchor names no public key") from None
    try:
        key.verify(bytes.fromhex(signature), _DOMAIN + digest)
    except (InvalidSignature, ValueError):
        why = "it was changed, or signed with another key" if given else "it was changed"
        raise AnchorInvalid(f"the anchor's signature is not right: {why}") from None
