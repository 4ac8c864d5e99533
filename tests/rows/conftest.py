"""Fixtures for the tests of capability rows: the same as those of the edge."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.rows.office import Office, office
from tests.web.conftest import edge, keyturn, team

__all__ = ["edge", "keyturn", "team"]


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Office]:
    """An office with a worker."""
    async with office(database_url) as found, found.keyturn.working():
        yield found


@pytest.fixture
async def closed(database_url: str) -> AsyncIterator[Office]:
    """An office where nobody works."""
    async with office(database_url) as found:
        yield found
