"""Steps that a crash or a failure cut short: looked up, asked about, retried or undone; never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
from langgraph.types import Command

from orchestrator.core.errors import RolledBack, StepFailed
from orchestrator.sdk.effects import DID_NOT_HAPPEN, HAPPENED
from tests.operations import Killed, Operations

TWO_STEPS = """\
name: two-steps
description: Two steps
operation: two_steps
parameters: {type: object, properties: {}}
apply:
  - name: first
    command: {argv: ["${keyturn.python}", log.py, first]}
  - name: second
    command: {argv: ["${keyturn.python}", log.py, second]}
"""
LOG = """\
import os, pathlib, sys
with open("log", "a") as log: print(sys.argv[1], os.environ["KEYTURN_IDEMPOTENCY_KEY"], file=log)
sys.exit(pathlib.Path("fail-" + sys.argv[1]).exists())
"""


def log(own: Path) -> list[str]:
    return [line.split()[0] for line in (own / "log").read_text().splitlines()]


@pytest.fixture
def two_steps(own: Path) -> Path:
    (own / "log.py").write_text(LOG)
    (own / "two-steps.yaml").write_text(TWO_STEPS)
    return own


@pytest.mark.parametrize(
    ("answer", "ran"), [(HAPPENED, ["first", "second"]), (DID_NOT_HAPPEN, ["first", "first", "second"])]
)
async def test_a_person_is_asked_about_a_step_that_nobody_can_look_up(
    operations: Operations, two_steps: Path, answer: str, ran: list[str]
) -> None:
    await operations.submit("two-steps")
    operations.ledger.kill_at_end_of = "apply:0"
    with pytest.raises(Killed):
        await operations.approve()
    question = (await operations.again())["__interrupt__"][0]
    assert question.value["options"][:2] == [HAPPENED, DID_NOT_HAPPEN]
    assert log(two_steps) == ["first"]
    done = await operations.go(Command(resume={question.id: {"answer": answer, "by": "grace"}}))
    assert done["outcome"] == "applied"
    assert log(two_steps) == ran
    keys = {line.split()[1] for line in (two_steps / "log").read_text().splitlines()}
    assert keys == {"wf_test:operation:1:apply:0", "wf_test:operation:1:apply:1"}


async def test_a_failed_step_is_retried_and_the_one_before_it_is_not(operations: Operations, two_steps: Path) -> None:
    await operations.submit("two-steps")
    (two_steps / "fail-second").touch()
    with pytest.raises(StepFailed, match=r"apply step second: .* ended with exit code 1"):
        await operations.approve()
    (two_steps / "fail-second").unlink()
    assert (await operations.again())["outcome"] == "applied"
    assert log(two_steps) == ["first", "second", "second"]


@pytest.mark.parametrize("happened", [True, False])
async def test_verified_by_decides_about_a_step_that_was_cut_short(
    operations: Operations, two_steps: Path, happened: bool
) -> None:
    code = "import os, json; print(json.dumps(os.path.exists('mark')))"
    probe = f'command: {{argv: ["${{keyturn.python}}", -c, "{code}"], output: json}}'
    checked = TWO_STEPS.replace("log.py, first]}", "log.py, first]}\n    verified_by:\n"
                                f"      {probe}\n      expect: {{json: true}}")  # fmt: skip
    (two_steps / "two-steps.yaml").write_text(checked)
    await operations.submit("two-steps")
    operations.ledger.kill_at_end_of = "apply:0"
    with pytest.raises(Killed):
        await operations.approve()
    if happened:
        (two_steps / "mark").touch()
    assert (await operations.again())["outcome"] == "applied"
    assert log(two_steps) == (["first", "second"] if happened else ["first", "first", "second"])


async def test_a_failing_apply_rolls_back_and_a_failing_roll_back_can_be_retried(
    operations: Operations, two_steps: Path
) -> None:
    undo = 'rollback:\n  - name: undo\n    command: {argv: ["${keyturn.python}", log.py, undo]}\n'
    (two_steps / "two-steps.yaml").write_text(TWO_STEPS + undo)
    await operations.submit("two-steps")
    (two_steps / "fail-second").touch()
    (two_steps / "fail-undo").touch()
    with pytest.raises(StepFailed, match="the roll-back failed and may be incomplete: rollback step undo"):
        await operations.approve()
    (two_steps / "fail-undo").unlink()
    with pytest.raises(RolledBack, match=r"apply step second.*rolled back by undo"):
        await operations.again()
    assert log(two_steps) == ["first", "second", "undo", "undo"]
