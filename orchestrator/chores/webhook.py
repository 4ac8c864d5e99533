"""Webhooks signed as the Standard Webhooks specification says, so that any of its libraries can verify them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from orchestrator.chores.guarded_http import GuardedHttp
from orchestrator.chores.message import Message

_PREFIX: Final = "whsec_"
# What the specification asks of a key, in bytes.
_SHORTEST: Final = 24
_LONGEST: Final = 64


def signing_key(secret: str) -> bytes:
    """The key that a `whsec_…` secret stands for. Raises ValueError, which does not repeat it."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not _SHORTEST <= len(key) <= _LONGEST:
        raise ValueError(f"is no webhook secret; allowed: {_PREFIX} and {_SHORTEST} to {_LONGEST} bytes in base64")
    return key


def signatures(keys: Sequence[bytes], message_id: str, at: datetime, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each key, parted by spaces."""
    signed = f"{message_id}.{int(at.timestamp())}.".encode() + body
    made = (base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys)
    return " ".join(f"v1,{signature}" for signature in made)


@dataclass(frozen=True, slots=True)
class WebhookSender:
    """Sends to one address."""

    url: str = field(repr=False)
    secrets: Sequence[str] = field(repr=False)
    http: GuardedHttp

    async def send(self, message: Message) -> str | None:
        """Post the facts; a repetition has the same `webhook-id`."""
        event = {
            "type": f"approval.{message.kind}",
            "timestamp": message.queued_at.astimezone(UTC).isoformat(),
            "data": {**message.facts, "subject": message.subject},
        }
        body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
        keys = [signing_key(secret) for secret in self.secrets if secret.startswith(_PREFIX)]
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message.delivery_id,
            "webhook-timestamp": str(int(message.at.timestamp())),
            "webhook-signature": signatures(keys, message.delivery_id, message.at, body),
        }
        await self.http.post(self.url, body, headers)
        return None
