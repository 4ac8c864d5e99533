"""What every executor is given beside its own settings, and the masking of secrets in what it brings back.

An executor reads no other state: everything that decides what runs is in the step's settings and this context.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

from pydantic import AfterValidator

from orchestrator.core.canonical import MASK, redact

Result: TypeAlias = dict[str, object]

OUTPUT_BYTES = 64 * 1024
# Shorter values ("true", "1") are words of their own; masking them everywhere would hide more than the secret.
_SHORTEST_SECRET = 6
_LARGEST = 2**63
# Every repetition is bounded or begins at a fixed word: output is long, and must not be able to stall the worker.
_NAMED = re.compile(
    r"(?P<name>(?:password|passwd|token|secret|api[_-]?key|private[_-]?key)[\w-]{0,40}[\"']?\s{0,4}[=:]\s{0,4})"
    r"(?P<value>\"[^\"\n]{0,500}\"|'[^'\n]{0,500}'|[^\s,;&]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(r"(authorization[\"']?\s{0,4}[=:]\s{0,4})[^\r\n]+", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(://[^\s:/@]{0,200}:)[^\s/@]{1,500}@")
_PEM = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL)


def _filled(items: Sized) -> Sized:
    if not items:
        raise ValueError("is empty; allowed: one entry or more")
    return items


# After the entries themselves, so that a wrong entry is not reported as a missing one too.
FILLED = AfterValidator(_filled)


def names_secret(name: str) -> bool:
    """Whether values under this name are secrets (rule 25)."""
    return redact({name: "x"}) != {name: "x"}


def secret_texts(value: object) -> Iterable[str]:
    """Every text under a key that names a secret, at any depth of a JSON value."""
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[str, object]", value).items():
            yield from _all_texts(item) if names_secret(key) else secret_texts(item)
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[object]", value):
            yield from secret_texts(item)


def _all_texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in cast("Mapping[str, object]", value).values():
            yield from _all_texts(item)
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[object]", value):
            yield from _all_texts(item)


class Secrets:
    """Hides known secrets, and what looks like one, in text and JSON that a step brings back.

    Known are `texts`, and the values of the worker's own environment variables whose names say secret.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        known = {*texts, *_from_environment(os.environ)}
        # The longest first, so that a secret that contains another is hidden whole.
        self._known = sorted((text for text in known if len(text) >= _SHORTEST_SECRET), key=len, reverse=True)

    def plus(self, texts: Iterable[str]) -> Secrets:
        """These secrets and `texts`."""
        return Secrets((*self._known, *texts))

    def hide(self, text: str) -> str:
        """`text` without secrets."""
        for known in self._known:
            text = text.replace(known, MASK)
        text = _PEM.sub(MASK, text)
        text = _IN_ADDRESS.sub(rf"\g<1>{MASK}@", text)
        text = _HEADER.sub(rf"\g<1>{MASK}", text)
        return _NAMED.sub(rf"\g<name>{MASK}", text)

    def clean(self, result: Mapping[str, object]) -> Result:
        """A JSON object without secrets, by key and by content, and without what JSON in Postgres cannot hold.

        The step has run by now: an odd character in its output must not make it look as if it had not.
        """
        return cast("Result", self._walk(redact(result)))

    def _walk(self, value: object) -> object:
        if isinstance(value, str):
            return self.hide(_storable(value))
        if isinstance(value, int):
            return value if -_LARGEST <= value < _LARGEST else str(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, Mapping):
            return {_storable(key): self._walk(item) for key, item in cast("Mapping[str, object]", value).items()}
        if isinstance(value, list):
            return [self._walk(item) for item in cast("list[object]", value)]
        return value


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _from_environment(environment: Mapping[str, str]) -> Iterable[str]:
    for name, value in environment.items():
        if names_secret(name):
            yield value
        address = re.match(r"[a-z][a-z0-9+.-]*://[^\s:/@]*:([^\s/@]+)@", value, re.IGNORECASE)
        if address:
            yield address[1]


@dataclass(frozen=True, slots=True)
class Context:
    """One run of one step.

    `key` is the idempotency key to hand to the target, empty for a step that only reads. `values` fill the templates.
    `folder` holds the runbooks, `data_dir` what Keyturn keeps on this machine. `check` looks at the result and raises
    StepFailed when it is not what the runbook expects; a transaction is committed only after it.
    """

    step: str
    workflow_id: str
    key: str
    values: Mapping[str, object]
    folder: Path
    data_dir: Path
    seconds: float
    secrets: Secrets
    check: Callable[[Mapping[str, object]], None]

    @property
    def reads_only(self) -> bool:
        """Whether the step must leave its target as it is."""
        return not self.key
