"""A graph is changed while one of its workflows waits: a pending node that is gone stops it, anything else does not."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template

from orchestrator.service import workflows
from tests.faults.conftest import Farm

GRAPH = Template("""
from typing import TypedDict

from langgraph.graph import END, START, StateGraph

from orchestrator.sdk import ask


class State(TypedDict, total=False):
    target: str
    said: str


def $asking(state: State) -> State:
    return {"said": f"$words {ask('go on?')}"}


builder = StateGraph(State)
builder.add_node("$asking", $asking)
builder.add_edge(START, "$asking")
builder.add_edge("$asking", END)
graph = builder.compile()
""")


def release(folder: Path, asking: str, words: str) -> Path:
    """An application as somebody would deploy it."""
    folder.mkdir()
    (folder / "changing_graph.py").write_text(GRAPH.substitute(asking=asking, words=words), encoding="utf-8")
    app = folder / "langgraph.json"
    app.write_text(json.dumps({"graphs": {"changing": "./changing_graph.py:graph"}}), encoding="utf-8")
    return app


async def deployed(farm: Farm, app: Path) -> None:
    """A worker of this release, alone."""
    for child in [child for child in farm.children if child.alive]:
        child.terminate()
        assert await child.ended() == 0
    farm.worker(app=app)


async def asked_under(farm: Farm, app: Path) -> tuple[str, str]:
    """A workflow of this release that waits, and its question."""
    await deployed(farm, app)
    await farm.offered("changing")
    workflow = await farm.submit("changing")
    return workflow, (await farm.keyturn.asked(workflow)).approval_id


async def started(farm: Farm, workflow: str) -> list[dict[str, object]]:
    page = await workflows.events_page(farm.keyturn.ctx, farm.keyturn.me, workflow, 0, 100)
    return [dict(event.data) for event in page.events if event.type == "workflow-started"]


async def test_a_pending_node_that_is_gone_fails_the_workflow_and_a_roll_back_lets_it_complete(farm: Farm) -> None:
    old = release(farm.folder / "old", "question", "old:")
    workflow, approval = await asked_under(farm, old)
    await deployed(farm, release(farm.folder / "new", "renamed", "new:"))
    await farm.keyturn.answer(approval, "yes")
    failed = await farm.ended(workflow)
    assert failed.reason == "graph_changed"
    assert failed.error is not None
    assert failed.error["nodes"] == ["question"]
    await farm.check()

    await deployed(farm, old)
    await workflows.retry(farm.keyturn.ctx, farm.keyturn.me, workflow)
    # The answer that was given before is used; nobody is asked again.
    assert (await farm.kept(workflow))["said"] == "old: yes"
    await farm.check()


async def test_a_compatible_change_goes_on_and_the_event_says_which_version_did(farm: Farm) -> None:
    workflow, approval = await asked_under(farm, release(farm.folder / "old", "question", "old:"))
    pinned = (await farm.keyturn.get(workflow)).graph_version
    await deployed(farm, release(farm.folder / "new", "question", "new:"))
    await farm.keyturn.answer(approval, "yes")
    done = await farm.completed(workflow)
    assert (await farm.kept(workflow))["said"] == "new: yes"
    assert done.graph_version == pinned
    first, second = await started(farm, workflow)
    assert first["version"] == pinned
    assert second["submitted_for"] == pinned
    assert second["version"] != pinned
    await farm.check()
