"""The ledger of external effects: what finished is not run again, what is in doubt is verified or asked about.

An effect is named within its node's visit. It is recorded before it runs and again when it has run, so that a worker
which takes over knows which of the three it faces: not begun, done, or nobody knows.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

from langgraph.types import interrupt

from orchestrator.core.canonical import canonical_json, digest
from orchestrator.core.errors import ActionRejected, InvalidInput
from orchestrator.core.model import Action
from orchestrator.sdk.gate import Decision, as_action, mismatch
from orchestrator.sdk.runtime import Binding, EffectEntry, host, idempotency_key, visit

T = TypeVar("T")
HAPPENED = "it happened"
DID_NOT_HAPPEN = "it did not happen, run it now"
STOP = "stop the workflow"


class Happened:
    """What a `verify` function returns when the effect did happen, with its JSON result (None otherwise)."""

    def __init__(self, result: object = None) -> None:
        self.result = result


class Unknown:
    """What a `verify` function returns when it cannot tell: a person is asked."""


Verify = Callable[[], "Awaitable[Happened | Unknown | None] | Happened | Unknown | None"]


class _Ready(Generic[T]):
    """An awaitable that is done already, so that a sync node can drive the same coroutine to its end at once."""

    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[None, None, T]:
        return self._value
        yield


class Effect:
    """One entry of the ledger, made by `effect(...)` and entered with `async with` (`with` in a sync node).

    `key` is the idempotency key to hand to the target. When `done` is true it has run already and `result` is what
    was recorded; otherwise run it and call `record(result)`, or let `once(call)` do both.
    """

    def __init__(self, name: str, verify: Verify | None, binding: Binding | None) -> None:
        self.name = name
        self.key = idempotency_key(name)
        self.done = False
        self.result: object = None
        self._verify = verify
        self._binding = binding
        self._host = host()
        self._blocking = False

    def record(self, result: object) -> None:
        """Say what the effect resulted in: a JSON value, kept when the block ends. InvalidInput when it is not one."""
        try:
            canonical_json(result)
        except (TypeError, ValueError) as error:
            detail = f"the result of effect {self.name} must be a JSON value: {error}"
            raise InvalidInput(detail) from error
        self.result = result

    async def once(self, call: Callable[[], Awaitable[object]]) -> object:
        """Run `call` unless the effect is done; its JSON result is recorded and returned, now and ever after."""
        if not self.done:
            self.record(await call())
        return self.result

    def once_sync(self, call: Callable[[], object]) -> object:
        """The same for a sync node."""
        if not self.done:
            self.record(call())
        return self.result

    async def __aenter__(self) -> Self:
        await self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave(error)

    def __enter__(self) -> Self:
        self._blocking = True
        _drive(self._enter())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _drive(self._leave(error))

    def _do(self, work: Coroutine[object, object, T]) -> Awaitable[T]:
        return _Ready(self._host.wait(work)) if self._blocking else work

    async def _enter(self) -> None:
        entry = await self._do(self._host.begin_effect(self.key, visit(), self.name, self._binding))
        answer: object = None
        # Every question ever asked about this effect is put again, as LangGraph matches answers to the calls of
        # `interrupt` by their order within the node.
        for number in range(1, entry.asked + 1):
            answer = self._question(number)
        if entry.state == "finished":
            self.done, self.result = True, entry.result
        elif entry.state == "in_doubt":
            await self._doubt(entry, answer)

    async def _doubt(self, entry: EffectEntry, answer: object) -> None:
        if entry.settled < entry.asked:
            await self._settle(answer)
            return
        found = await self._verified()
        if isinstance(found, Happened):
            await self._already(found.result)
        elif found is None:
            await self._do(self._host.again_effect(self.key))
        else:
            number = entry.asked + 1
            await self._do(self._host.ask_effect(self.key, number))
            await self._settle(self._question(number))

    async def _verified(self) -> Happened | Unknown | None:
        if self._verify is None:
            return Unknown()
        found = self._verify()
        if inspect.isawaitable(found):
            return await self._do(_as_coroutine(found))
        return found

    async def _settle(self, answer: object) -> None:
        if answer == HAPPENED:
            await self._already(None)
        elif answer == DID_NOT_HAPPEN:
            await self._do(self._host.again_effect(self.key))
        else:
            detail = f"a person stopped the workflow because nobody knows whether effect {self.name} ran"
            raise ActionRejected(detail, effect=self.key)

    async def _already(self, result: object) -> None:
        self.record(result)
        await self._do(self._host.finish_effect(self.key, result))
        self.done = True

    def _question(self, number: int) -> object:
        payload = {
            "type": "question",
            "prompt": f"A worker stopped while “{self.name}” was running, and nothing tells whether it happened. "
            f"Look at the target, then say what is true. (Key {self.key}, question {number}.)",
            "options": [HAPPENED, DID_NOT_HAPPEN, STOP],
        }
        value = interrupt(payload)
        return cast("Mapping[str, object]", value).get("answer") if isinstance(value, Mapping) else value

    async def _leave(self, error: BaseException | None) -> None:
        if self.done:
            return
        if error is None:
            await self._do(self._host.finish_effect(self.key, self.result))
            self.done = True
        elif isinstance(error, Exception):
            # It raised, so its attempt is over: a later attempt may run it. A cancelled attempt stays in doubt.
            await self._do(self._host.fail_effect(self.key, str(error)))


def effect(
    name: str,
    *,
    verify: Verify | None = None,
    approval: Decision | Mapping[str, object] | None = None,
    action: Action | Mapping[str, object] | None = None,
) -> Effect:
    """Enter an effect in the ledger under `workflow:node:visit:name`.

    A finished effect gives its recorded result again. One that began and whose end was never recorded is in doubt:
    `verify` looks at the target and returns `Happened(result)`, None (it did not happen: it runs now) or `Unknown()`;
    without a `verify`, or when it cannot tell, a person is asked. An effect whose body raised runs again on a retry.

    With `approval` and `action` (what is really about to run) the effect runs only if that approval still stands and
    was given for exactly this action: DigestMismatch, ApprovalLapsed or AlreadyExecuted otherwise, and nothing runs.
    An approval is used by one effect; effects named below it (`apply:0` below `apply`) are parts of that one.
    """
    if (approval is None) != (action is None):
        detail = "give both `approval` and `action`, or neither"
        raise InvalidInput(detail)
    binding: Binding | None = None
    if approval is not None and action is not None:
        decision = approval if isinstance(approval, Decision) else Decision.from_json(approval)
        wanted = as_action(action).to_json()
        found = digest(wanted, decision.volatile_fields)
        if found != decision.digest:
            raise mismatch(decision, wanted)
        binding = Binding(decision.approval_id, found)
    return Effect(name, verify, binding)


async def _as_coroutine(work: Awaitable[T]) -> T:
    return await work


def _drive(work: Coroutine[object, object, None]) -> None:
    """Run a coroutine that never waits for the loop to its end."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    message = "a sync effect awaited something; use `async with` in an async node"
    raise RuntimeError(message)
