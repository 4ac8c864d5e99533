"""Slack: an incoming webhook, or a bot that looks whether its message is there before it sends one again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlencode

from orchestrator.chores.guarded_http import GuardedHttp
from orchestrator.chores.message import Message, Undeliverable, Undelivered

_EVENT: Final = "keyturn_delivery"
_LONGEST_TEXT: Final = 2900
_MOST_PAGES: Final = 20
# Slack's clock and the database's may differ so many seconds.
_CLOCKS_APART: Final = 600
# What Slack answers when nothing but a change of the channel's set-up can help.
_HOPELESS: Final = frozenset(("channel_not_found", "is_archived", "not_in_channel", "no_text", "msg_too_long"))


def content(message: Message) -> dict[str, object]:
    """The message as Slack takes it. The text is plain: nothing in it is read as markup, a mention or a link."""
    buttons = [("Approve", "approve"), ("Reject", "reject"), ("See the request", "page")]
    text = message.text if len(message.text) <= _LONGEST_TEXT else f"{message.text[:_LONGEST_TEXT]}…"
    return {
        "text": _escaped(message.subject),
        "blocks": [
            {"type": "header", "text": _plain(message.subject[:150])},
            {"type": "section", "text": _plain(text)},
            {
                "type": "actions",
                "elements": [
                    {"type": "button", "text": _plain(label), "url": message.links[name], "action_id": name}
                    for label, name in buttons
                    if name in message.links
                ],
            },
        ],
    }


def _plain(text: str) -> dict[str, object]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@dataclass(frozen=True, slots=True)
class SlackWebhook:
    """Posts to an incoming webhook. Slack cannot tell a repetition there: an answer that is lost may mean two."""

    url: str = field(repr=False)
    http: GuardedHttp

    @property
    def secrets(self) -> Sequence[str]:
        """The address is the password."""
        return (self.url,)

    async def send(self, message: Message) -> str | None:
        """Post it."""
        body = json.dumps(content(message)).encode()
        await self.http.post(self.url, body, {"Content-Type": "application/json"})
        return None


@dataclass(frozen=True, slots=True)
class SlackBot:
    """Posts as a bot. Each message carries its delivery's id, by which a repeated attempt finds it."""

    api: str
    token: str = field(repr=False)
    channel: str
    http: GuardedHttp

    @property
    def secrets(self) -> Sequence[str]:
        """The bot's token."""
        return (self.token,)

    async def send(self, message: Message) -> str | None:
        """Post it, unless an earlier attempt did; returns the message's `ts`."""
        if message.attempt > 1:
            there = await self._find(message)
            if there is not None:
                return there
        mark = {"event_type": _EVENT, "event_payload": {"delivery_id": message.delivery_id}}
        body = json.dumps({"channel": self.channel, **content(message), "metadata": mark}).encode()
        headers = {**self._headers(), "Content-Type": "application/json; charset=utf-8"}
        answer = await self.http.post(f"{self.api}/chat.postMessage", body, headers)
        return str(_read(answer.body).get("ts") or "") or None

    async def _find(self, message: Message) -> str | None:
        cursor = ""
        for _ in range(_MOST_PAGES):
            asked = {
                "channel": self.channel, "oldest": f"{message.queued_at.timestamp() - _CLOCKS_APART:.6f}",
                "include_all_metadata": "true", "limit": "200", **({"cursor": cursor} if cursor else {}),
            }  # fmt: skip
            answer = await self.http.get(f"{self.api}/conversations.history?{urlencode(asked)}", self._headers())
            found = _read(answer.body)
            for one in cast("Sequence[Mapping[str, object]]", found.get("messages") or ()):
                if _mark(one) == message.delivery_id:
                    return str(one.get("ts"))
            following = cast("Mapping[str, object]", found.get("response_metadata") or {})
            cursor = str(following.get("next_cursor") or "")
            if not cursor:
                break
        return None

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def _mark(message: Mapping[str, object]) -> object:
    metadata = cast("Mapping[str, object]", message.get("metadata") or {})
    payload = cast("Mapping[str, object]", metadata.get("event_payload") or {})
    return payload.get("delivery_id")


def _read(body: bytes) -> Mapping[str, object]:
    """What the Web API answered. It says 200 to everything."""
    try:
        found = cast("object", json.loads(body))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Undelivered("Slack's answer is not JSON")
    answer = cast("Mapping[str, object]", found)
    if answer.get("ok") is True:
        return answer
    why = str(answer.get("error"))
    raise (Undeliverable if why in _HOPELESS else Undelivered)(f"Slack answered {why}")
