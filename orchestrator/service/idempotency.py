"""One request, one consequence: the same Idempotency-Key and body again is answered with what it led to (rule 3)."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel

from orchestrator.core.errors import IdempotencyConflict, InvalidInput
from orchestrator.service.context import Caller, Context
from orchestrator.store import idempotency
from orchestrator.store.db import Connection

_LONGEST = 255


async def taken_by(
    ctx: Context, conn: Connection, caller: Caller, key: str | None, *, route: str, body: BaseModel, subject: str
) -> str | None:
    """The subject an earlier request of this key led to; None when this is the first (or there is no key).

    Raises IdempotencyConflict when the key stood for another request.
    """
    if key is None:
        return None
    if not key.strip() or len(key) > _LONGEST:
        detail = f"an Idempotency-Key has 1 to {_LONGEST} characters"
        raise InvalidInput(detail)
    digest = hashlib.sha256(f"{route}\n{body.model_dump_json()}".encode()).digest()
    found = await idempotency.take(
        conn,
        {
            "namespace": caller.namespace, "caller": caller.person, "key": key, "request_hash": digest,
            "subject": subject, "now": ctx.clock(),
        },
    )  # fmt: skip
    if found is None:
        return None
    if bytes(found["request_hash"]) != digest:
        detail = f"the Idempotency-Key {key!r} was used for another request; use a new key"
        raise IdempotencyConflict(detail, subject=found["subject"])
    return str(found["subject"])
