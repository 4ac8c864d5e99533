"""The engine's side of the effects ledger: each call is one transaction that first proves the lease."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TypeVar

from orchestrator.core.canonical import redact
from orchestrator.core.errors import AlreadyExecuted, ApprovalLapsed, DigestMismatch, LeaseLost, Refusal
from orchestrator.core.freezes import freeze_from_json, frozen_until
from orchestrator.core.model import BREAK_GLASS
from orchestrator.core.policy_file import PolicyBook
from orchestrator.engine.persist import until_stored
from orchestrator.engine.standing_approvals import frozen_error, ineligible, ineligible_error
from orchestrator.sdk.runtime import Binding, EffectEntry, Visit
from orchestrator.store import effects, workflows
from orchestrator.store.db import Clock, Connection, Database, Params

T = TypeVar("T")


class SegmentHost:
    """Lends the ledger to the nodes of one segment."""

    def __init__(
        self,
        db: Database,
        namespace: str,
        workflow_id: str,
        epoch: int,
        clock: Clock,
        book: Callable[[int], Awaitable[PolicyBook]],
        *,
        secrets: object = None,
        note: Callable[[str, Mapping[str, object]], None] = lambda _kind, _data: None,
    ) -> None:
        self._db = db
        self._namespace = namespace
        self._workflow_id = workflow_id
        self._epoch = epoch
        self._clock = clock
        self._book = book
        self._secrets = secrets
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    @property
    def workflow_id(self) -> str:
        """The workflow this segment runs."""
        return self._workflow_id

    def note(self, kind: str, data: Mapping[str, object]) -> None:
        """Note an event of the running workflow, also from a sync node's thread."""
        if threading.get_ident() == self._thread:
            self._note(kind, data)
        else:
            self._loop.call_soon_threadsafe(self._note, kind, data)

    async def begin_effect(self, key: str, visit: Visit, name: str, binding: Binding | None) -> EffectEntry:
        """Record that the effect begins, unless it is finished or in doubt; checks the approval it runs under."""
        token = uuid.uuid4().hex
        row: Params = {
            "key": key, "namespace": self._namespace, "workflow_id": self._workflow_id, "node": visit.node,
            "visit": visit.number, "name": name, "token": token, "approval_id": binding and binding.approval_id,
        }  # fmt: skip

        async def begin(conn: Connection) -> Params | None:
            if binding is not None:
                now = self._clock()
                found = await effects.bound_approval(conn, self._workflow_id, binding.approval_id, key, now)
                refusal = _refusal(found, key, binding)
                if refusal is not None:
                    raise refusal
                if found is not None and found["effect_state"] not in ("finished", "started"):
                    await self._check_standing(conn, found, binding.approval_id)
                if found is not None and found["used_by"] not in (None, key):
                    row["approval_id"] = None  # a part of the effect that the approval is bound to
            await effects.begin(conn, {**row, "now": self._clock()})
            return await effects.get(conn, key)

        return _entry(await self._fenced(begin) or {}, token)

    async def _check_standing(self, conn: Connection, found: Params, approval_id: str) -> None:
        """A freeze that began meanwhile holds the effect; the voters' roles are read once more where that is due."""
        if BREAK_GLASS in found["flags"]:
            return
        known = [
            one.freeze
            for one in (await self._book(found["policy_version"] or 0)).policies
            if one.name == found["policy"]
        ]
        freezes = [freeze_from_json(one) for one in found["freeze"] or ()] + [one for some in known for one in some]
        until = frozen_until(freezes, found["now"]) if freezes else None
        if until is not None:
            raise frozen_error(until, [approval_id])
        if found["recheck"] and await ineligible(
            conn, self._namespace, self._workflow_id, [approval_id], self._clock()
        ):
            raise ineligible_error([approval_id])

    async def again_effect(self, key: str) -> None:
        """Run a doubtful effect again."""

        async def again(conn: Connection) -> None:
            approval_id = await effects.late(conn, key, self._clock())
            if approval_id is not None:
                raise _lapsed(approval_id)
            entry = await effects.get(conn, key)
            if entry is not None and entry["approval_id"] is not None:
                bound = entry["approval_id"]
                found = await effects.bound_approval(conn, self._workflow_id, bound, key, self._clock())
                if found is not None:
                    await self._check_standing(conn, found, bound)
            await effects.again(conn, key)

        await self._fenced(again)

    async def ask_effect(self, key: str, asked: int) -> None:
        """Note that a person is asked."""
        await self._fenced(lambda conn: effects.ask(conn, key, asked))

    async def finish_effect(self, key: str, result: object) -> None:
        """Record the end and the result."""
        await self._fenced(lambda conn: effects.finish(conn, key, result, self._clock()))

    async def fail_effect(self, key: str, error: str) -> None:
        """Record that the body raised, without the secrets that the segment was given (rule 25)."""
        told = redact.hide(error, self._secrets)
        await self._fenced(lambda conn: effects.fail(conn, key, told))

    async def _fenced(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work` in a transaction that proves the lease first; try again while the database is away."""

        async def attempt() -> T:
            async with self._db.transaction() as conn:
                await workflows.hold(conn, self._workflow_id, self._epoch)
                return await work(conn)

        return await until_stored(attempt)

    def wait(self, work: Coroutine[object, object, T]) -> T:
        """Run `work` on the engine's loop from a sync node's thread."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            work.close()
            message = "this is an async node: use `async with effect(...)`"
            raise RuntimeError(message)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _entry(row: Params, token: str) -> EffectEntry:
    if not row:
        message = "the workflow is gone"
        raise LeaseLost(message)
    state = {"finished": "finished", "started": "new" if row["token"] == token else "in_doubt"}[row["state"]]
    return EffectEntry(state, row["result"], row["asked"], row["settled"])


def _refusal(found: Params | None, key: str, binding: Binding) -> Refusal | None:
    """Why an effect may not run under an approval now; None when it may (rules 9 and 11)."""
    approval_id = binding.approval_id
    if found is None or found["digest"] != binding.digest:
        detail = "what is about to run is not what this approval was given for; nothing ran"
        return DigestMismatch(detail, approval_id=approval_id)
    used_by = found["used_by"]
    if used_by is not None and key != used_by and not key.startswith(f"{used_by}:"):
        return AlreadyExecuted("this approval was used by another effect already", approval_id=approval_id)
    # What has run, or may have run, under the approval while it was good is looked at however late.
    if found["lapsed"] and found["effect_state"] not in ("finished", "started"):
        return _lapsed(approval_id)
    if found["state"] not in ("approved", "executed"):
        detail = f"the approval is {found['state']}, not approved; nothing ran"
        return DigestMismatch(detail, approval_id=approval_id, state=found["state"])
    return None


def _lapsed(approval_id: str) -> ApprovalLapsed:
    detail = "the approval lapsed before this ran; nothing ran. Submit the workflow anew to request it again"
    return ApprovalLapsed(detail, approval_id=approval_id, approval_ids=[approval_id])
