"""Messages between AG-UI and a graph: a person's go in, the thread's conversation comes out. Pure.

Those of a graph are the dicts that LangChain makes of its messages: `{type, content, id, …}`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Final, cast

from ag_ui.core.types import (
    AssistantMessage,
    FunctionCall,
    Message,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)

Json = Mapping[str, object]
# Kinds of parts, where LangChain has another word.
_KINDS: Final = {"document": "file"}


def new_messages(sent: Sequence[Message], known: Collection[str]) -> list[dict[str, object]]:
    """What the person has said since the last message that the thread has, as a graph takes it.

    Only the person's words: nobody puts some into the agent's mouth.
    """
    seen = [index for index, message in enumerate(sent) if message.id in known]
    later = sent[seen[-1] + 1 :] if seen else sent
    return [
        {"type": "human", "id": one.id, "content": _content(one), **({"name": one.name} if one.name else {})}
        for one in later
        if isinstance(one, UserMessage)
    ]


def last_words(sent: Sequence[Message]) -> str | None:
    """The text of the person's last message; None when there is none."""
    said = [one for one in sent if isinstance(one, UserMessage)]
    return text_of(_content(said[-1])) if said else None


def _content(message: UserMessage) -> object:
    if isinstance(message.content, str):
        return message.content
    blocks: list[object] = []
    for part in message.content:
        if isinstance(part, TextPart):
            blocks.append({"type": "text", "text": part.text})
            continue
        source = part.source
        place = {"data": "base64", "url": "url", "file": "file_id"}[source.type]
        mime = {"mime_type": source.mime_type} if source.mime_type else {}
        blocks.append({"type": _KINDS.get(part.type, part.type), place: source.value, **mime})
    return blocks


def text_of(content: object) -> str:
    """The text of a message's content, which may be in blocks."""
    if isinstance(content, str):
        return content
    blocks = cast("list[object]", content) if isinstance(content, list) else list[object]()
    texts = [cast("Json", block).get("text") if isinstance(block, Mapping) else block for block in blocks]
    return "".join(one for one in texts if isinstance(one, str))


def of_thread(
    kept: Sequence[object], sent: Sequence[Message], shown: Collection[str] | None, ours: str
) -> list[Message]:
    """The conversation that a thread has `kept`, for the client that sent `sent`.

    Of what is not the person's, only the messages in `shown`; all where that is None. What only the client has stays
    where it is: instructions of its own, and questions whose ids begin with `ours`.
    """
    theirs = {message.id: message for message in sent}
    found: list[Message] = []
    for one in kept:
        message = _message(cast("Json", one), theirs, shown) if isinstance(one, Mapping) else None
        if message is not None:
            found.append(message)
    before: str | None = None
    places = {message.id for message in found}
    behind: dict[str | None, list[Message]] = {}
    for message in sent:
        if message.id in places:
            before = message.id
        elif message.role in ("system", "developer") or message.id.startswith(ours):
            behind.setdefault(before, []).append(message)
    first = behind.pop(None, [])
    return [*first, *(one for message in found for one in (message, *behind.pop(message.id, [])))]


def _message(one: Json, theirs: Mapping[str, Message], shown: Collection[str] | None) -> Message | None:
    message_id, text = str(one.get("id") or ""), text_of(one.get("content"))
    if not message_id:
        return None
    match one.get("type"):
        case "human" | "HumanMessageChunk":
            return theirs.get(message_id) or UserMessage(id=message_id, content=text)
        case "ai" | "AIMessageChunk" if shown is None or message_id in shown:
            calls = [_call(cast("Json", call)) for call in cast("Sequence[object]", one.get("tool_calls") or ())]
            return AssistantMessage(id=message_id, content=text or None, tool_calls=calls or None)
        case "tool" if shown is None:
            return ToolMessage(id=message_id, content=text, tool_call_id=str(one.get("tool_call_id") or ""))
        case _:
            return None


def _call(call: Json) -> ToolCall:
    arguments = json.dumps(call.get("args") or {}, ensure_ascii=False)
    function = FunctionCall(name=str(call.get("name") or ""), arguments=arguments)
    return ToolCall(id=str(call.get("id") or ""), type="function", function=function)
