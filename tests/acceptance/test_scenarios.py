"""Plays scenario files through the HTTP API: every file of KEYTURN_SCENARIOS, or of this folder's `scenarios`.

FORMAT.md describes the files. A file that cannot be read fails as a test of its own, naming itself.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.acceptance import playing, routing
from tests.acceptance.malformed import MalformedError
from tests.acceptance.playing import graphs_of
from tests.acceptance.reading import Scenario, read_file, read_folder
from tests.acceptance.table import Table
from tests.acceptance.times import Clock
from tests.acceptance.translating import write_config
from tests.acceptance.world import world

FOLDER = Path(os.environ.get("KEYTURN_SCENARIOS") or Path(__file__).parent / "scenarios")


def _parameters() -> list[object]:
    try:
        files = read_folder(FOLDER)
    except MalformedError as error:
        return [pytest.param(error, id="no-scenarios")]
    found: list[object] = []
    for file in files:
        try:
            found += [pytest.param(one, id=str(one)) for one in read_file(file)]
        except MalformedError as error:
            found.append(pytest.param(error, id=f"malformed-{file.stem}"))
    return found


@pytest.mark.parametrize("scenario", _parameters())
async def test_scenario(scenario: Scenario | MalformedError, database_url: str, tmp_path: Path) -> None:
    if isinstance(scenario, MalformedError):
        pytest.fail(str(scenario), pytrace=False)
    config = write_config(scenario, tmp_path / "config")
    async with world(database_url, config, graphs_of(scenario), Clock(scenario.t0)) as made:
        table = Table(scenario, made)
        await playing.play(table)
        if scenario.routing:
            await routing.play(table)
    if table.differences:
        told = "\n  ".join(table.differences)
        pytest.fail(f"{scenario.file}: {scenario.id} {scenario.title}\n  {told}", pytrace=False)
