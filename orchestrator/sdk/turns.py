"""One gated call after the other within one run of a node, each with its own answer.

LangGraph matches answers to the calls of `interrupt()` by their order within the node. Tools that run side by side in
one `ToolNode` have no order to rely on, so their calls take turns here, and an answer is given to the call that asked
for the very same action.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, cast

from langgraph.config import get_config
from langgraph.errors import GraphInterrupt
from langgraph.prebuilt.tool_node import ToolInvocationError
from langgraph.types import interrupt

from orchestrator.core.canonical import digest
from orchestrator.core.errors import StepFailed
from orchestrator.sdk.gate import Decision, mismatch, read_decision
from orchestrator.sdk.runtime import current_visit, host, visit

# How long a call that found answers for others only gives them to come and take theirs.
_PATIENCE = 0.25
_inside: ContextVar[bool] = ContextVar("keyturn_inside_a_tool", default=False)


class Turns:
    """The gated calls of one run of a node."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._seen: dict[str, int] = {}
        # Answers that came up while another call was asking.
        self._spare: list[Mapping[str, object]] = []
        self._over: Exception | None = None

    @classmethod
    def here(cls) -> Turns:
        """Those of the node that runs; RuntimeError outside of a Keyturn worker."""
        host()
        visit()
        found = current_visit.get()
        assert found is not None  # noqa: S101 `visit` saw to it
        # A graph that the node's function calls by itself counts its interrupts apart.
        settings = cast("Mapping[str, Any]", get_config())
        place = str(settings.get("configurable", {}).get("checkpoint_ns", ""))
        turns = found.turns.setdefault(place, cls())
        assert isinstance(turns, cls)  # noqa: S101 nobody else puts anything there
        return turns

    def number(self, key: str) -> int:
        """How often this run of the node has called with `key`, this time included."""
        self._seen[key] = self._seen.get(key, 0) + 1
        return self._seen[key]

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for the others, and keep them waiting while the block runs.

        Once one of them had to ask, or failed, the node is ending: nothing more begins in it.
        """
        if _inside.get():
            message = "a gated tool was called by a gated tool; call it from a node, or make the inner one a function"
            raise RuntimeError(message)
        async with self._lock:
            self._check_open()
            token = _inside.set(True)
            try:
                yield
            except ToolInvocationError:
                raise  # told to the model, and the node goes on
            except Exception as error:
                self._over = self._over or error
                raise
            finally:
                _inside.reset(token)

    def _check_open(self) -> None:
        if isinstance(self._over, GraphInterrupt):
            raise GraphInterrupt(*self._over.args)
        if self._over is not None:
            detail = "another tool call of the same turn failed before this one began, so it did not run"
            raise StepFailed(detail) from self._over

    async def ask(self, payload: Mapping[str, object], wanted: Mapping[str, object]) -> Decision:
        """The decision about `wanted`, the action of `payload`; the node ends here while there is none.

        DigestMismatch when what was decided on is not what anybody asks for now.
        """
        while True:
            found = next((one for one in self._spare if _is_for(one, wanted)), None)
            if found is not None:
                self._spare.remove(found)
                return read_decision(found, wanted)
            try:
                answer: object = interrupt(payload)
            except GraphInterrupt:
                await self._after_the_others(wanted)
                raise
            decided: Mapping[str, object] = cast("Mapping[str, object]", answer) if isinstance(answer, Mapping) else {}
            if "approval_id" not in decided:
                return read_decision(cast("object", answer), wanted)
            self._spare.append(decided)

    async def _after_the_others(self, wanted: Mapping[str, object]) -> None:
        """Let the others take the answers that came up; what is left over then was decided for something else."""
        if not self._spare:
            return
        self._lock.release()
        try:
            await asyncio.sleep(_PATIENCE)
        finally:
            await self._lock.acquire()
        self._check_open()
        if self._spare:
            raise mismatch(read_decision(self._spare[0], wanted), wanted)


def _is_for(answer: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    """Whether an answer was given to a request for `wanted`, whatever was made of it before it was decided."""
    asked = answer.get("asked_digest") or answer.get("digest")
    return asked == digest(wanted, cast("Sequence[str]", answer.get("volatile_fields") or ()))
