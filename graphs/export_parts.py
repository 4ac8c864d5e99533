"""The batches of an export on disk, and the one file made of them.

A batch is a file named by its number and its digest, with a record beside it that is written last: where the record is,
the batch is whole and on the disk. A worker that was taken for dead and goes on writing makes files of other names, or
the very same; which of them is part of the export, the ledger of effects says and nobody else.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, cast

from graphs import files
from orchestrator.sdk import StepFailed

_NOT_HERE = "is not on this machine, or was changed; let all workers share one KEYTURN_EXPORT_DIR"
_READ = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """One finished batch. `last` is the key of its last row, None for a batch without rows."""

    number: int
    rows: int
    size: int
    sha256: str
    last: tuple[str, ...] | None

    def to_json(self) -> dict[str, object]:
        """For the ledger and the record."""
        return {**asdict(self), "last": None if self.last is None else list(self.last)}

    @classmethod
    def from_json(cls, kept: Mapping[str, object]) -> Self:
        """What `to_json` gave."""
        last = cast("list[str] | None", kept["last"])
        return cls(
            cast("int", kept["number"]), cast("int", kept["rows"]), cast("int", kept["size"]), str(kept["sha256"]),
            None if last is None else tuple(last),
        )  # fmt: skip


class Draft:
    """A batch while it is written, under a name that no other attempt has."""

    def __init__(self, path: Path) -> None:
        self.path = files.draft_of(path)
        self.size = 0
        self._digest = hashlib.sha256()
        self._file = self.path.open("xb")

    async def write(self, content: bytes) -> None:
        """Add to it."""
        await asyncio.to_thread(self.append, content)

    def append(self, content: bytes) -> None:
        """The same, from a thread."""
        self._file.write(content)
        self._digest.update(content)
        self.size += len(content)

    @property
    def sha256(self) -> str:
        """The digest of what was written."""
        return self._digest.hexdigest()

    def sync(self) -> None:
        """Have all of it on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Away with it, if it is still there."""
        self._file.close()
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Parts:
    """The batches of one workflow, in a folder of its own on the disk of the finished exports."""

    place: Path

    @classmethod
    def of(cls, exports: Path, workflow_id: str) -> Self:
        """Of this workflow; the folder is there afterwards."""
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", workflow_id):
            raise StepFailed(f"{workflow_id!r} cannot name a folder for the batches of an export")
        place = exports / ".parts" / workflow_id
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(place)

    def draft(self) -> Draft:
        """Where the next batch is written."""
        return Draft(self.place / "batch")

    def keep(self, draft: Draft, number: int, rows: int, last: tuple[str, ...] | None) -> Batch:
        """Keep what was written as the batch `number`: first the rows, then the record, each whole and synced."""
        draft.sync()
        batch = Batch(number, rows, draft.size, draft.sha256, last)
        draft.path.replace(self._rows_of(batch))
        files.sync_folder(self.place)
        record = self._rows_of(batch).with_suffix(".json")
        files.write_draft(record, json.dumps(batch.to_json()).encode()).replace(record)
        files.sync_folder(self.place)
        return batch

    def find(self, number: int) -> Batch | None:
        """The batch `number`, if it was finished here; of two that two workers made, either is right."""
        for record in sorted(self.place.glob(f"{number:06}.*.json")):
            batch = Batch.from_json(json.loads(record.read_text(encoding="utf-8")))
            if self._is_there(batch):
                return batch
        return None

    def check(self, batch: Batch) -> None:
        """StepFailed when a finished batch is not here (any more)."""
        if not self._is_there(batch):
            raise StepFailed(f"batch {batch.number} of the export {_NOT_HERE}", batch=batch.number)

    def _is_there(self, batch: Batch) -> bool:
        rows = self._rows_of(batch)
        return rows.is_file() and rows.stat().st_size == batch.size

    def _rows_of(self, batch: Batch) -> Path:
        return self.place / f"{batch.number:06}.{batch.sha256}.csv"

    def list_all(self, batches: Sequence[Batch]) -> str:
        """Write down which batches make up the export; the digest of that list is what the workflow's state keeps."""
        content = json.dumps([batch.to_json() for batch in batches]).encode()
        digest = hashlib.sha256(content).hexdigest()
        place = self._list(digest)
        files.write_draft(place, content).replace(place)
        files.sync_folder(self.place)
        return digest

    def listed(self, digest: str) -> list[Batch]:
        """The batches of a list. StepFailed when it is not here or is not what it was."""
        place = self._list(digest)
        content = place.read_bytes() if place.is_file() else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise StepFailed(f"the list of batches {_NOT_HERE}")
        return [Batch.from_json(one) for one in json.loads(content)]

    def _list(self, digest: str) -> Path:
        return self.place / f"list.{digest}.json"

    def join(self, batches: Sequence[Batch], name: str) -> tuple[Path, str]:
        """A draft with all batches, on the disk, and its SHA-256; each is compared with its own digest."""
        draft = Draft(self.place / name)
        try:
            for batch in batches:
                self._append(batch, draft)
            draft.sync()
        except BaseException:
            draft.discard()
            raise
        return draft.path, draft.sha256

    def _append(self, batch: Batch, draft: Draft) -> None:
        self.check(batch)
        digest = hashlib.sha256()
        with self._rows_of(batch).open("rb") as rows:
            while chunk := rows.read(_READ):
                digest.update(chunk)
                draft.append(chunk)
        if digest.hexdigest() != batch.sha256:
            raise StepFailed(f"batch {batch.number} of the export {_NOT_HERE}", batch=batch.number)

    def draft_with(self, content: bytes) -> Path:
        """A draft with this content, on the disk."""
        return files.write_draft(self.place / "manifest", content)

    def remove(self) -> None:
        """Away with the batches: the finished file has them."""
        shutil.rmtree(self.place, ignore_errors=True)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
