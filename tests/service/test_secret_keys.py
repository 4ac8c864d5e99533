"""Names of keys that an operator calls secret are treated as those that always are (rule 25)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.core.canonical import MASK, redact
from orchestrator.service import approvals
from tests.harness import running


@pytest.fixture
def own_keys() -> Iterator[str]:
    yield "iban, card_number"
    redact.configure([])


async def test_what_stands_under_a_configured_key_is_shown_nowhere(database_url: str, own_keys: str) -> None:
    async with running(database_url, secret_keys=own_keys) as keyturn:
        async with keyturn.working():
            arguments = {"iban": "DE02100500000054540402", "to": [{"Card_Number": "4111111111111111"}], "amount": 7}
            workflow = await keyturn.submit(
                "governed", operation="deploy", environment="production", target="for DE02100500000054540402",
                arguments=arguments,
            )  # fmt: skip
            asked = await keyturn.asked(workflow)
        record = await approvals.get(keyturn.ctx, keyturn.me, asked.approval_id)
        shown = record.model_dump_json() + (await keyturn.get(workflow)).model_dump_json()
        async with keyturn.ctx.db.connection() as conn:
            events = await (await conn.execute("SELECT body::text AS body FROM keyturn.events")).fetchall()
        told = "".join(row["body"] for row in events)
    assert record.action is not None
    assert record.action["arguments"] == {"iban": MASK, "to": [{"Card_Number": MASK}], "amount": 7}
    for secret in ("DE02100500000054540402", "4111111111111111"):
        assert secret not in shown
        assert secret not in told
