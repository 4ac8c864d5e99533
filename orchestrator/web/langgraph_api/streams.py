"""A run as LangGraph's clients follow it: its workflow's events turned into the parts of the stream modes they ask for.

Every part of an event but the last comes without an id, so a client that reconnects behind the last id misses none.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from fastapi.encoders import jsonable_encoder
from fastapi.sse import format_sse_event

from orchestrator.core.errors import Unauthenticated, Unavailable, Unsupported
from orchestrator.service.runs import Run
from orchestrator.web.langgraph_api import shapes
from orchestrator.web.langgraph_api.visit import Visit
from orchestrator.web.sse import SIGN_OF_LIFE
from orchestrator.wire import EventRecord

MODES: Final = ("values", "updates", "messages", "messages-tuple", "custom", "events")
_KEEP: Final = b"\n"

# Event name and data of one part.
Part = tuple[str, object]


def modes_of(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """The stream modes a client wants, also where it wrote a list as a text. Unsupported for any that is not served."""
    named = [given] if isinstance(given, str) else list(given or ())
    listed: list[str] = []
    for one in named:
        listed += _listed(one) if one.startswith("[") else [one]
    for one in listed:
        if one not in MODES:
            detail = f"stream mode {one!r} is not served; served are {', '.join(MODES)}"
            raise Unsupported(detail, allowed=list(MODES))
    return tuple(dict.fromkeys(listed)) or ("values",)


def _listed(text: str) -> list[str]:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return [str(one) for one in cast("list[object]", found)] if isinstance(found, list) else [text]


def begin_of(run: Run, last_event_id: str | None) -> int:
    """The number of the last event that a client has seen of a run; `-1`, which clients send, is the beginning."""
    text = (last_event_id or "").strip()
    if text in ("", "-1"):
        return run.after_seq
    if not text.isascii() or not text.isdigit() or len(text) > len(str(2**62)):
        raise Unsupported("Last-Event-ID: the `id:` of an event of this stream, or -1 for all of it, is expected")
    return max(int(text), run.after_seq)


@dataclass(slots=True)
class _Message:
    """A message as far as it has come."""

    node: str
    text: str = ""


@dataclass(slots=True)
class _Parts:
    """Turns events into parts; remembers what messages said so far."""

    run: Run
    modes: Sequence[str]
    messages: dict[str, _Message] = field(default_factory=dict[str, _Message])

    def of(self, event: EventRecord) -> list[Part]:
        """The parts of one event, in the modes asked for."""
        data = event.data
        match event.type:
            case "message":
                return self._message(data)
            case "progress":
                return [("custom", {"type": "progress", **data})] if "custom" in self.modes else []
            case "step-started" | "step-finished":
                return self._step(event.type == "step-finished", str(data.get("node") or ""))
            case _:
                return []

    def _step(self, finished: bool, node: str) -> list[Part]:
        found: list[Part] = []
        if finished and "updates" in self.modes:
            found.append(("updates", {node: None}))
        if "events" in self.modes:
            kind = "on_chain_end" if finished else "on_chain_start"
            told = {"event": kind, "name": node, "run_id": self.run.run_id, "metadata": self._metadata(node)}
            found.append(("events", {**told, "data": {}, "tags": [], "parent_ids": []}))
        return found

    def _metadata(self, node: str) -> dict[str, object]:
        return {"langgraph_node": node, "run_id": self.run.run_id, "thread_id": self.run.thread_id}

    def _message(self, data: dict[str, object]) -> list[Part]:
        message_id, delta, ends = str(data["message_id"]), str(data.get("delta") or ""), bool(data.get("end"))
        first = message_id not in self.messages
        message = self.messages.setdefault(message_id, _Message(str(data.get("node") or "")))
        message.text += delta
        metadata = self._metadata(message.node)
        found: list[Part] = []
        if "messages-tuple" in self.modes and (delta or ends):
            found.append(("messages", [{"type": "AIMessageChunk", "content": delta, "id": message_id}, metadata]))
        if "messages" in self.modes:
            whole = {"type": "ai", "content": message.text, "id": message_id}
            found += [("messages/metadata", {message_id: {"metadata": metadata}})] if first else []
            found.append(("messages/complete" if ends else "messages/partial", [whole]))
        return found


async def lines(visit: Visit, run: Run, modes: Sequence[str], begin: int) -> AsyncIterator[bytes]:
    """The run from behind `begin` to its pause or its end, as server-sent events."""
    modes = modes if visit.reads else ()
    parts, sent = _Parts(run, modes), ""
    yield _line(("metadata", {"run_id": run.run_id, "thread_id": run.thread_id, "attempt": 1}))
    try:
        async for batch in visit.following.batches(run.after_seq, until="settled"):
            if batch is None:
                yield SIGN_OF_LIFE
                continue
            events = [one for one in batch.events if run.until_seq is None or one.seq <= run.until_seq]
            for event in events:
                for line in _with_id(parts.of(event), event.seq) if event.seq > begin else _unsent(parts, event):
                    yield line
            if len(events) < len(batch.events):
                break
            moved = any(one.type == "step-finished" and one.seq > begin for one in events)
            if moved and "values" in modes and not batch.more and batch.status == "running":
                at = await visit.state(note=False)
                if at.checkpoint_id is not None and at.checkpoint_id != sent:
                    sent = at.checkpoint_id
                    yield _line(("values", at.values))
        for part in await _last(visit, run, modes):
            yield _line(part)
    except (Unavailable, Unauthenticated):
        # The stream ends without its last event: clients come back where they were.
        return


def _unsent(parts: _Parts, event: EventRecord) -> list[bytes]:
    """What a client has seen already is only remembered."""
    parts.of(event)
    return []


def _with_id(found: Sequence[Part], seq: int) -> list[bytes]:
    last = len(found) - 1
    return [_line(part, seq if nth == last else None) for nth, part in enumerate(found)]


def _line(part: Part, seq: int | None = None) -> bytes:
    data = json.dumps(jsonable_encoder(part[1]), separators=(",", ":"))
    return format_sse_event(event=part[0], data_str=data, id=None if seq is None else str(seq))


async def _last(visit: Visit, run: Run, modes: Sequence[str]) -> list[Part]:
    """How the stream ends: the values, what is asked, and `end` or `error`. Nothing where the run is not over."""
    now = await visit.again(run)
    if now.status in ("pending", "running"):
        return []
    asking = [mode for mode in ("updates", "values") if mode in modes]
    waits = now.status == "interrupted" and now.until_seq is None
    at = await visit.state(note=waits and bool(asking))
    found: list[Part] = [("values", at.values)] if "values" in modes else []
    if waits and at.interrupts:
        asked = {"__interrupt__": [shapes.interrupt(one) for one in at.interrupts]}
        found += [(mode, asked) for mode in asking]
    if (failure := now.failure) is not None:
        return [*found, ("error", {"error": failure[0], "message": failure[1]})]
    return [*found, ("end", None)]


async def awaited(visit: Visit, run: Run) -> AsyncIterator[bytes]:
    """The run's outcome as one JSON document, after white space as long as there is none."""
    try:
        async for batch in visit.following.batches(run.after_seq, until="settled"):
            if batch is None:
                yield _KEEP
            elif run.until_seq is not None and batch.cursor >= run.until_seq:
                break
        now = await visit.again(run)
        body = shapes.outcome(now, await visit.state(note=now.status == "interrupted"))
    except (Unavailable, Unauthenticated) as error:
        body = {"__error__": {"error": error.code, "message": error.detail}}
    yield json.dumps(jsonable_encoder(body)).encode()
