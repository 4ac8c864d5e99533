"""One request, one consequence: the same Idempotency-Key and body again is answered with what it led to (rule 3)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pydantic import BaseModel

from orchestrator.core.errors import IdempotencyConflict, InvalidInput
from orchestrator.service.context import Caller, Context
from orchestrator.store import idempotency
from orchestrator.store.db import Connection, Params

_LONGEST = 255


@dataclass(frozen=True, slots=True)
class Keyed:
    """A request and the Idempotency-Key it came with."""

    ctx: Context
    caller: Caller
    key: str
    digest: bytes

    @property
    def _row(self) -> Params:
        caller = self.caller
        return {"namespace": caller.namespace, "caller": caller.person, "key": self.key, "now": self.ctx.clock()}

    async def earlier(self, conn: Connection) -> str | None:
        """The subject that this request led to before. IdempotencyConflict when the key stood for another one."""
        return self._same(await idempotency.find(conn, self._row))

    async def keep(self, conn: Connection, subject: str) -> str | None:
        """Remember what the request leads to; the subject of whoever was faster with the same request, if anybody."""
        return self._same(await idempotency.take(conn, {**self._row, "request_hash": self.digest, "subject": subject}))

    def _same(self, found: Params | None) -> str | None:
        if found is None:
            return None
        if bytes(found["request_hash"]) != self.digest:
            detail = f"the Idempotency-Key {self.key!r} was used for another request; use a new key"
            raise IdempotencyConflict(detail, subject=found["subject"])
        return str(found["subject"])


def keyed(ctx: Context, caller: Caller, key: str | None, route: str, body: BaseModel) -> Keyed | None:
    """The request under its key; None without one. InvalidInput when the key is blank or too long."""
    if key is None:
        return None
    if not key.strip() or len(key) > _LONGEST:
        detail = f"an Idempotency-Key has 1 to {_LONGEST} characters"
        raise InvalidInput(detail)
    return Keyed(ctx, caller, key, hashlib.sha256(f"{route}\n{body.model_dump_json()}".encode()).digest())
