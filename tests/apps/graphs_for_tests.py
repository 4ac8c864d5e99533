"""Graphs that tests run through the engine: each shows one behaviour, and leaves its traces in files or memory."""

from __future__ import annotations

import asyncio
import operator
import os
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt

from orchestrator.sdk import PURE, Action, ask, confirm, effect, idempotency_key, options, request_approval


class State(TypedDict, total=False):
    operation: str
    environment: str
    arguments: dict[str, Any]
    log: Annotated[list[str], operator.add]
    trace: str
    seconds: float
    text: str


def mark(state: State, what: str) -> None:
    """Append a line to the trace file: what really happened, whatever the database says."""
    if path := state.get("trace"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{what}\n")


def assess(state: State) -> State:
    return {"log": ["assess"]}


def gate(state: State) -> State:
    decision = request_approval(
        Action(
            state.get("operation", "noop"),
            environment=state.get("environment", ""),
            arguments=state.get("arguments", {}),
        )
    )
    return {"log": [f"gate:{','.join(decision.by)}"]}


async def act(state: State) -> State:
    mark(state, f"act {idempotency_key()}")
    return {"log": ["act"]}


def _governed() -> Any:
    builder = StateGraph(State)
    builder.add_node("assess", assess, metadata=PURE)
    builder.add_node("gate", gate, metadata=PURE)
    builder.add_node("act", act)
    builder.add_edge(START, "assess")
    builder.add_edge("assess", "gate")
    builder.add_edge("gate", "act")
    builder.add_edge("act", END)
    return builder.compile()


governed = _governed()


async def first(state: State) -> State:
    mark(state, "first")
    return {"log": ["first"]}


async def second(state: State) -> State:
    mark(state, "second")
    return {"log": ["second"]}


async def third(state: State) -> State:
    mark(state, "third")
    await asyncio.sleep(state.get("seconds", 0.0))
    return {"log": ["third"]}


def _chain(*nodes: Any, pure: Collection[str] = (), **settings: Any) -> Any:
    builder = StateGraph(State)
    names = [node.__name__ for node in nodes]
    for name, node in zip(names, nodes, strict=True):
        builder.add_node(name, node, metadata=PURE if name in pure else None)
    for source, target in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(source, target)
    return builder.compile(**settings)


steps = _chain(first, second, third)
stopping = _chain(first, second, interrupt_before=["second"])


def twice(state: State) -> State:
    mark(state, "twice begins")
    one = ask("first?")
    mark(state, f"got {one}")
    two = ask("second?")
    mark(state, f"got {two}")
    return {"log": [f"{one}/{two}"]}


two_questions = _chain(twice)


def sure(state: State) -> State:
    del state
    return {"log": [f"sure={confirm('Sure?')}"]}


yes_or_no = _chain(sure)


def left(state: State) -> State:
    answer = ask("left?")
    return {"log": [f"left={answer}"]}


def right(state: State) -> State:
    answer = ask("right?")
    return {"log": [f"right={answer}"]}


def _parallel() -> Any:
    builder = StateGraph(State)
    for name, node in (("left", left), ("right", right), ("act", act)):
        builder.add_node(name, node)
    builder.add_edge(START, "left")
    builder.add_edge(START, "right")
    builder.add_edge(["left", "right"], "act")
    builder.add_edge("act", END)
    return builder.compile()


parallel = _parallel()


def fan(state: State) -> list[Send]:
    return [Send("item", {**state, "text": str(number)}) for number in range(3)]


async def item(state: State) -> State:
    mark(state, f"item {state.get('text')} {idempotency_key()}")
    return {"log": [f"item{state.get('text')}"]}


def _fan_out() -> Any:
    builder = StateGraph(State)
    builder.add_node("first", first)
    builder.add_node("item", item)
    builder.add_conditional_edges("first", fan, ["item"])
    builder.add_edge(START, "first")
    builder.add_edge("item", END)
    return builder.compile()


fan_out = _fan_out()


async def outer(state: State) -> State:
    return {"log": ["outer"]}


def _nested() -> Any:
    builder = StateGraph(State)
    builder.add_node("outer", outer)
    builder.add_node("inner", _governed())
    builder.add_edge(START, "outer")
    builder.add_edge("outer", "inner")
    builder.add_edge("inner", END)
    return builder.compile()


nested = _nested()


def explode(state: State) -> State:
    mark(state, "explode")
    if not Path(state.get("text", "")).exists():
        raise RuntimeError("the boiler is cold")
    return {"log": ["exploded"]}


failing = _chain(first, explode)


def block(state: State) -> State:
    mark(state, "block begins")
    end = time.monotonic() + state.get("seconds", 30.0)
    while time.monotonic() < end and not (state.get("text") and Path(state.get("text", "")).exists()):
        threading.Event().wait(0.02)
    mark(state, "block ends")
    return {"log": ["block"]}


blocking = _chain(first, block, second)


def odd(state: State) -> State:
    interrupt({"what": {1, 2}})
    return {}


not_json = _chain(odd)


def nul(state: State) -> State:
    return {"text": "a\0b"}


def shout(state: State) -> State:
    raise RuntimeError("a\0b \ud800")


def half(state: State) -> State:
    return {"text": "\ud800"}


def alive(state: State) -> State:
    return {"arguments": {"lock": threading.Lock()}}


unstorable = _chain(first, nul)
unstorable_text = _chain(first, half)
unstorable_object = _chain(first, alive)
unstorable_then_failing = _chain(nul, shout, pure=["nul"])
shouting = _chain(shout)


def die(state: State) -> State:
    mark(state, "die")
    os._exit(9)


poison = _chain(die)


async def pay(state: State) -> State:
    async with effect("pay") as entry:
        await entry.once(lambda: _paid(state, entry.key))
    return {"log": [f"paid {entry.result}"]}


async def _paid(state: State, key: str) -> str:
    mark(state, f"pay {key}")
    await asyncio.sleep(state.get("seconds", 0.0))
    return key


paying = _chain(pay)


def pay_in_thread(state: State) -> State:
    with effect("pay") as entry:
        entry.once_sync(lambda: mark(state, f"pay {entry.key}"))
    return {"log": ["paid"]}


paying_sync = _chain(pay_in_thread)


def _till(state: State, key: str) -> str:
    mark(state, f"try {key}")
    if not Path(state.get("text", "")).exists():
        raise RuntimeError("the till is closed")
    return key


async def try_to_pay(state: State) -> State:
    async with effect("pay") as entry:
        entry.record(_till(state, entry.key))
    return {"log": ["paid"]}


def try_to_pay_in_thread(state: State) -> State:
    with effect("pay") as entry:
        entry.record(_till(state, entry.key))
    return {"log": ["paid"]}


async def paid_then_fails(state: State) -> State:
    async with effect("pay") as entry:
        await entry.once(lambda: _paid(state, entry.key))
    if not Path(state.get("text", "")).exists():
        raise RuntimeError("the printer is out of paper")
    return {"log": [f"paid {entry.result}"]}


paying_fails = _chain(try_to_pay)
paying_fails_sync = _chain(try_to_pay_in_thread)
paying_then_failing = _chain(paid_then_fails)


async def make_graph() -> Any:
    return _chain(first)


def visit(state: State) -> State:
    mark(state, "in")
    while not Path(state.get("text", "")).exists():
        threading.Event().wait(0.02)
    mark(state, "out")
    return {"log": ["visit"]}


limited = options(_chain(visit), max_running=2)
