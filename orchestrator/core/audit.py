"""Checking event chains: each hash is recomputed from what is stored, event by event, and every fault is said in words.

Only what is handed in is looked at. Where events come from, a database or a file, is decided elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from orchestrator.core.canonical import chain_hash
from orchestrator.core.errors import InvalidInput

# So many findings of one chain are told; a chain that was written anew would bring one for each event.
_TOLD: Final = 20
_REWRITTEN: Final = "event {} is not the one that was anchored: the chain was written anew"


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event as it is stored. `at` is None for a time that no event of ours can have; `body` is the exact text."""

    workflow_id: str
    seq: int
    namespace: str
    at: datetime | None
    type: str
    actor: str
    body: str
    hash: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The newest event of a chain: its number (0: none yet) and its hash."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: in which chain, at which event (None: the chain as a whole), and what."""

    workflow_id: str
    seq: int | None
    detail: str


class ChainCheck:
    """Checks one chain: `take` its events in order, then `end`. `findings` are in the order of the chain.

    `head` is what the row of the workflow or namespace says (None: there is no such row; `rowless` when none is
    expected), `anchored` a head that was kept elsewhere and must still be in the chain.
    """

    def __init__(
        self, name: str, namespace: str, head: Head | None, *, anchored: Head | None = None, rowless: bool = False
    ) -> None:
        self.name = name
        self.events = 0
        self._namespace = namespace
        self._head = head
        self._anchored = anchored
        self._rowless = rowless
        self._last = Head(0, b"")
        self._found: list[Finding] = []
        self._more = 0

    @property
    def findings(self) -> list[Finding]:
        """What is wrong so far; of very many only the first, and their number."""
        if not self._more:
            return self._found
        return [*self._found, Finding(self.name, None, f"{self._more} more events of this chain are wrong")]

    def take(self, event: StoredEvent) -> None:
        """Judge the next event."""
        self.events += 1
        expected = self._last.seq + 1
        if event.seq < expected:
            self._add(event.seq, f"event {event.seq} stands where none may be")
            return
        if event.seq > expected:
            self._add(expected, f"{_events(expected, event.seq - 1)} missing")
        elif event.at is None or event.hash != _hash(self._last.hash, event):
            self._add(event.seq, f"event {event.seq} is not what was written: it was changed, or is another's")
        if event.namespace != self._namespace:
            self._add(event.seq, f"event {event.seq} was moved to the namespace {event.namespace!r}")
        # The stored hash goes on: what follows is judged by itself, and each fault is told once.
        self._last = Head(event.seq, event.hash)
        if self._anchored is not None and event.seq == self._anchored.seq and event.hash != self._anchored.hash:
            self._add(event.seq, _REWRITTEN.format(event.seq))

    def end(self) -> None:
        """Judge the end of the chain."""
        last, head, anchored = self._last, self._head, self._anchored
        if anchored is not None and last.seq < anchored.seq and (lost := compare(self.name, anchored, None, last.seq)):
            self._add(lost.seq, lost.detail)
        if self._rowless or (head is None and not self.events):
            return
        if head is None:
            self._add(None, f"the row of {self.name} is gone, but {self.events} of its events are there")
        elif last.seq < head.seq:
            self._add(last.seq + 1, f"{_events(last.seq + 1, head.seq)} missing at the end: the row counts {head.seq}")
        elif last.seq > head.seq:
            self._add(head.seq + 1, f"the row counts {head.seq} events, but there are {last.seq}")
        elif last.hash != head.hash:
            self._add(last.seq, f"event {last.seq} is the newest, but its hash is not the one that the row keeps")

    def _add(self, seq: int | None, detail: str) -> None:
        if len(self._found) < _TOLD:
            self._found.append(Finding(self.name, seq, detail))
        else:
            self._more += 1


def _hash(previous: bytes, event: StoredEvent) -> bytes | None:
    return event.at and chain_hash(previous, event.seq, event.at, event.type, event.actor, event.body)


def _events(first: int, last: int) -> str:
    return f"event {first} is" if first == last else f"events {first} to {last} are"


def compare(name: str, anchored: Head, found: bytes | None, last: int) -> Finding | None:
    """The finding for a chain whose event number `anchored.seq` has the hash `found` (None: it is not there) and which
    ends at `last`; None when it still contains what was anchored.
    """
    if found == anchored.hash:
        return None
    if found is not None:
        return Finding(name, anchored.seq, _REWRITTEN.format(anchored.seq))
    if not last:
        return Finding(name, None, f"the whole chain is gone: {anchored.seq} of its events were anchored")
    if last > anchored.seq:
        return Finding(name, anchored.seq, f"event {anchored.seq} was anchored and is missing")
    return Finding(name, last + 1, f"{_events(last + 1, anchored.seq)} missing at the end: they were anchored")


def export_line(event: StoredEvent) -> str:
    """One event as a line of JSON from which its hash can be computed again; `body` is the stored text."""
    at = event.at.isoformat() if event.at else None
    return json.dumps(
        {
            "workflow_id": event.workflow_id, "seq": event.seq, "namespace": event.namespace, "at": at,
            "type": event.type, "actor": event.actor, "body": event.body, "hash": event.hash.hex(),
        }
    )  # fmt: skip


def read_export(lines: Iterable[str]) -> Iterator[StoredEvent]:
    """The events of an exported file; raises InvalidInput that names the line."""
    for number, line in enumerate(lines, start=1):
        try:
            found = cast("Mapping[str, Any]", json.loads(line))
            at = None if found["at"] is None else datetime.fromisoformat(found["at"])
            yield StoredEvent(
                str(found["workflow_id"]), int(found["seq"]), str(found["namespace"]), at, str(found["type"]),
                str(found["actor"]), str(found["body"]), bytes.fromhex(found["hash"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(f"line {number} is not an exported event; export the trail again") from error


def check_export(events: Iterable[StoredEvent], anchored: Mapping[str, Head] | None = None) -> Iterator[ChainCheck]:
    """The finished check of each chain of an export, whose chains stand one after the other."""
    current: ChainCheck | None = None
    left = dict(anchored or {})
    for event in events:
        if current is None or event.workflow_id != current.name:
            if current is not None:
                yield _ended(current)
            head = left.pop(event.workflow_id, None)
            current = ChainCheck(event.workflow_id, event.namespace, None, anchored=head, rowless=True)
        current.take(event)
    if current is not None:
        yield _ended(current)
    for name, head in left.items():
        lost = ChainCheck(name, "", None, anchored=head, rowless=True)
        yield _ended(lost)


def _ended(check: ChainCheck) -> ChainCheck:
    check.end()
    return check
