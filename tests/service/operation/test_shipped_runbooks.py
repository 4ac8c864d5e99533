"""The shipped runbooks on real targets: what was approved runs, once, or is undone."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from graphs.operation import graph
from orchestrator.core.errors import DigestMismatch, InvalidInput, RolledBack, StepFailed, ToolMissing
from orchestrator.sdk.options import ATTRIBUTE
from tests.operations import SHIPPED, Killed, Operations, needs_terraform


def ids(jobs: psycopg.Connection) -> list[int]:
    return [row[0] for row in jobs.execute("SELECT id FROM public.jobs ORDER BY id")]


async def test_the_plan_counts_the_gate_asks_for_exactly_that_and_that_runs(
    operations: Operations, jobs: psycopg.Connection
) -> None:
    action = await operations.submit("purge-old-rows", table="jobs", keep_days=30, where={"state": "done"})
    assert (action["operation"], action["environment"], action["target"]) == (
        "delete_rows",
        "development",
        "local/jobs",
    )
    assert action["arguments"]["where"] == {"state": "done"}
    assert action["metadata"]["rows"] == 5
    assert action["metadata"]["runbook"] == "purge-old-rows"
    assert len(action["metadata"]["runbook_digest"]) == 64
    assert action["metadata"]["steps"][0].startswith("delete: sql on local: DELETE FROM ${table!identifier}")
    assert operations.asked.value["description"] == "Delete 5 rows of jobs that are older than 30 days"
    assert len(ids(jobs)) == 10
    done = await operations.approve()
    assert done["outcome"] == "applied"
    assert done["report"]["steps"][0]["result"]["rows"] == 5
    assert done["report"]["checks"] == ["none-left"]
    assert ids(jobs) == [6, 7, 8, 9, 10]
    assert operations.effects() == {"apply": "finished", "apply:0": "finished"}


async def test_another_number_of_rows_than_approved_deletes_nothing(
    operations: Operations, jobs: psycopg.Connection
) -> None:
    await operations.submit("purge-old-rows", table="jobs", keep_days=30)
    jobs.execute("INSERT INTO public.jobs VALUES (11, 'late', now() - interval '50 days')")
    with pytest.raises(StepFailed, match="apply step delete: rows is 8, expected 7"):
        await operations.approve()
    assert len(ids(jobs)) == 11
    # The cause is gone, so a retry may run what was approved.
    jobs.execute("DELETE FROM public.jobs WHERE id = 11")
    assert (await operations.again())["outcome"] == "applied"
    assert ids(jobs) == [8, 9, 10]


async def test_rows_that_grow_old_while_the_approval_waits_are_not_deleted(
    operations: Operations, jobs: psycopg.Connection
) -> None:
    action = await operations.submit("purge-old-rows", table="jobs", keep_days=0)
    jobs.execute("INSERT INTO public.jobs VALUES (11, 'new', now())")
    assert action["metadata"]["rows"] == 10
    await operations.approve()
    assert ids(jobs) == [11]


async def test_a_worker_killed_after_the_commit_does_not_delete_again(
    operations: Operations, jobs: psycopg.Connection
) -> None:
    await operations.submit("purge-old-rows", table="jobs", keep_days=30)
    operations.ledger.kill_at_end_of = "apply:0"
    with pytest.raises(Killed):
        await operations.approve()
    assert ids(jobs) == [8, 9, 10]
    done = await operations.again()
    assert (done["outcome"], done["report"]["steps"][0]["result"]["rows"]) == ("applied", 7)
    applied = jobs.execute("SELECT count(*) FROM public.keyturn_applied").fetchone()
    assert applied == (1,)


@pytest.mark.parametrize("name", ["apply", "apply:0"])
async def test_a_worker_killed_before_the_step_is_followed_by_one_that_runs_it(
    operations: Operations, jobs: psycopg.Connection, name: str
) -> None:
    await operations.submit("purge-old-rows", table="jobs", keep_days=30)
    operations.ledger.kill_at_start_of = name
    with pytest.raises(Killed):
        await operations.approve()
    assert len(ids(jobs)) == 10
    assert (await operations.again())["outcome"] == "applied"
    assert ids(jobs) == [8, 9, 10]


async def test_a_runbook_edited_after_the_request_does_not_run(
    operations: Operations, own: Path, jobs: psycopg.Connection
) -> None:
    text = (SHIPPED / "runbooks" / "purge-old-rows.yaml").read_text()
    (own / "purge-old-rows.yaml").write_text(text)
    await operations.submit("purge-old-rows", table="jobs", keep_days=30)
    (own / "purge-old-rows.yaml").write_text(text.replace("DELETE FROM", "DELETE FROM ONLY"))
    with pytest.raises(DigestMismatch, match="differs from what was approved in: metadata"):
        await operations.approve()
    assert len(ids(jobs)) == 10
    assert operations.effects() == {}


async def test_bad_names_and_values_are_refused_by_the_plan(operations: Operations, jobs: psycopg.Connection) -> None:
    with pytest.raises(InvalidInput, match="runbook purge-old-rows: table: 'jobs; DROP"):
        await operations.submit("purge-old-rows", table="jobs; DROP TABLE jobs", keep_days=1)
    with pytest.raises(InvalidInput, match="keep_days"):
        await Operations().submit("purge-old-rows", table="jobs", keep_days="1")
    with pytest.raises(StepFailed, match='plan step count: local: relation "none" does not exist'):
        await Operations().submit("purge-old-rows", table="none", keep_days=1)
    assert len(ids(jobs)) == 10


async def test_vacuum_analyze_runs_and_checks_that_it_did(operations: Operations, jobs: psycopg.Connection) -> None:
    action = await operations.submit("vacuum-analyze", table="public.jobs")
    assert (action["operation"], operations.asked.value["risk"]) == ("vacuum_analyze", "low")
    assert (await operations.approve())["report"]["checks"] == ["statistics-are-new"]


def test_the_schema_of_the_input_comes_from_the_runbooks(operations: Operations) -> None:
    schema = getattr(graph(), ATTRIBUTE).input_schema
    names = ["deploy-local-service", "purge-old-rows", "terraform-change", "vacuum-analyze"]
    assert schema["properties"]["runbook"]["enum"] == names


# Terraform


@needs_terraform
async def test_the_terraform_plan_that_was_approved_is_applied(operations: Operations, tmp_path: Path) -> None:
    action = await operations.submit("terraform-change", replicas=3)
    facts = action["metadata"]
    assert (facts["additions"], facts["changes"], facts["deletions"], len(facts["plan_digest"])) == (4, 0, 0, 64)
    done = await operations.approve()
    assert done["report"]["steps"][0]["result"]["added"] == 4
    assert done["report"]["checks"] == ["nothing-left-to-change"]
    fewer = await Operations().submit("terraform-change", replicas=1)
    assert fewer["metadata"]["deletions"] == 2
    assert (tmp_path / "data" / "terraform" / "terraform-example-development.tfstate").exists()


@needs_terraform
async def test_a_changed_plan_file_is_refused_and_the_approval_stays(operations: Operations, tmp_path: Path) -> None:
    action = await operations.submit("terraform-change", replicas=3)
    kept = tmp_path / "data" / "plans" / "wf_test" / f"{action['metadata']['plan_digest']}.tfplan"
    content = kept.read_bytes()
    kept.write_bytes(content + b"x")
    with pytest.raises(DigestMismatch, match="not the one that was approved"):
        await operations.approve()
    assert operations.effects() == {}
    kept.write_bytes(content)
    assert (await operations.again())["outcome"] == "applied"


@needs_terraform
@pytest.mark.parametrize("when", ["kill_at_start_of", "kill_at_end_of"])
async def test_a_terraform_apply_cut_short_is_looked_at_before_it_is_repeated(
    operations: Operations, tmp_path: Path, when: str
) -> None:
    await operations.submit("terraform-change", replicas=1)
    setattr(operations.ledger, when, "apply:0")
    with pytest.raises(Killed):
        await operations.approve()
    assert (await operations.again())["outcome"] == "applied"
    state = json.loads((tmp_path / "data" / "terraform" / "terraform-example-development.tfstate").read_text())
    assert len(state["resources"]) == 2


async def test_without_terraform_the_plan_says_so(operations: Operations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolMissing, match="terraform is not installed on this machine"):
        await operations.submit("terraform-change")


# The local service


@pytest.fixture
def port(operations: Operations, tmp_path: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    yield number
    script = SHIPPED / "runbooks" / "service" / "local_service.py"
    state = tmp_path / "data" / "services"
    subprocess.run([sys.executable, script, "stop", "--port", str(number), "--state", state], check=True)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", number)) != 0


def served(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
        return json.load(answer)["version"]


async def deploy(port: int, version: str, operations: Operations | None = None) -> dict[str, Any]:
    running = operations or Operations()
    await running.submit("deploy-local-service", version=version, port=port)
    return await running.approve()


async def test_a_healthy_version_is_deployed_and_an_ill_one_is_rolled_back(port: int) -> None:
    assert (await deploy(port, "1.0"))["outcome"] == "applied"
    assert await asyncio.to_thread(served, port) == "1.0"
    ill = Operations()
    with pytest.raises(RolledBack, match=r"answered 503.*rolled back by restore") as failed:
        await deploy(port, "broken-2.0", ill)
    assert failed.value.code == "rolled_back"
    assert await asyncio.to_thread(served, port) == "1.0"
    assert ill.effects() == {"apply": "finished", "apply:0": "finished", "rollback:0": "finished"}
    # It is over: a retry says the same and does nothing.
    with pytest.raises(RolledBack):
        await ill.again()


async def test_a_first_version_that_is_ill_leaves_nothing_running(port: int) -> None:
    with pytest.raises(RolledBack):
        await deploy(port, "broken-1.0")
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(served, port)


async def test_a_deployment_approved_over_another_version_is_refused_and_undone(port: int) -> None:
    late = Operations()
    await late.submit("deploy-local-service", version="2.0", port=port)
    await deploy(port, "1.0")
    with pytest.raises(RolledBack, match=r"1\.0 runs on port \d+, and nothing was expected"):
        await late.approve()


async def test_a_worker_killed_during_a_deployment_leaves_one_instance(port: int) -> None:
    operations = Operations()
    await operations.submit("deploy-local-service", version="1.0", port=port)
    operations.ledger.kill_at_end_of = "apply:0"
    with pytest.raises(Killed):
        await operations.approve()
    done = await operations.again()
    assert "runs already" in done["report"]["steps"][0]["result"]["stdout"]
