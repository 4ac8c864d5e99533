"""Fixtures for tests of use cases and the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness import Keyturn, running


@pytest.fixture
async def keyturn(database_url: str) -> AsyncIterator[Keyturn]:
    """A Keyturn with the test graphs and no worker yet."""
    async with running(database_url) as found:
        yield found
