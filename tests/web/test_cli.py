"""The command line as people and scripts run it: a real process, a real server on another port, exit codes, files."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pty
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from orchestrator.cli import main
from orchestrator.cli.credentials import Credentials, UsageError, find_target, write_credentials
from orchestrator.cli.durations import parse_duration
from orchestrator.cli.output import safe
from orchestrator.cli.workflows import read_input
from tests.harness import APPS, Keyturn
from tests.web.edge import ALL, Edge

HERE = "http://127.0.0.1:8123"


@dataclass
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


async def in_a_process(*arguments: str, cwd: Path, given: str = "", **environment: str) -> Done:
    """Run `keyturn` in a process of its own, with nothing of this one's settings; `given` is its standard input."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator.cli", *arguments,
        cwd=cwd, env={**clean, "HOME": str(cwd), **environment},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(given.encode()), 60)
    return Done(process.returncode or 0, out.decode(), err.decode())


async def keyturn_command(*arguments: str, cwd: Path, **environment: str) -> Done:
    """Run `keyturn` in a thread: the same entry point, without the seconds that a new interpreter takes."""
    out, err = io.StringIO(), io.StringIO()

    def run() -> int:
        with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as ended:
                return int(ended.code or 0)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("KEYTURN_"):
                patch.delenv(name)
        for name, value in {"HOME": str(cwd), **environment}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["keyturn", *arguments])
        return Done(await asyncio.to_thread(run), out.getvalue(), err.getvalue())


