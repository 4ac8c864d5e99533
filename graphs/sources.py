"""Reading the sources of a research: files of one folder, and addresses on the internet, each within limits.

What was read is kept under its digest until the report is written, so that no source is read twice and the report is
about exactly the bytes whose digest it names.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Self, cast

import httpx

from graphs import files
from orchestrator.sdk import StepFailed
from orchestrator.sdk.guarded_http import DeniedAddress, Guard
from orchestrator.sdk.operations import data_dir

LONGEST = 1024 * 1024
_SECONDS = 20.0
_BY_ENDING = {".html": "text/html", ".htm": "text/html", ".json": "application/json", ".xml": "application/xml"}
_TEXT = re.compile(r"text/.*|application/(json|xml|xhtml\+xml|[\w.-]+\+(json|xml))")
# Encodings of text only: Python knows others, some of which take long on purpose-made bytes.
_CHARSET = re.compile(
    r"charset=\"?(utf-8|us-ascii|iso-8859-\d+|windows-125\d|koi8-[ru]|shift_jis|euc-(?:jp|kr)|gb\d+|big5)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Source:
    """A source as it was read. `error` says why it could not be, the rest is empty then."""

    name: str
    media_type: str = ""
    charset: str = "utf-8"
    size: int = 0
    sha256: str = ""
    read_at: str = ""
    error: str = ""

    def to_json(self) -> dict[str, object]:
        """For the ledger and the state."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, object]) -> Self:
        """What `to_json` gave."""
        return cls(**cast("Mapping[str, str]", kept))  # pyright: ignore[reportArgumentType] sizes are numbers


def is_address(name: str) -> bool:
    """Whether a source is an address; otherwise it is a file."""
    return "://" in name


def private_allowed() -> bool:
    """Whether one's own network may be asked, and http without TLS be spoken: KEYTURN_RESEARCH_PRIVATE=true."""
    return os.environ.get("KEYTURN_RESEARCH_PRIVATE", "").strip().lower() in ("true", "1", "yes")


async def fetch(address: str) -> tuple[bytes, str]:
    """What an address gives, and its content type. StepFailed or DeniedAddress where it gives nothing to read."""
    private = private_allowed()
    guard = Guard(private, private, seconds=_SECONDS, longest=LONGEST)
    try:
        found = await guard.request("GET", address, b"", {"Accept": "text/*, application/json, application/xml"})
    except DeniedAddress as denied:
        hint = "" if private else "; one's own network and http:// need KEYTURN_RESEARCH_PRIVATE=true"
        raise DeniedAddress(denied.detail + hint) from None
    if httpx.codes.is_redirect(found.status):
        raise StepFailed(f"it answered {found.status}: redirects are not followed, name the address it leads to")
    if not httpx.codes.is_success(found.status):
        raise StepFailed(f"it answered {found.status}")
    if not found.whole:
        raise _too_long()
    return found.body, str(found.headers.get("content-type", ""))


def read_file(name: str) -> tuple[bytes, str]:
    """What a file of the folder for sources holds, and its content type by its ending."""
    path = files.inside(files.folder("KEYTURN_RESEARCH_DIR", "sources"), name)
    if not path.is_file():
        raise StepFailed("there is no such file in the folder for sources")
    with path.open("rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise _too_long()
    return content, _BY_ENDING.get(path.suffix.lower(), "text/plain")


def _too_long() -> StepFailed:
    return StepFailed(f"it is longer than {LONGEST:,} bytes")


@dataclass(frozen=True, slots=True)
class Shelf:
    """What a workflow has read, each text under its digest."""

    place: Path

    @classmethod
    def of(cls, workflow_id: str) -> Self:
        """Of this workflow; the folder is there afterwards."""
        place = data_dir() / "research" / re.sub(r"[^A-Za-z0-9_-]", "_", workflow_id)
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(place)

    def keep(self, name: str, content: bytes, content_type: str) -> Source:
        """Keep what was read. StepFailed when it is not text."""
        media_type = content_type.partition(";")[0].strip().lower() or "text/plain"
        if not _TEXT.fullmatch(media_type) or b"\0" in content:
            raise StepFailed(f"it is no text ({media_type}); only text, HTML, JSON and XML can be read")
        digest = hashlib.sha256(content).hexdigest()
        files.write_draft(self.place / digest, content).replace(self.place / digest)
        files.sync_folder(self.place)
        charset = _CHARSET.search(content_type)
        read_at = datetime.now(UTC).isoformat(timespec="seconds")
        return Source(name, media_type, charset[1] if charset else "utf-8", len(content), digest, read_at)

    def text(self, source: Source) -> str:
        """The text of a source that was read. StepFailed when it is not here (any more)."""
        place = self.place / source.sha256
        content = place.read_bytes() if place.is_file() else b""
        if hashlib.sha256(content).hexdigest() != source.sha256:
            raise StepFailed(
                f"what was read of {source.name} is not on this machine; let workers share KEYTURN_DATA_DIR"
            )
        try:
            text = content.decode(source.charset, errors="replace")
        except LookupError:  # such as iso-8859-99
            text = content.decode(errors="replace")
        return _Page.text_of(text) if "html" in source.media_type else text

    def remove(self) -> None:
        """Away with it: the report is written."""
        shutil.rmtree(self.place, ignore_errors=True)


class _Page(HTMLParser):
    """The text that a page shows."""

    _HIDDEN = frozenset(("script", "style", "noscript", "template", "svg", "head", "nav", "footer"))
    _INLINE = frozenset(
        ("a", "abbr", "b", "code", "em", "i", "mark", "q", "s", "small", "span", "strong", "sub", "sup", "u")
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._pieces: list[str] = []
        self._hidden = 0

    @classmethod
    def text_of(cls, page: str) -> str:
        """The text of a page, with a blank line between paragraphs."""
        reader = cls()
        reader.feed(page)
        reader.close()
        lines = ("".join(reader._pieces)).split("\n")
        return "\n\n".join(line for line in (" ".join(one.split()) for one in lines) if line)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        # A page may leave out the end of its head.
        self._hidden = 0 if tag == "body" else self._hidden + (tag in self._HIDDEN)
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in self._HIDDEN))
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._pieces.append(data.replace("\n", " "))

    def _break(self, tag: str) -> None:
        if tag not in self._INLINE:
            self._pieces.append("\n")
