"""The words of messages: Jinja templates in files, checked when they are loaded and not when a message is due.

A file in the configuration folder stands in for the shipped one of the same name.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from orchestrator.core.channels import NoticeKind
from orchestrator.core.errors import InvalidDocument

FOLDER: Final = "templates/notifications"
_KINDS: Final[Sequence[str]] = get_args(NoticeKind)
_BASE: Final = "message.txt.j2"
_HTML: Final = "message.html.j2"
_NAMES: Final = (_BASE, _HTML, *(f"{kind}.{part}.j2" for kind in _KINDS for part in ("subject", "txt")))
_LONGEST_SUBJECT: Final = 200


@dataclass(frozen=True, slots=True)
class Words:
    """What a message says."""

    subject: str
    text: str
    html: str


class Templates:
    """All templates, compiled and tried. Raises InvalidDocument with file and line of every mistake."""

    def __init__(self, own: Path, shipped: Path) -> None:
        loader = FileSystemLoader([str(own / FOLDER), str(shipped / FOLDER)])
        self._environment = ImmutableSandboxedEnvironment(
            loader=loader, undefined=StrictUndefined, autoescape=_escaped, trim_blocks=True, lstrip_blocks=True,
            auto_reload=False,
        )  # fmt: skip
        problems = [*_strangers(own / FOLDER), *self._mistakes()]
        if problems:
            raise InvalidDocument(tuple(dict.fromkeys(problems)))

    def render(self, facts: Mapping[str, object]) -> Words:
        """What a message with these facts says."""
        kind = facts["kind"]
        subject = " ".join(self._template(f"{kind}.subject.j2").render(facts).split())[:_LONGEST_SUBJECT]
        text = self._template(f"{kind}.txt.j2").render(facts).strip() + "\n"
        return Words(subject, text, self._template(_HTML).render({**facts, "subject": subject, "text": text}))

    def _template(self, name: str) -> Template:
        environment: Environment = self._environment
        return environment.get_template(name)

    def _mistakes(self) -> Iterator[str]:
        found = False
        for name in _NAMES:
            try:
                self._template(name)
            except TemplateSyntaxError as error:
                found = True
                yield f"{error.filename or name}:{error.lineno}: (the template): {error.message}"
            except TemplateError as error:
                found = True
                yield f"{name}:1: (the template): {error}"
        # What cannot be compiled is not tried.
        for sample in () if found else _samples():
            try:
                self.render(sample)
            except Exception as error:  # noqa: BLE001 a template may do anything, and the operator is told what
                yield _failed(error)


def _escaped(name: str | None) -> bool:
    return name is None or name.endswith(".html.j2")


def _failed(error: Exception) -> str:
    """Where in which template an error arose: Jinja gives its frames the template's own file and lines."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    if not frames:
        return f"{FOLDER}:1: (the template): {error}"
    return f"{frames[-1].filename}:{frames[-1].lineno}: (the template): {error}"


def _strangers(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if path.name not in _NAMES:
            yield f"{path}:1: (the file): is not the name of a template; allowed: {', '.join(sorted(_NAMES))}"


def _samples() -> Iterator[dict[str, object]]:
    """Messages of every kind, with everything and with as little as there can be."""
    full: dict[str, object] = {
        "approval_id": "ap_1", "state": "pending", "asks": "approval", "risk": "high", "urgent": True, "title": "t",
        "graph": "g", "operation": "deploy", "environment": "production", "target": "shop", "resource_type": "service",
        "estimated_cost": 12.5, "arguments": "{}", "question": "Which?", "description": "d",
        "reasons": [{"level": "high", "text": "It deploys to production."}], "requester": "rita",
        "on_behalf_of": "paul", "roles": ["team_lead"], "due_at": "2026-01-01 12:00 UTC",
        "expires_at": "2026-01-01 12:00 UTC", "resolved_by": "tara", "note": "n", "data": {}, "people": ["tom"],
        "recipient": "tom", "links": {"page": "http://x", "approve": "http://x/a", "reject": "http://x/r"},
    }  # fmt: skip
    little: dict[str, object] = {
        **{name: type(value)() for name, value in full.items() if name != "estimated_cost"},
        "estimated_cost": None, "links": {"page": "http://x", "approve": "", "reject": ""},
    }  # fmt: skip
    for kind in _KINDS:
        for state in ("pending", "approved"):
            yield {**full, "kind": kind, "state": state}
            yield {**little, "kind": kind, "state": state}
