"""The runner fails where it must: every single expectation of a scenario, made wrong, is told as a difference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tests.acceptance import comparing, playing
from tests.acceptance.playing import graphs_of
from tests.acceptance.reading import read_file
from tests.acceptance.table import Table
from tests.acceptance.times import Clock
from tests.acceptance.translating import write_config
from tests.acceptance.world import world

RIGHT = """
directory: {bob: [sre], carol: [sre], rita: []}
scenarios:
- id: X1
  policies: {p: {1: {stages: [[{role: sre, n: 2}]], risk: high}}}
  steps:
  - {t: 0m, do: submit, req: R1, policy: p, by: rita, expect: {status: 201, state: pending, risk: high, due: 4h}}
  - {t: 1m, do: vote, req: R1, by: bob, decision: approve, expect: {status: 200, code: recorded, state: pending}}
  - {t: 2m, do: vote, req: R1, by: rita, decision: approve, expect: {status: 403, code: self_approval, state: pending}}
  - {t: 3m, do: vote, req: R1, by: carol, decision: approve, expect: {status: 200, code: resolved, state: approved}}
  - {t: 4m, do: execute, req: R1, expect: {status: 200, code: executed, state: executed}}
  final:
    R1: {state: executed, filled: {bob: sre, carol: sre}, void: {}, dissent: [], flags: [], policy_versions: [1],
         outbox: [resume]}
"""


def spoiled(value: object) -> object:
    """Something of the same kind, and wrong."""
    match value:
        case int():
            return value + 1
        case str():
            return "5h" if value == "4h" else f"{value}_not"
        case dict():
            return {**cast("dict[str, object]", value), "nobody": "sre"}
        case _:
            return [*cast("list[object]", value), "another"]


async def differences(database_url: str, tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "x.yaml"
    file.write_text(text, encoding="utf-8")
    (scenario,) = read_file(file)
    config = write_config(scenario, tmp_path / "config")
    async with world(database_url, config, graphs_of(scenario), Clock(scenario.t0)) as made:
        table = Table(scenario, made)
        await playing.play(table)
    return table.differences


async def test_a_scenario_with_the_right_expectations_has_no_differences(database_url: str, tmp_path: Path) -> None:
    assert await differences(database_url, tmp_path, RIGHT) == []


async def test_every_wrong_expectation_of_a_scenario_is_told(database_url: str, tmp_path: Path) -> None:
    document = cast("dict[str, Any]", yaml.safe_load(RIGHT))
    scenario = document["scenarios"][0]
    wrong = 0
    for step in scenario["steps"]:
        wrong += len(step["expect"])
        step["expect"] = {key: spoiled(value) for key, value in step["expect"].items()}
    for end in scenario["final"].values():
        wrong += len(end)
        end |= {key: spoiled(value) for key, value in end.items()}
    found = await differences(database_url, tmp_path, yaml.safe_dump(document))
    assert len(found) == wrong, "\n".join(found)


async def test_a_refusal_nobody_expected_is_told(database_url: str, tmp_path: Path) -> None:
    text = RIGHT.replace("expect: {status: 403, code: self_approval, state: pending}", "expect: {state: pending}")
    (found,) = await differences(database_url, tmp_path, text)
    assert "was not expected to be refused: 403 self_approval" in found


@pytest.mark.parametrize(
    ("key", "expected", "got"),
    [
        ("state", "approved", {"state": "lapsed", "ran_out": False}),
        ("state", "lapsed", {"state": "approved", "ran_out": False}),
        ("state", "executed", {"state": "lapsed", "ran_out": True}),
        ("void", {"bob": "revised"}, {"void": []}),
        ("void", {"bob@1": "revised"}, {"void": [{"person": "bob", "revision": 2, "reason": "revised"}]}),
        ("void", {"bob": "revised"}, {"void": [{"person": "bob", "revision": 1, "reason": "role_lost"}]}),
        ("outbox", ["resume"], {"outbox": ["resume", "resume"]}),
        ("outbox", [], {"outbox": ["cancel"]}),
        ("reason", "expired", {"reason": ["not today", None]}),
        ("bypassed", ["freeze", "quorum"], {"bypassed": ["sre"]}),
        ("bypassed", [], {"bypassed": ["freeze"]}),
        ("policy_versions", [1, 2], {"policy_versions": ["2", "1"]}),
        ("events", {"approval-reminded": 1}, {"events": {"approval-reminded": 2}}),
        ("ran", [{"arguments": {"n": 1}}], {"ran": [{"arguments": {"n": 2}}]}),
        ("ran", [], {"ran": [{}]}),
    ],
)
def test_ends_are_compared_whole(key: str, expected: object, got: Mapping[str, object]) -> None:
    assert comparing.final("final.R1", {key: expected}, got)


@pytest.mark.parametrize(
    ("types", "commands"),
    [
        ([("confirmation-resolved", "approved")], ["resume"]),
        ([("confirmation-resolved", "answered")], ["resume"]),
        ([("confirmation-resolved", "rejected"), ("workflow-rejected", "")], ["cancel"]),
        ([("confirmation-resolved", "rejected")], ["resume"]),
        ([("confirmation-resolved", "expired"), ("workflow-timed-out", "")], ["cancel"]),
        ([("confirmation-resolved", "withdrawn"), ("workflow-cancelled", "")], ["cancel"]),
        ([("confirmation-resolved", "approved"), ("confirmation-resolved", "approved")], ["resume", "resume"]),
        ([("confirmation-required", "pending"), ("workflow-cancelled", "")], []),
    ],
)
def test_commands_are_read_from_what_was_resolved(types: list[tuple[str, str]], commands: list[str]) -> None:
    events = [{"type": kind, "seq": n, "data": {"state": state}} for n, (kind, state) in enumerate(types)]
    assert comparing.outbox(events) == commands
