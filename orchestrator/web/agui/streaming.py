"""One run as its client receives it: AG-UI events as server-sent events, from what began it to how it ended.

The workflow runs on by itself: a client that goes away stops nothing, and may come back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, cast

from ag_ui.core import BaseEvent, RunErrorEvent
from ag_ui.core.types import Message

from orchestrator.core.errors import Refusal, Unavailable
from orchestrator.service import pausing, states, threads
from orchestrator.service.context import Caller
from orchestrator.web.agui.beginning import Beginning, ids_of
from orchestrator.web.agui.conversation import of_thread
from orchestrator.web.agui.endings import MESSAGES, QUESTION_ID, ending, snapshots
from orchestrator.web.agui.translating import Translator
from orchestrator.web.following import Following
from orchestrator.web.parts import Parts
from orchestrator.web.sse import SIGN_OF_LIFE

_AGAIN_SECONDS: Final = 1.0


def on_the_wire(events: Iterable[BaseEvent]) -> bytes:
    """Events as AG-UI's clients split them: one JSON object a `data:`, absent fields left out, LF only.

    ASCII, as some clients take other Unicode line ends for the end of a line.
    """
    bodies = (event.model_dump(mode="json", by_alias=True) for event in events)
    return b"".join(b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n" for body in bodies)


@dataclass(frozen=True, slots=True)
class Client:
    """Who follows: a caller with a key that must stay good, the messages they have, and what they understand.

    `declared`: the graph says which nodes' text clients see.
    """

    parts: Parts
    who: Caller
    presented: str
    messages: Sequence[Message]
    legacy: bool
    declared: bool


async def lines(client: Client, run: Translator, beginning: Beginning) -> AsyncGenerator[bytes]:
    """The whole run, until the workflow waits for a person or has ended."""
    yield on_the_wire([*run.begin(), *beginning.warnings, *run.start(beginning.nodes)])
    try:
        async for chunk in _followed(client, run, beginning):
            yield chunk
    except Refusal as error:
        yield _broken_off(run, error.code, error.detail)


async def _followed(client: Client, run: Translator, beginning: Beginning) -> AsyncGenerator[bytes]:
    cursor = beginning.after
    while True:
        following = Following(client.parts, client.who, client.presented, beginning.workflow_id)
        async with aclosing(following.events(cursor, until="settled")) as events:
            async for record in events:
                if record is None:
                    yield SIGN_OF_LIFE
                    continue
                cursor = record.seq
                if told := run.take(record):
                    yield on_the_wire(told)
        if client.parts.hub.stopping:
            detail = "this server stops; the workflow goes on, and the same request follows it again"
            yield _broken_off(run, "stopping", detail)
            return
        try:
            if (last := await _ended(client, run, beginning, cursor)) is not None:
                yield last
                return
        except Unavailable:
            yield SIGN_OF_LIFE
            await asyncio.sleep(_AGAIN_SECONDS)


def _broken_off(run: Translator, code: str, detail: str) -> bytes:
    return on_the_wire([*run.close(), RunErrorEvent(message=detail, code=code)])


async def _ended(client: Client, run: Translator, beginning: Beginning, cursor: int) -> bytes | None:
    """How the run ended; None where the workflow went on meanwhile, or has events that were not told yet."""
    await client.parts.keyring.authenticate(client.presented)
    pause = await pausing.of_workflow(client.parts.context, client.who, beginning.workflow_id)
    if not pause.status.settled or pause.last_seq > cursor:
        return None
    state = await _state(client, beginning)
    told = snapshots(state.values, state.messages)
    return on_the_wire([*run.close(), *told, *ending(run, pause, ids_of(client.messages), legacy=client.legacy)])


@dataclass(frozen=True, slots=True)
class _Shown:
    values: Mapping[str, object]
    messages: Sequence[Message] | None


async def _state(client: Client, beginning: Beginning) -> _Shown:
    """The thread's state as it is now, and its conversation as this client may see it."""
    ctx, who = client.parts.context, client.who
    thread = await threads.find(ctx, who, beginning.thread.thread_id)
    values = (await states.state(ctx, who, thread)).values
    kept = values.get(MESSAGES)
    if not isinstance(kept, list):
        return _Shown(values, None)
    shown = await pausing.told_messages(ctx, who, thread.thread_key) if client.declared else None
    return _Shown(values, of_thread(cast("list[object]", kept), client.messages, shown, QUESTION_ID))
