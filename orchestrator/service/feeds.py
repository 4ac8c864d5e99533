"""Events over several workflows, a page at a time, in the order of their positions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Everything:
    """Every workflow of the caller's namespace."""


@dataclass(frozen=True, slots=True)
class OfCase:
    """The workflows of a case."""

    case_id: str


@dataclass(frozen=True, slots=True)
class OfThread:
    """The runs of a thread."""

    thread_key: str


Scope = Everything | OfCase | OfThread
