"""A client of AG-UI for tests: it reads a run to its end, and refuses what AG-UI's own client refuses."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.harness import APPS, running
from tests.web.edge import served
from tests.web.team import Team

Json = dict[str, Any]


@contextlib.asynccontextmanager
async def gathered(database_url: str) -> AsyncGenerator[Team]:
    """The people of the harness, each with a key, a worker, and the graphs of tests/apps/agui_graphs.py."""
    async with (
        running(database_url, app=APPS / "agui.json") as keyturn,
        served(keyturn) as edge,
        contextlib.AsyncExitStack() as on,
    ):
        people = {
            name: await on.enter_async_context(edge.http(await edge.key(name))) for name in ("rita", "tom", "tara")
        }
        await on.enter_async_context(keyturn.working())
        yield Team(edge, keyturn, people)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


@dataclass
class Run:
    """The events of one run."""

    events: list[Json]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def last(self) -> Json:
        return self.events[-1]

    @property
    def interrupts(self) -> list[Json]:
        """What the run ended in waiting for."""
        assert self.last["type"] == "RUN_FINISHED", self.last
        assert self.last["outcome"]["type"] == "interrupt", self.last
        return self.last["outcome"]["interrupts"]

    @property
    def outcome(self) -> str:
        assert self.last["type"] == "RUN_FINISHED", self.last
        return self.last["outcome"]["type"]

    def of(self, kind: str) -> list[Json]:
        return [event for event in self.events if event["type"] == kind]

    def custom(self, name: str) -> list[Any]:
        return [event["value"] for event in self.of("CUSTOM") if event["name"] == name]

    @property
    def warnings(self) -> list[str]:
        return [one["code"] for one in self.custom("warning")]

    @property
    def texts(self) -> dict[str, str]:
        """The messages that were streamed."""
        found: dict[str, str] = {}
        for event in self.of("TEXT_MESSAGE_CONTENT"):
            found[event["messageId"]] = found.get(event["messageId"], "") + event["delta"]
        return found

    @property
    def steps(self) -> list[str]:
        return [event["stepName"] for event in self.of("STEP_FINISHED")]

    @property
    def state(self) -> Json:
        return self.of("STATE_SNAPSHOT")[-1]["snapshot"]

    @property
    def messages(self) -> list[tuple[str, str]]:
        return [(one["role"], one["content"]) for one in self.of("MESSAGES_SNAPSHOT")[-1]["messages"]]


def said(*words: str) -> list[Json]:
    return [{"id": f"m{nth}", "role": "user", "content": word} for nth, word in enumerate(words)]


def body(thread: str, messages: Sequence[Json] = (), run_id: str = "r1", **more: Any) -> Json:
    return {
        "threadId": thread, "runId": run_id, "messages": list(messages), "state": {}, "tools": [], "context": [],
        "forwardedProps": {}, **more,
    }  # fmt: skip


def resolved(interrupt: Json | str, payload: Any) -> Json:
    return {"interruptId": _id(interrupt), "status": "resolved", "payload": payload}


def cancelled(interrupt: Json | str) -> Json:
    return {"interruptId": _id(interrupt), "status": "cancelled"}


def _id(interrupt: Json | str) -> str:
    return interrupt if isinstance(interrupt, str) else interrupt["id"]


async def run(http: httpx.AsyncClient, graph: str, sent: Json) -> Run:
    """Run a graph to where it waits or ends."""
    answer = await http.post(f"/ag-ui/{graph}", json=sent)
    assert answer.status_code == 200, answer.text
    return read(answer, sent["threadId"], sent.get("runId"))


async def respond(http: httpx.AsyncClient, thread: str, response: Any, **more: Any) -> Run:
    answer = await http.post("/ag-ui/respond", json={"thread_id": thread, "response": response, **more})
    assert answer.status_code == 200, answer.text
    return read(answer, thread, None)


def read(answer: httpx.Response, thread: str, run_id: str | None) -> Run:
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = parsed(answer.content)
    check(events)
    first, last = events[0], events[-1]
    assert first["threadId"] == thread
    assert run_id in (first["runId"], None)
    if last["type"] == "RUN_FINISHED":
        assert (last["threadId"], last["runId"]) == (thread, first["runId"])
    return Run(events)


def parsed(content: bytes) -> list[Json]:
    """The events of a stream, which has one JSON object a `data:`, comments, and nothing else."""
    assert b"\r" not in content
    content.decode("ascii")
    blocks = [block for block in content.split(b"\n\n") if block]
    assert all(block.startswith((b"data: {", b":")) and b"\n" not in block for block in blocks)
    return [json.loads(block[6:]) for block in blocks if not block.startswith(b":")]


def check(events: Sequence[Json]) -> None:
    """What `@ag-ui/client` verifies of a run, and that nothing absent is written as null."""
    assert events[0]["type"] == "RUN_STARTED"
    assert events[0]["protocolVersion"] == "1.0"
    steps: set[str] = set()
    open_messages: set[str] = set()
    over = False
    for event in events:
        assert not over, event
        match event["type"]:
            case "STEP_STARTED":
                assert event["stepName"] not in steps
                steps.add(event["stepName"])
            case "STEP_FINISHED":
                steps.remove(event["stepName"])
            case "TEXT_MESSAGE_START":
                assert event["messageId"] not in open_messages
                open_messages.add(event["messageId"])
            case "TEXT_MESSAGE_CONTENT":
                assert event["messageId"] in open_messages
                assert event["delta"]
            case "TEXT_MESSAGE_END":
                open_messages.remove(event["messageId"])
            case "RUN_FINISHED" | "RUN_ERROR":
                assert not steps
                assert not open_messages
                over = True
            case _:
                pass
        for name, value in event.items():
            assert value is not None or (event["type"], name) in {("CUSTOM", "value"), ("RUN_FINISHED", "result")}
    assert over
