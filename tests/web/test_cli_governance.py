"""Governing from the command line: what a shell and a script get, and how a refusal ends."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from orchestrator.cli.durations import parse_time
from orchestrator.cli.output import needed
from tests.web.team import HIGH, IN_TURN, MEDIUM, Team
from tests.web.test_cli import Done, in_a_process, keyturn_command


@dataclass
class Shell:
    """The command line of each of the team, in a folder of its own."""

    team: Team
    folder: Path
    keys: dict[str, str]

    async def run(self, who: str, *arguments: str) -> Done:
        """Run a command as somebody."""
        return await keyturn_command(*arguments, cwd=self.folder, **await self.environment(who))

    async def environment(self, who: str) -> dict[str, str]:
        """What somebody's commands are given."""
        if who not in self.keys:
            self.keys[who] = await self.team.edge.key(who)
        return {"KEYTURN_URL": self.team.edge.url, "KEYTURN_KEY": self.keys[who]}

    async def lines(self, who: str, *arguments: str) -> list[str]:
        """What a command prints that does what it should."""
        done = await self.run(who, *arguments)
        assert (done.code, done.err) == (0, ""), done
        return done.out.splitlines()


@pytest.fixture
def shell(team: Team, tmp_path: Path) -> Shell:
    return Shell(team, tmp_path, {})


async def test_an_edit_shows_what_differs_and_the_votes_that_are_void(shell: Shell) -> None:
    await shell.team.policies(IN_TURN)
    one = await shell.team.asked({**HIGH, "arguments": {"version": "v1", "api_key": "hunter"}})
    await shell.lines("tom", "approve", one.workflow_id)
    edited = await shell.lines("theo", "edit", one.workflow_id, "--set", "arguments.version=v2", "--reason", "v1 fails")
    assert edited == [
        'arguments.version\t"v1" -> "v2"',
        f"{one.workflow_id}: revision 2, high risk; it waits for votes anew",
    ]
    shown = await shell.lines("tom", "status", one.workflow_id)
    assert "vote\tapprove by tom (void: revised)" in shown
    assert {"revision\t2", "edited by\ttheo", "stage 1 needs\t1 of team_lead", "stage 2 needs\t1 of tech_lead",
            "can decide\ttara, tom"} <= set(shown)  # fmt: skip
    (shell.folder / "action.json").write_text(json.dumps({**HIGH, "arguments": {"version": "v3"}}))
    whole = await shell.run("rita", "edit", one.approval_id, "--action", "@action.json", "--revision", "2", "--json")
    assert json.loads(whole.out)["revision"] == 3
    assert "hunter" not in whole.out
    for code, arguments, told in [
        (1, ["--set", "arguments.version=v4", "--revision", "1"], "stale_revision"),
        (2, ["--set", "arguments"], "write NAME=VALUE"),
        (2, ["--action", "{"], "--action is not JSON"),
        (2, [], "say what to change"),
    ]:
        refused = await shell.run("rita", "edit", one.workflow_id, *arguments)
        assert (refused.code, told in refused.err) == (code, True), refused
    piped = await in_a_process(
        "edit", one.approval_id, "--action", "-", cwd=shell.folder, given=json.dumps(HIGH),
        **await shell.environment("rita"),
    )  # fmt: skip
    assert (piped.code, piped.out.splitlines()[0]) == (0, 'arguments.version\t"v3" -> "v1"'), piped


async def test_a_request_is_withdrawn_by_who_asked_for_it(shell: Shell) -> None:
    one, other = await shell.team.asked(HIGH), await shell.team.asked(HIGH)
    refused = await shell.run("tom", "withdraw", one.workflow_id)
    assert (refused.code, "not_owner" in refused.err) == (1, True)
    assert await shell.lines("rita", "withdraw", one.workflow_id, "--reason", "done by hand") == [
        f"{one.workflow_id}: withdrawn"
    ]
    ended = await shell.run("rita", "withdraw", other.approval_id, "--json")
    assert json.loads(ended.out)["code"] == "withdrawn"


async def test_the_glass_is_broken_shown_and_reviewed(shell: Shell) -> None:
    await shell.team.policies(IN_TURN)
    one = await shell.team.asked(HIGH)
    assert (await shell.run("cleo", "break-glass", one.workflow_id)).code == 2, "it takes a justification"
    nothing = await shell.run("tom", "review", one.workflow_id, "--note", "fine")
    assert (nothing.code, "nobody broke the glass" in nothing.err) == (1, True)
    broken = await shell.lines("cleo", "break-glass", one.workflow_id, "--justification", "the shop is down")
    assert broken == [f"{one.workflow_id}: approved"]
    await shell.team.keyturn.until(one.workflow_id, "completed")
    shown = await shell.lines("tom", "status", one.workflow_id)
    assert {"flags\tbreak_glass", "bypassed\tteam_lead, tech_lead", "decided by\tcleo"} <= set(shown)
    assert any(line.startswith("review by\t") for line in shown)
    assert await shell.lines("tom", "review", one.workflow_id, "--note", "it was") == [
        f"{one.workflow_id}: executed; the review is done"
    ]
    assert "reviewed by\ttom" in await shell.lines("tom", "status", one.workflow_id)
    assert "flags\tbreak_glass" in await shell.lines("tom", "explain", one.approval_id)