def command_on_a_terminal(*arguments: str, url: str, key: str, cwd: Path) -> str:
    """What `keyturn` shows on a terminal 140 columns wide."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        environment = {**os.environ, "KEYTURN_URL": url, "KEYTURN_KEY": key, "COLUMNS": "140", "TERM": "xterm"}
        os.execve(sys.executable, [sys.executable, "-m", "orchestrator.cli", *arguments], environment)  # noqa: S606 - our own program
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    return shown.decode()


async def test_the_four_commands_work_against_a_server_on_another_port(
    edge: Edge, keyturn: Keyturn, tmp_path: Path
) -> None:
    tara = {"KEYTURN_URL": edge.url, "KEYTURN_KEY": await edge.key("tara")}
    async with keyturn.working():
        first = await keyturn.submit("governed", operation="deploy", environment="production")
        second = await keyturn.submit("governed", operation="deploy", environment="production")
        for workflow_id in (first, second):
            await keyturn.asked(workflow_id)
        listed = await in_a_process("list-pending", cwd=tmp_path, **tara)
        assert listed.code == 0, listed.err
        rows = [line.split("\t") for line in listed.out.splitlines()]
        assert {row[0] for row in rows} == {first, second}
        assert all(row[2] == "high" for row in rows)
        approved = await in_a_process("approve", "--justification", "a; b 'c'", "--", first, cwd=tmp_path, **tara)
        assert (approved.code, approved.err) == (0, "")
        rejected = await in_a_process("reject", second, "--reason", "no", "--json", cwd=tmp_path, **tara)
        assert rejected.code == 0
        assert json.loads(rejected.out)["state"] == "rejected"
        done = await keyturn.until(first, "completed")
        assert done.approvals[0].votes[0].justification == "a; b 'c'"
        status = await in_a_process("status", first, cwd=tmp_path, **tara)
        assert status.code == 0
        assert "status\tcompleted" in status.out.splitlines()
        watched = await keyturn_command("watch", second, cwd=tmp_path, **tara)
        assert watched.code == 1
        assert "workflow-rejected" in watched.out.splitlines()[-1]


async def test_a_workflow_is_submitted_asked_and_answered(edge: Edge, keyturn: Keyturn, tmp_path: Path) -> None:
    tom = {"KEYTURN_URL": edge.url, "KEYTURN_KEY": await edge.key("tom")}
    async with keyturn.working():
        submitted = await keyturn_command("submit", "parallel", "--title", "\x1b[31mred", cwd=tmp_path, **tom)
        assert submitted.code == 0, submitted.err
        workflow_id = submitted.out.strip()
        await keyturn.until(workflow_id, "waiting")
        ambiguous = await keyturn_command("answer", workflow_id, "yes", cwd=tmp_path, **tom)
        assert ambiguous.code == 1
        ids = [one.approval_id for one in (await keyturn.get(workflow_id)).approvals]
        assert all(one in ambiguous.err for one in ids)
        vague = await keyturn_command("approve", workflow_id, cwd=tmp_path, **tom)
        assert vague.code == 1
        assert all(one in vague.err for one in ids)
        for one in ids:
            answered = await keyturn_command("answer", workflow_id, "yes", "--approval-id", one, cwd=tmp_path, **tom)
            assert answered.code == 0, answered.err
        watched = await keyturn_command("watch", workflow_id, "--json", cwd=tmp_path, **tom)
        assert watched.code == 0
        types = [json.loads(line)["type"] for line in watched.out.splitlines()]
        assert types == await keyturn.types(workflow_id)
        listed = await keyturn_command("list", cwd=tmp_path, **tom)
        assert "\\x1b[31mred" in listed.out
        assert "\x1b" not in listed.out


async def test_a_status_shows_whole_what_is_to_be_decided_about(edge: Edge, keyturn: Keyturn, tmp_path: Path) -> None:
    tara = {"KEYTURN_URL": edge.url, "KEYTURN_KEY": await edge.key("tara")}
    risky: dict[str, object] = {"operation": "deploy", "environment": "production"}
    content = {**risky, "arguments": {"version": "v7", "api_key": "hunter22"}}
    waiting = await keyturn.submit("governed", **content)
    asking = await keyturn.submit("yes_or_no")
    async with keyturn.ctx.db.connection() as conn:
        await conn.execute("UPDATE keyturn.workers SET seen_at = now() - interval '1 minute'")
    unserved = (await keyturn_command("status", waiting, cwd=tmp_path, **tara)).out.splitlines()
    assert "note\tno worker that is up serves graph governed; it runs as soon as one does" in unserved
    async with keyturn.working():
        await keyturn.asked(waiting)
        await keyturn.asked(asking)
        shown = (await keyturn_command("status", waiting, cwd=tmp_path, **tara)).out.splitlines()
        assert 'arguments\t{"version": "v7", "api_key": "«hidden»"}' in shown
        assert {"operation\tdeploy", "environment\tproduction"} <= set(shown)
        assert any(line.startswith("expires\t") for line in shown)
        assert not any(line.startswith("note\t") for line in shown)
        asked = (await keyturn_command("status", asking, cwd=tmp_path, **tara)).out.splitlines()
        assert f"answer with\tkeyturn answer {asking} ANSWER" in asked
        answered = await keyturn_command("answer", asking, "yes", cwd=tmp_path, **tara)
        assert answered.code == 0, answered.err
        assert (await keyturn.until(asking, "completed", "failed")).result == {"log": ["sure=True"]}


async def test_exit_codes_tell_refusal_usage_and_silence_apart(edge: Edge, tmp_path: Path) -> None:
    good = {"KEYTURN_URL": edge.url, "KEYTURN_KEY": await edge.key("tom", ("read",))}
    for code, arguments, environment, told in [
        (0, ["list"], good, ""),
        (1, ["status", "wf-none"], good, "not_found"),
        (1, ["submit", "steps"], good, "forbidden"),
        (1, ["list"], {**good, "KEYTURN_KEY": "kt_wrong"}, "unauthenticated"),
        (1, ["list"], {"KEYTURN_URL": edge.url}, "KEYTURN_KEY"),
        (2, ["status"], good, "Missing argument"),
        (2, ["submit", "steps", "--input", "{"], good, "not JSON"),
        (2, ["list", "--profile", "nowhere"], {}, "no profile nowhere"),
        (2, ["capture", ""], good, "cannot be sent: text: String should have at least 1 character\n"),
        (2, ["watch", "wf-none", "--case", "a"], good, "not both"),
        (2, ["serve"], {}, "KEYTURN_DATABASE_URL"),
        (2, ["up", "--app", "nowhere.json"], {}, "nowhere.json"),
        (3, ["list"], {**good, "KEYTURN_URL": "http://127.0.0.1:1"}, "does not answer"),
        (3, ["migrate"], {"KEYTURN_DATABASE_URL": "postgresql://x:y@127.0.0.1:1/z"}, "away"),
    ]:
        done = await keyturn_command(*arguments, cwd=tmp_path, **environment)
        assert done.code == code, (arguments, done)
        assert told in done.err, (arguments, done)
        assert "Traceback" not in done.err
    refused = await keyturn_command("status", "wf-none", "--json", cwd=tmp_path, **good)
    assert json.loads(refused.out)["code"] == "not_found"


async def test_a_new_database_gets_its_first_key_from_the_command_line(empty_database_url: str, tmp_path: Path) -> None:
    database = {"KEYTURN_DATABASE_URL": empty_database_url}
    for early in (["bootstrap"], ["worker", "--app", str(APPS / "langgraph.json")]):
        told = await in_a_process(*early, cwd=tmp_path, **database)
        assert (told.code, "run `keyturn migrate`" in told.err, "Traceback" in told.err) == (1, True, False), told
    migrated = await in_a_process("migrate", cwd=tmp_path, **database)
    assert migrated.code == 0, migrated.err
    assert "applied 0001_spine" in migrated.out
    assert (await in_a_process("migrate", "--json", cwd=tmp_path, **database)).out == '{"applied": []}\n'
    first = await in_a_process("bootstrap", "--json", cwd=tmp_path, **database)
    assert first.code == 0, first.err
    assert json.loads(first.out)["person"] == "owner"
    again = await in_a_process("bootstrap", cwd=tmp_path, **database)
    assert again.code == 1
    assert "keyturn people add" in again.err


async def test_people_and_keys_are_managed_from_the_command_line(edge: Edge, tmp_path: Path) -> None:
    admin = {"KEYTURN_URL": edge.url, "KEYTURN_KEY": await edge.key("rita", ALL)}
    added = await keyturn_command("people", "add", "ann", "-r", "cto", "-r", "team_lead", cwd=tmp_path, **admin)
    assert (added.code, added.out) == (0, "ann: cto, team_lead\n"), added.err
    made = await keyturn_command("keys", "add", "ann", "--expires-in", "30d", cwd=tmp_path, **admin)
    key = made.out.strip()
    assert (await keyturn_command("list", cwd=tmp_path, KEYTURN_URL=edge.url, KEYTURN_KEY=f"{key}\n")).code == 0
    revoked = await keyturn_command("keys", "revoke", key.split("_")[1], cwd=tmp_path, **admin)
    assert revoked.code == 0
    listed = await keyturn_command("keys", "list", cwd=tmp_path, **admin)
    assert f"{key.split('_')[1]}\tann\tsubmit, read, decide\t\trevoked" in listed.out.splitlines()
    assert key not in listed.out


async def test_on_a_terminal_a_table_and_a_progress_bar_are_shown(edge: Edge, keyturn: Keyturn, tmp_path: Path) -> None:
    async with keyturn.working():
        workflow_id = await keyturn.submit("governed", operation="vacuum")
        await keyturn.until(workflow_id, "completed")
    key = await edge.key("tara")

    def on_terminal(*arguments: str) -> str:
        return command_on_a_terminal(*arguments, url=edge.url, key=key, cwd=tmp_path)

    listed = await asyncio.to_thread(on_terminal, "list")
    assert "WORKFLOW" in listed
    assert workflow_id in listed
    watched = await asyncio.to_thread(on_terminal, "watch", workflow_id)
    assert "100%" in watched
    assert "✔ act" in watched
    assert "━" in watched


def credentials(folder: Path, url: str = HERE, mode: int = 0o600) -> Path:
    """A credentials file as `up` writes it, with a key that says where it lies."""
    file = folder / ".keyturn" / "credentials.json"
    write_credentials(file, Credentials(url=url, key=f"key of {folder.name}", person="owner", namespace="default"))
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(mode)
    return file


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder deep in a project; the home folder is another."""
    deep = tmp_path / "project" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(deep)
    return tmp_path / "project"


