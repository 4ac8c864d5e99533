"""Bugs, planted on purpose: a check that cannot fail proves nothing. Each is a mistake that somebody could make."""

from __future__ import annotations


def plant(name: str) -> None:
    raise NotImplementedError(name)
