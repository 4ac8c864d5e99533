"""Canonical JSON, digests, the event hash chain, and the masking of secrets.

A digest is always over the real values (rule 25); what is shown, logged or streamed goes through `redact` first.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast

MASK = "«hidden»"
MAX_DEPTH = 64
# A secret of fewer characters is hidden only where it stands in quotes: it may be part of any word.
_SHORTEST = 4
_SECRET = re.compile(r"password|passwd|token|secret|api[_-]?key|authorization|private[_-]?key", re.IGNORECASE)
# What comes before the credential in the value of an Authorization header.
_SCHEME = re.compile(r"(?:basic|bearer|token|apikey) +(?=\S)", re.IGNORECASE)
# An ASCII text in which the pattern above matches contains one of these, in small or capital letters.
_HINTS = ("passw", "token", "secret", "api", "authorization", "private")

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> str:
    """`value` as JSON with sorted keys, no spaces, UTF-8; ValueError for NaN, infinities and what JSON cannot say."""
    return _CANONICAL.encode(value)


def without(value: Mapping[str, object], paths: Iterable[str]) -> dict[str, object]:
    """A copy of `value` without the fields at the dotted `paths` (`metadata.build_time`)."""
    result = dict(value)
    for path in paths:
        head, _, rest = path.partition(".")
        inner = result.get(head)
        if not rest:
            result.pop(head, None)
        elif isinstance(inner, Mapping):
            result[head] = without(inner, [rest])  # pyright: ignore[reportUnknownArgumentType] JSON objects have string keys
    return result


def digest(action: Mapping[str, object], volatile: Iterable[str] = ()) -> str:
    """SHA-256, hex, over the canonical JSON of `action` without its declared volatile fields (rule 9)."""
    return hashlib.sha256(canonical_json(without(action, volatile)).encode()).hexdigest()


def chain_hash(previous: bytes, seq: int, at: datetime, kind: str, actor: str, body: str) -> bytes:
    """The hash of one event: SHA-256 over the previous hash, number, time (UTC, microseconds), type, actor and body.

    `body` is the exact stored text. The database computes the same in `keyturn.event_hash`.
    """
    stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return hashlib.sha256(previous + f"\n{seq}\n{stamp}\n{kind}\n{actor}\n{body}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Hiding:
    """Takes these secrets out of texts."""

    secrets: frozenset[str]

    @property
    def longest(self) -> int:
        """So many characters, quotes included, may what is looked for have; 0 where there is nothing."""
        return max((len(form) + 2 for secret in self.secrets for form in _forms(secret)), default=0)

    def __call__(self, text: str) -> str:
        """`text` without them."""
        return _hidden(text, self.secrets) if self.secrets else text


class Redactor:
    """Masks the values of keys that name secrets, at any depth. `extra` adds key patterns (case ignored)."""

    def __init__(self, extra: Sequence[str] = ()) -> None:
        self.configure(extra)

    def configure(self, extra: Sequence[str]) -> None:
        """Mask the values of keys that contain any of `extra` too, from now on: once, when a process starts."""
        patterns = [_SECRET.pattern, *(re.escape(name) for name in extra)]
        pattern = re.compile("|".join(patterns), re.IGNORECASE)

        # Keys repeat: a workflow's events have a few dozen between them.
        def names_a_secret(key: str) -> bool:
            return pattern.search(key) is not None

        self._secret = lru_cache(maxsize=4096)(names_a_secret)
        self._hints = (*_HINTS, *(canonical_json(name)[1:-1].lower() for name in extra))
        # Other letters may match in ways that small letters do not tell.
        self._hints_suffice = all(name.isascii() for name in extra)

    def __call__(self, value: object) -> object:
        """A copy of a JSON value with secrets replaced by a mask, also where one of its texts repeats them."""
        return self._walk(value, 0, self._secrets(value, 0, hidden=False))

    def beside(self, value: object, others: object) -> object:
        """The same, also where a text of it repeats a secret of `others`: what was edited may quote what it was."""
        return self._walk(value, 0, self._secrets([value, others], 0, hidden=False))

    def text(self, value: object) -> str:
        """The canonical JSON of a value with its secrets masked, as calling this and then `canonical_json` gives it."""
        try:
            text = canonical_json(value)
        except (TypeError, RecursionError):
            return canonical_json(self(value))
        return text if self._is_clean(text) else canonical_json(self(value))

    def _is_clean(self, text: str) -> bool:
        """Whether JSON text plainly names no secret and is not nested too deep: most is, and walking it costs more."""
        if not self._hints_suffice or not text.isascii() or text.count("{") + text.count("[") > MAX_DEPTH:
            return False
        lowered = text.lower()
        return not any(hint in lowered for hint in self._hints)

    def hide(self, text: str, value: object) -> str:
        """`text` without the secrets that the JSON value holds: a description may repeat its arguments."""
        return _hidden(text, self._secrets(value, 0, hidden=False))

    def hiding(self, value: object) -> Hiding:
        """What `hide` does with the secrets of `value`, for many texts."""
        return Hiding(frozenset(self._secrets(value, 0, hidden=False)))

    def _secrets(self, value: object, depth: int, *, hidden: bool) -> set[str]:
        """The texts below keys that name secrets; every text when `hidden`. Numbers count as little: `max_tokens`."""
        if depth > MAX_DEPTH:
            return set()
        if isinstance(value, Mapping):
            items = cast("Mapping[object, object]", value).items()
            below = [(item, hidden or self._secret(str(key))) for key, item in items]
        elif isinstance(value, list | tuple):
            below = [(item, hidden) for item in cast("Sequence[object]", value)]
        else:
            return {value, value[_after_scheme(value) :]} if hidden and isinstance(value, str) and value else set()
        return {secret for item, inside in below for secret in self._secrets(item, depth + 1, hidden=inside)}

    def _walk(self, value: object, depth: int, secrets: set[str]) -> object:
        if depth > MAX_DEPTH:
            return MASK
        if isinstance(value, Mapping):
            items = cast("Mapping[object, object]", value)
            return {
                str(key): MASK
                if self._secret(str(key)) and item not in (None, "")
                else self._walk(item, depth + 1, secrets)
                for key, item in items.items()
            }
        if isinstance(value, list | tuple):
            return [self._walk(item, depth + 1, secrets) for item in cast("Sequence[object]", value)]
        return _hidden(value, secrets) if secrets and isinstance(value, str) else value


def _after_scheme(value: str) -> int:
    found = _SCHEME.match(value)
    return found.end() if found else 0


def _forms(secret: str) -> tuple[str, str, str]:
    """A secret as it is, and as JSON writes it."""
    return secret, json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(secret)[1:-1]


def _hidden(text: str, secrets: Collection[str]) -> str:
    """`text` without any of `secrets`, as they are or as JSON writes them."""
    for secret in sorted(secrets, key=len, reverse=True):
        for form in _forms(secret):
            if len(form) >= _SHORTEST:
                text = text.replace(form, MASK)
            else:
                text = text.replace(f"'{form}'", f"'{MASK}'").replace(f'"{form}"', f'"{MASK}"')
    return text


redact = Redactor()


def restored(given: object, real: object, others: object = None) -> object:
    """`given` with `real`'s values where it has their masks: what was read with its secrets hidden can be sent back.

    `others` hold more secrets that were hidden in it.
    """
    return _restored(given, real, redact.beside(real, others))


def _restored(given: object, real: object, shown: object) -> object:
    if isinstance(shown, str):
        return real if MASK in shown and given == shown else given
    if isinstance(given, Mapping) and isinstance(real, Mapping) and isinstance(shown, Mapping):
        known, seen = cast("Mapping[str, object]", real), cast("Mapping[str, object]", shown)
        items = cast("Mapping[str, object]", given).items()
        return {key: _restored(item, known[key], seen[key]) if key in known else item for key, item in items}
    if isinstance(given, list) and isinstance(real, list) and isinstance(shown, list):
        rows = cast("list[object]", given), cast("list[object]", real), cast("list[object]", shown)
        # A list of another length has no places that belong together.
        return [_restored(*row) for row in zip(*rows, strict=True)] if len({*map(len, rows)}) == 1 else rows[0]
    return cast("object", given)
