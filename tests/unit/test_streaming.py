"""What reaches watchers of a message that is being written: everything but secrets, however it is cut."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage

from orchestrator.core.canonical import redact
from orchestrator.engine.streaming import Veil, Writing, output_of

HELD = {"input": {"api_key": "k-12345-secret", "token": "ab"}}


class Told:
    def __init__(self) -> None:
        self.parts: list[tuple[str, str, str, bool]] = []

    def __call__(self, message_id: str, node: str, delta: str, end: bool) -> None:
        self.parts.append((message_id, node, delta, end))

    @property
    def text(self) -> str:
        return "".join(part[2] for part in self.parts)


def about(node: str, task: int = 1) -> dict[str, object]:
    return {"langgraph_node": node, "langgraph_checkpoint_ns": f"{node}:{task}"}


@given(
    st.lists(st.sampled_from(["k-12345-secret", '"ab"', "k-123", " and ", "secret", "ab", "«"]), max_size=6),
    st.lists(st.integers(0, 80), max_size=8),
)
def test_a_secret_is_hidden_wherever_the_text_is_cut(words: list[str], cuts: list[int]) -> None:
    whole = "".join(words)
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    told = Told()
    veil = Veil(lambda: redact.hiding(HELD), told)
    for begin, end in itertools.pairwise(places):
        veil("m", "node", whole[begin:end], False)
    veil("m", "node", "", True)
    assert "k-12345-secret" not in told.text
    assert '"ab"' not in told.text
    assert [part[3] for part in told.parts][-1] is True
    if "k-12345-secret" not in whole and '"ab"' not in whole:
        assert told.text == whole


def test_without_secrets_nothing_is_kept_back() -> None:
    told = Told()
    veil = Veil(lambda: redact.hiding({"name": "x"}), told)
    veil("m", "node", "one ", False)
    assert told.parts == [("m", "node", "one ", False)]


def test_a_message_that_was_cut_off_ends_before_the_next_begins() -> None:
    told = Told()
    writing = Writing(frozenset({"speak"}), told)
    writing.take(AIMessageChunk(content="he", id="1"), about("speak"))
    writing.take(AIMessageChunk(content="hel", id="2"), about("speak"))
    writing.take(AIMessageChunk(content="lo", id="2", chunk_position="last"), about("speak"))
    writing.close()
    assert told.parts == [
        ("1", "speak", "he", False),
        ("1", "speak", "", True),
        ("2", "speak", "hel", False),
        ("2", "speak", "lo", True),
    ]


def test_messages_written_side_by_side_by_one_node_are_not_cut_off_by_each_other() -> None:
    told = Told()
    writing = Writing(frozenset({"speak"}), told)
    for delta in ("o", "ne"):
        for task in (1, 2):
            writing.take(AIMessageChunk(content=delta, id=str(task)), about("speak", task))
    for task in (1, 2):
        writing.take(AIMessageChunk(content="", id=str(task), chunk_position="last"), about("speak", task))
    writing.close()
    for task in ("1", "2"):
        own = [part for part in told.parts if part[0] == task]
        assert own == [(task, "speak", "o", False), (task, "speak", "ne", False), (task, "speak", "", True)]


async def test_a_message_ends_also_where_its_node_fails() -> None:
    async def parts() -> AsyncIterator[Mapping[str, Any]]:
        yield {"type": "messages", "ns": (), "data": (AIMessageChunk(content="he", id="1"), about("speak"))}
        raise ValueError("the model went away")

    told = Told()
    with pytest.raises(ValueError, match="went away"):
        await output_of(parts(), frozenset({"speak"}), told)
    assert told.parts == [("1", "speak", "he", False), ("1", "speak", "", True)]


def test_only_what_the_assistant_says_in_a_declared_node_is_told() -> None:
    told = Told()
    writing = Writing(frozenset({"speak"}), told)
    writing.take(HumanMessage("mine", id="1"), about("speak"))
    writing.take(AIMessage("routed", id="2"), about("route"))
    writing.take(AIMessage("", id="3", tool_calls=[{"name": "t", "args": {}, "id": "c"}]), about("speak"))
    writing.take(AIMessage("inside", id="4"), {"langgraph_node": "model", "langgraph_checkpoint_ns": "speak:1|model:2"})
    writing.close()
    assert told.parts == [("4", "speak", "inside", True)]