async def test_a_batch_tells_of_each_decision_and_fails_when_any_is_refused(shell: Shell) -> None:
    first, second = await shell.team.asked(MEDIUM), await shell.team.asked(MEDIUM)
    good = json.dumps({"approval_id": first.approval_id, "verdict": "approve"})
    bad = json.dumps({"approval_id": second.approval_id, "verdict": "reject"})
    done = await in_a_process("batch", cwd=shell.folder, given=f"{good}\n\n{bad}\n", **await shell.environment("tom"))
    assert done.code == 1
    assert done.out.splitlines() == [
        f"{first.approval_id}\t200\tresolved\tapproved",
        f"{second.approval_id}\t422\tjustification_required\ta rejection needs a `reason`: say why, in a few words",
    ]
    (shell.folder / "many.jsonl").write_text("\n".join([good] * 150))
    many = await shell.run("tom", "batch", "many.jsonl", "--json")
    assert (many.code, {one["code"] for one in json.loads(many.out)["results"]}) == (0, {"replayed"})
    assert len(json.loads(many.out)["results"]) == 150
    for text, told in (
        ("", "there is no decision"),
        (f"{good}\n{{}}", "line 2: verdict: Field required"),
        ("{", "line 1"),
    ):
        (shell.folder / "wrong.jsonl").write_text(text)
        wrong = await shell.run("tom", "batch", "wrong.jsonl")
        assert (wrong.code, told in wrong.err) == (2, True), wrong
    assert (await shell.run("tom", "batch", "nowhere.jsonl")).code == 2


async def test_a_delegate_is_named_used_listed_and_ended(shell: Shell) -> None:
    one, other = await shell.team.asked(MEDIUM), await shell.team.asked(MEDIUM)
    (added,) = await shell.lines("tom", "delegate", "add", "cleo", "--until", "7d", "--reason", "holidays")
    delegation, _, told = added.partition(": ")
    assert told.startswith("cleo for tom from 20")
    (row,) = await shell.lines("cleo", "delegate", "list")
    assert row.split("\t")[:3] == [delegation, "tom", "cleo"]
    assert row.endswith("\tholidays")
    as_json = await shell.run("cleo", "delegate", "list", "--json")
    assert json.loads(as_json.out)[0]["from"] == "tom"
    assert await shell.lines("cleo", "approve", one.workflow_id, "--acting-for", "tom") == [
        f"{one.workflow_id}: approved"
    ]
    assert "vote\tapprove by cleo for tom" in await shell.lines("tom", "status", one.workflow_id)
    assert await shell.lines("tom", "delegate", "end", delegation) == [f"{delegation}: cleo for tom has ended"]
    refused = await shell.run("cleo", "reject", other.workflow_id, "--reason", "no", "--acting-for", "tom")
    assert (refused.code, "not_eligible" in refused.err) == (1, True)
    for_another = await shell.run(
        "theo", "delegate", "add", "cleo", "--from-person", "tara", "--starts", "2098-12-31", "--until", "2099-01-01",
        "--json",
    )  # fmt: skip
    assert json.loads(for_another.out)["from"] == "tara"
    when = await shell.run("tom", "delegate", "add", "cleo", "--until", "soon")
    assert (when.code, "is not a time" in when.err) == (2, True)


async def test_a_link_is_printed_for_who_is_to_decide_by_it(shell: Shell) -> None:
    one = await shell.team.asked(MEDIUM)
    (url,) = await shell.lines("tom", "link", one.workflow_id, "tom", "--expires-in", "1h")
    async with shell.team.edge.http() as browser:
        page = await browser.get(url)
        assert (page.status_code, "You are" in page.text) == (200, True)
        assert (await browser.post(url)).json()["state"] == "approved"
    too_long = await shell.run("tom", "link", one.workflow_id, "tom", "--expires-in", "8d")
    assert (too_long.code, "cannot be sent" in too_long.err) == (2, True)


async def test_what_waits_is_listed_with_what_is_unusual_in_the_columns_it_had(shell: Shell) -> None:
    await shell.team.policies(
        "{roles: [sre], policies: [{name: away, levels: [medium], stages: [[{role: sre}]], fallback_role: cto}]}"
    )
    one = await shell.team.asked(MEDIUM)
    (row,) = await shell.lines("cleo", "list-pending")
    cells = row.split("\t")
    assert len(cells) == 7
    assert cells[5].endswith("(unroutable_escalated)")
    told = await shell.lines("cleo", "explain", one.workflow_id)
    assert {"flags\tunroutable_escalated", "needs\t1 of sre, escalated to cto", "can decide\tcleo"} <= set(told)


def test_what_a_slot_needs_says_what_an_escalation_made_of_it() -> None:
    slot: dict[str, object] = {"any_of": ["dba", "sre"], "count": 2}
    assert needed([slot, {"any_of": ["cto"], "count": 1}]) == "2 of dba or sre and 1 of cto"
    assert needed([{**slot, "escalated": ["cto"]}]) == "2 of dba or sre, escalated to cto"
    closed = {**slot, "escalated": ["cto"], "closed_at": "2026-01-01T00:00:00+00:00"}
    assert needed([closed]) == "2 of cto in place of dba or sre"


def test_times_are_read_as_people_write_them() -> None:
    assert abs(parse_time("2h") - datetime.now(UTC) - timedelta(hours=2)) < timedelta(seconds=5)
    assert parse_time("2026-12-23T18:00+01:00") == datetime(2026, 12, 23, 17, tzinfo=UTC)
    assert parse_time("2026-12-23T18:00") == datetime(2026, 12, 23, 18).astimezone()
    assert parse_time("2026-12-23").tzinfo is not None
    with pytest.raises(typer.BadParameter, match="is not a time"):
        parse_time("soon")