def test_credentials_are_found_upward_and_then_at_home(project: Path) -> None:
    assert find_target(None, None, {}).key is None
    credentials(project.parent / "home")
    assert find_target(None, None, {}).key == "key of home"
    credentials(project)
    found = find_target(None, None, {})
    assert (found.url, found.key) == (HERE, "key of project")
    credentials(project.parent / "elsewhere")
    given = {"KEYTURN_DATA_DIR": str(project.parent / "elsewhere" / ".keyturn")}
    assert find_target(None, None, given).key == "key of elsewhere"


def test_a_credentials_file_that_others_can_read_is_not_used(project: Path) -> None:
    credentials(project, mode=0o640)
    assert find_target(None, None, {}).key is None


def test_a_key_is_not_sent_to_a_server_it_was_not_made_for(project: Path) -> None:
    credentials(project)
    assert find_target("http://localhost:9999", None, {}).key == "key of project"
    assert find_target("https://keyturn.example.org", None, {}).key is None
    assert find_target("https://keyturn.example.org", None, {"KEYTURN_KEY": " k\n"}).key == "k"
    assert find_target(None, None, {"KEYTURN_KEY": "k"}).url == HERE


def test_profiles_choose_server_and_key(project: Path) -> None:
    file = project / "config.toml"
    environment = {"KEYTURN_CONFIG_FILE": str(file), "STAGE_KEY": "s"}
    file.write_text(
        '[profiles.stage]\nurl = "https://stage"\nkey_env = "STAGE_KEY"\n[profiles.p]\nurl = "https://p"\nkey = "k"'
    )
    assert find_target(None, "stage", environment).key == "s"
    assert find_target(None, None, environment).key is None
    file.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        find_target(None, "p", environment)
    file.chmod(0o600)
    chosen = find_target(None, "p", environment)
    assert (chosen.url, chosen.key) == ("https://p", "k")
    with pytest.raises(UsageError, match="profiles: p, stage"):
        find_target(None, "other", environment)
    file.write_text('default = "stage"\n[profiles.stage]\nurl = "https://stage"')
    assert find_target(None, None, environment).url == "https://stage"
    assert find_target(HERE, None, environment).url == HERE
    file.write_text("[broken")
    with pytest.raises(UsageError, match="cannot be read"):
        find_target(None, None, environment)


def test_an_input_is_put_together_from_json_files_and_fields(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"a": {"b": 1}}')
    assert read_input(f"@{file}", ["a.c=[1]", "d=text", "e.f=null"]) == {
        "a": {"b": 1, "c": [1]},
        "d": "text",
        "e": {"f": None},
    }
    for values, assignments in (("[]", []), ("{", []), ("@/nowhere", []), ("{}", ["a"]), ('{"a": 1}', ["a.b=1"])):
        with pytest.raises(UsageError):
            read_input(values, assignments)


def test_foreign_text_cannot_drive_a_terminal() -> None:
    assert safe("plain “ü” 漢") == "plain “ü” 漢"
    assert safe("a\x1b[2J\r\n\u202e\u200b\x9b\ud800") == "a\\x1b[2J\\r\\n\\u202e\\u200b\\x9b\\ud800"
    assert safe(None) == ""


def test_lengths_of_time_are_read_with_their_units() -> None:
    assert [parse_duration(text).total_seconds() for text in ("90", "90s", "2m", "3 h", "1d")] == [
        90,
        90,
        120,
        10800,
        86400,
    ]
    with pytest.raises(typer.BadParameter, match="write 90s"):
        parse_duration("soon")
