"""Policies over HTTP, from the command line and by the clients."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.cli.up import _publish_policies
from orchestrator.config import POLICIES_FILE
from orchestrator.core.errors import InvalidDocument
from orchestrator.sdk.client import ApiError
from tests.harness import Keyturn
from tests.web.edge import Edge
from tests.web.test_cli import Done, keyturn_command

CONFIG = Path(__file__).resolve().parents[2] / "config"
TWO = """
policies:
  - name: deploys
    match: action.operation == 'deploy'
    stages: [[{role: tech_lead}, {role: cto}]]
"""
WRONG = "policies:\n  - name: deploys\n    fallback_role: boss\n    on_timeout: approve\n"


@dataclass
class Commands:
    """The command line in a folder of its own, as an administrator."""

    folder: Path
    environment: dict[str, str]

    async def run(self, *arguments: str, **more: str) -> Done:
        return await keyturn_command("policy", *arguments, cwd=self.folder, **{**self.environment, **more})


@pytest.fixture
async def commands(edge: Edge, tmp_path: Path) -> Commands:
    (tmp_path / "two.yaml").write_text(TWO)
    (tmp_path / "wrong.yaml").write_text(WRONG)
    return Commands(tmp_path, {"KEYTURN_URL": edge.url, "KEYTURN_KEY": await edge.key("tara")})


async def test_a_file_is_checked_without_a_server_and_every_mistake_told(tmp_path: Path) -> None:
    here = Commands(tmp_path, {"KEYTURN_URL": "http://127.0.0.1:9"})
    (tmp_path / "wrong.yaml").write_text(WRONG)
    (tmp_path / "two.yaml").write_text(TWO)
    done = await here.run("check", "wrong.yaml")
    assert (done.code, done.out) == (1, "")
    assert (
        "wrong.yaml:3: policies[0].fallback_role: the role 'boss' is not declared; allowed: cto, team_lead," in done.err
    )
    assert "wrong.yaml:4: policies[0].on_timeout: approve is for low risk alone" in done.err
    assert await here.run("check", "two.yaml") == Done(0, "two.yaml: 1 policy, no mistakes\n", "")
    as_json = await here.run("check", "two.yaml", "--json")
    assert json.loads(as_json.out) == {"file": "two.yaml", "policies": ["deploys"]}
    missing = await here.run("check", "none.yaml")
    assert (missing.code, missing.out) == (2, "")
    assert "none.yaml:1: (the file): does not exist" in missing.err


async def test_without_a_file_the_one_of_the_configuration_folder_is_checked(tmp_path: Path) -> None:
    shutil.copytree(CONFIG, tmp_path / "config")
    here = Commands(tmp_path, {})
    assert (await here.run("check")).out.endswith("approval-policies.yaml: 0 policies, no mistakes\n")
    (tmp_path / "config" / POLICIES_FILE).write_text(TWO)
    assert (await here.run("check")).out.endswith("approval-policies.yaml: 1 policy, no mistakes\n")


async def test_policies_are_published_and_listed_from_the_command_line(commands: Commands) -> None:
    assert (await commands.run("versions")).out == ""
    assert (await commands.run("publish", "two.yaml")).out == "version 1 is published: deploys 1\n"
    assert (await commands.run("publish", "two.yaml")).out == "version 1 is this text already; nothing has changed\n"
    listed = await commands.run("versions")
    assert listed.out.split("\t")[0] == "1"
    assert listed.out.split("\t")[2:] == ["tara", "two.yaml", "deploys 1\n"]
    refused = await commands.run("publish", "wrong.yaml")
    assert refused.code == 1
    assert "wrong.yaml:4: policies[0].on_timeout" in refused.err
    assert json.loads((await commands.run("versions", "--json")).out)["current"] == 1


async def test_a_file_is_tried_from_the_command_line(commands: Commands, keyturn: Keyturn) -> None:
    async with keyturn.working():
        approval = await keyturn.asked(await keyturn.submit("governed", operation="deploy", environment="production"))
    done = await commands.run("simulate", "two.yaml", "--limit", "5")
    assert done.out.splitlines() == [
        "1 of 1 requests would have gone otherwise",
        "",
        f"approval\t{approval.approval_id}",
        f"what\t{approval.description}",
        "risk\thigh",
        "policy\tlevel:high -> deploys",
        "stages\t1 of team_lead or tech_lead -> 1 of tech_lead and 1 of cto",
        "who can decide\ttara, theo, tom -> cleo, tara, theo",
        "could no more\ttom",
        "could as well\tcleo",
    ]
    assert (await commands.run("publish", "two.yaml")).code == 0
    told = await keyturn_command(
        "explain", "--action", '{"operation": "deploy"}', cwd=commands.folder, **commands.environment
    )
    assert "policy\tdeploys (1)\nchosen as\tdeploys is the first policy of version 1 that takes it: " in told.out


async def test_the_clients_publish_try_and_read(edge: Edge) -> None:
    async with edge.client() as client:
        done = await client.publish_policies(TWO, file="two.yaml")
        assert (done.version, done.changed) == (1, True)
        assert [one.version for one in (await client.policy_versions()).versions] == [1]
        assert (await client.policy_version(1)).text == TWO
        assert (await client.simulate_policies(TWO, limit=3)).replayed == 0
        with pytest.raises(ApiError) as caught:
            await client.publish_policies(WRONG, file="wrong.yaml")
    assert (caught.value.status, caught.value.code) == (422, "invalid_document")
    problems = caught.value.problem.facts["problems"]
    assert isinstance(problems, list)
    assert len(problems) == 2


async def test_what_is_no_publication_is_not_found_or_invalid(edge: Edge) -> None:
    async with edge.http(await edge.key()) as http:
        for path, status in (("9", 404), ("0", 404), ("-1", 404), ("x", 422), (str(2**40), 404)):
            assert (await http.get(f"/policy/versions/{path}")).status_code == status, path
        for body in ({}, {"text": 5}, {"text": TWO, "files": "x"}):
            assert (await http.post("/policy/publish", json=body)).status_code == 422, body
        assert (await http.post("/policy/simulate", json={"text": TWO, "limit": 1001})).status_code == 422
        assert (await http.post("/policy/publish", json={"text": "policies: [" * 100})).status_code == 422


async def test_starting_publishes_the_folders_file_and_stops_at_a_wrong_one(keyturn: Keyturn, tmp_path: Path) -> None:
    settings = keyturn.settings.model_copy(update={"config_dir": tmp_path})
    await _publish_policies(keyturn.ctx, settings)
    file = tmp_path / POLICIES_FILE
    file.parent.mkdir()
    for text, version in ((TWO, 1), (TWO, 1), (TWO.replace("cto", "team_lead"), 2)):
        file.write_text(text)
        await _publish_policies(keyturn.ctx, settings)
        assert (await keyturn.ctx.books.newest(keyturn.ctx.db, "default")).version == version
    file.write_text(WRONG)
    with pytest.raises(InvalidDocument, match=f"{file.name}:3: "):
        await _publish_policies(keyturn.ctx, settings)
