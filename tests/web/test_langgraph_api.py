"""The LangGraph API as its public Python client speaks it, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from orchestrator.service import policies
from orchestrator.wire import PolicyText
from tests.harness import APPS, Keyturn, caller, running
from tests.web.edge import Edge, served

AGENT = {"messages": [{"role": "user", "content": "clean up"}]}
DEPLOY = {"operation": "deploy", "environment": "production", "target": "shop"}
GATE = {"type": "approval", "action": DEPLOY}


class People:
    """Everybody with a client of their own, on one server with a worker."""

    def __init__(self, edge: Edge, clients: dict[str, LangGraphClient], keys: dict[str, str]) -> None:
        self.edge = edge
        self.keys = keys
        self._clients = clients

    def __getattr__(self, name: str) -> LangGraphClient:
        return self._clients[name]


@contextlib.asynccontextmanager
async def people(keyturn: Keyturn) -> AsyncIterator[People]:
    async with served(keyturn) as edge, keyturn.working(), contextlib.AsyncExitStack() as stack:
        keys = {name: await edge.key(name) for name in ("rita", "tom", "tara", "theo", "cleo")}
        clients = {
            name: await stack.enter_async_context(get_client(url=edge.url, headers={"x-api-key": key}, api_key=None))
            for name, key in keys.items()
        }
        yield People(edge, clients, keys)


@pytest.fixture
async def dialects(database_url: str) -> AsyncIterator[People]:
    async with running(database_url, app=APPS / "dialects.json") as keyturn, people(keyturn) as found:
        yield found


@pytest.fixture
async def talking(database_url: str) -> AsyncIterator[People]:
    async with running(database_url, app=APPS / "talking.json") as keyturn, people(keyturn) as found:
        yield found


def problem(refused: pytest.ExceptionInfo[httpx.HTTPStatusError]) -> tuple[int, str]:
    return refused.value.response.status_code, refused.value.response.json()["code"]


async def waits(at: People, payload: Any, graph: str = "anything") -> tuple[str, list[dict[str, Any]]]:
    thread = await at.rita.threads.create()
    body = {"payload": payload} if graph == "anything" else payload
    values: Any = await at.rita.runs.wait(thread["thread_id"], graph, input=body)
    return thread["thread_id"], values["__interrupt__"]


async def resume(client: LangGraphClient, thread_id: str, value: Any, graph: str = "anything") -> Any:
    return await client.runs.wait(thread_id, graph, command={"resume": value})


async def test_an_agents_thread_from_its_first_input_to_its_last_word(dialects: People) -> None:
    thread_id, asked = await waits(dialects, AGENT, "batched")
    (one,) = asked
    assert [request["name"] for request in one["value"]["action_requests"]] == ["delete_rows", "send_mail", "ask_user"]
    thread = await dialects.rita.threads.get(thread_id)
    assert thread["status"] == "interrupted"
    assert [[each["id"] for each in ones] for ones in thread["interrupts"].values()] == [[one["id"]]]
    assert thread["metadata"]["graph_id"] == "batched"
    state = await dialects.rita.threads.get_state(thread_id)
    assert state["tasks"][-1]["interrupts"][-1]["value"] == one["value"]
    decisions = [{"type": "approve"}, {"type": "reject", "message": "no"}, {"type": "respond", "message": "sure"}]
    values = await resume(dialects.tara, thread_id, {"decisions": decisions}, "batched")
    assert "__interrupt__" not in values
    assert values["messages"][-1]["content"] == "done"
    assert (await dialects.rita.threads.get(thread_id))["status"] == "idle"
    listed = await dialects.rita.runs.list(thread_id)
    assert [run["status"] for run in listed] == ["success", "interrupted"]


async def test_a_thread_remembers_over_its_runs(talking: People) -> None:
    thread = await talking.rita.threads.create(thread_id="mine", metadata={"team": "blue"})
    for said, heard in (("hello", "1 after hello: hello"), ("again", "2 after hello: again")):
        values: Any = await talking.rita.runs.wait(
            thread["thread_id"], "remembering", input={"messages": [{"type": "human", "content": said}]}
        )
        assert values["messages"][-1]["content"] == heard
    history = await talking.rita.threads.get_history("mine", limit=50)
    assert history[0]["values"]["runs"] == 2
    older = await talking.rita.threads.get_state("mine", checkpoint=history[-1]["checkpoint"])
    assert older["checkpoint"]["checkpoint_id"] == history[-1]["checkpoint"]["checkpoint_id"]
    before = await talking.rita.threads.get_history("mine", before=history[0]["checkpoint"])
    assert [one["checkpoint"] for one in before] == [one["checkpoint"] for one in history[1:]]
