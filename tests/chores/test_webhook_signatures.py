"""Webhooks verify with nothing but the specification at hand, also while a secret is being changed."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chores.webhook import signatures, signing_key
from tests.chores.receivers import Request, receiving
from tests.chores.telling import telling

OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"x" * 32).decode()


def verifies(request: Request, secret: str) -> bool:
    """As a receiver does it, from the specification's words."""
    headers = request.headers
    content = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), request.body])
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    given = [part.split(",", 1) for part in headers["webhook-signature"].split(" ")]
    return any(version == "v1" and hmac.compare_digest(value, expected) for version, value in given)


def documented(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """As the documentation shows it."""
    text = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(text.partition("```python verify\n")[2].partition("```")[0], names)  # noqa: S102 our own document
    return bool(names["verify"](secret, headers, body))


def test_the_specifications_own_example_comes_out() -> None:
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    at = datetime.fromtimestamp(1614265330, UTC)
    signed = signatures([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64!", NEW.removeprefix("whsec_")])
def test_a_secret_that_is_none_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(ValueError, match="is no webhook secret") as refused:
        signing_key(secret)
    assert not secret.removeprefix("whsec_") or secret not in str(refused.value)


async def test_a_message_verifies_with_the_old_secret_and_the_new(database_url: str, tmp_path: Path) -> None:
    with receiving() as receiver:
        channels = f"""
channels:
  hook: {{type: webhook, url: "{receiver.url}", secrets: ["env:NEW", "env:OLD"], allow_private: true, allow_http: true}}
routes: [{{channels: [hook]}}]
"""
        async with telling(database_url, tmp_path, channels, {"NEW": NEW, "OLD": OLD}) as told:
            await told.notice("requested")
            await told.run()
            (request,) = receiver.requests
            assert verifies(request, NEW)
            assert verifies(request, OLD)
            assert documented(OLD, request.headers, request.body)
            assert not documented(OTHER, request.headers, request.body)
            assert not documented(NEW, {**request.headers, "webhook-timestamp": "1700000000"}, request.body)
            assert not verifies(request, OTHER)
            assert not verifies(Request("POST", "/", request.headers, request.body + b" "), NEW)
            assert abs(int(request.headers["webhook-timestamp"]) - told.now.timestamp()) < 2
            assert request.headers["webhook-id"] == (await told.deliveries())[0]["delivery_id"]
            event = request.json
            assert event["type"] == "approval.requested"
            assert event["data"]["approval_id"] == told.approval_id
            assert event["data"]["workflow_id"] == told.workflow_id
            assert event["data"]["people"] == ["tara", "theo", "tom"]
            assert event["data"]["url"].endswith(told.approval_id)
