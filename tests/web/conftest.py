"""Fixtures for tests of the edge."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.harness import Keyturn, running
from tests.web.edge import Edge, served
from tests.web.team import Team


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


@pytest.fixture
async def team(edge: Edge, keyturn: Keyturn) -> AsyncIterator[Team]:
    """The people of the harness, each with a key, and a worker."""
    async with contextlib.AsyncExitStack() as stack:
        people = {
            name: await stack.enter_async_context(edge.http(await edge.key(name)))
            for name in ("rita", "tom", "tara", "theo", "cleo")
        }
        await stack.enter_async_context(keyturn.working())
        yield Team(edge, keyturn, people)
