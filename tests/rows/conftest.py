"""Fixtures for the tests of capability rows: the same as those of the edge."""

from __future__ import annotations

from tests.web.conftest import edge, keyturn, team

__all__ = ["edge", "keyturn", "team"]
