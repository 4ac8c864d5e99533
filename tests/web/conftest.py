"""Fixtures for tests of the edge."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness import Keyturn, running
from tests.web.edge import Edge, served


@pytest.fixture
async def keyturn(database_url: str) -> AsyncIterator[Keyturn]:
    """A Keyturn with the test graphs and no worker yet."""
    async with running(database_url) as found:
        yield found


@pytest.fixture
async def edge(keyturn: Keyturn) -> AsyncIterator[Edge]:
    """The API served over HTTP, with no worker yet."""
    async with served(keyturn) as found:
        yield found
