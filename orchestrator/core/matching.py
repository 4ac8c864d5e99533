"""Filling slots with people: one person fills at most one slot, and no assignment is better than the one found.

Slots are filled in stage order by augmenting paths, so a person who could take two slots never blocks a quorum that
another assignment would meet (rule 4), and the result depends on the set of people only, not on who came first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from orchestrator.core.model import Slot


class Candidate(NamedTuple):
    """The roles somebody fills slots by, and when they voted (None: they would vote now)."""

    roles: frozenset[str]
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Fill:
    """`person` takes slot `slot` of stage `stage` (both from 0), by holding `role`."""

    person: str
    stage: int
    slot: int
    role: str


@dataclass(frozen=True, slots=True)
class Filling:
    """Who fills which slot. `missing` is what the first unfinished stage, `stage`, still needs; empty when all is."""

    filled: tuple[Fill, ...]
    missing: tuple[Slot, ...]
    stage: int


@dataclass(frozen=True, slots=True)
class _Seat:
    """One of a slot's `count` places."""

    stage: int
    number: int
    place: int
    slot: Slot

    def takes(self, person: Candidate) -> bool:
        return self.slot.taken_as(person.roles, person.at) is not None


def fill(stages: Sequence[Sequence[Slot]], people: Mapping[str, Candidate]) -> Filling:
    """The best filling of `stages` by `people`. A stage opens when all before it can be filled."""
    taken: dict[str, _Seat] = {}
    for number, stage in enumerate(stages):
        seats = [_Seat(number, index, place, slot) for index, slot in enumerate(stage) for place in range(slot.count)]
        empty = [seat for seat in seats if not _seat(seat, people, taken, set())]
        if empty:
            return Filling(_fills(taken, people), _missing(stage, empty), number)
    return Filling(_fills(taken, people), (), max(len(stages) - 1, 0))


def _seat(seat: _Seat, people: Mapping[str, Candidate], taken: dict[str, _Seat], asked: set[str]) -> bool:
    """Find somebody for `seat`, moving others to another seat where needed; `taken` changes only on success."""
    for person in sorted(people):
        if person in asked or not seat.takes(people[person]):
            continue
        asked.add(person)
        held = taken.get(person)
        if held is None or _seat(held, people, taken, asked):
            taken[person] = seat
            return True
    return False


def _fills(taken: Mapping[str, _Seat], people: Mapping[str, Candidate]) -> tuple[Fill, ...]:
    fills = (
        Fill(person, seat.stage, seat.number, seat.slot.taken_as(*people[person]) or "")
        for person, seat in taken.items()
    )
    return tuple(sorted(fills, key=lambda f: (f.stage, f.slot, f.person)))


def _missing(stage: Sequence[Slot], empty: Sequence[_Seat]) -> tuple[Slot, ...]:
    counts = Counter(seat.number for seat in empty)
    return tuple(replace(slot, count=counts[index]) for index, slot in enumerate(stage) if counts[index])
