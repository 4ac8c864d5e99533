"""Filling slots with people: one person fills at most one slot, and no assignment is better than the one found.

Slots are filled in stage order by augmenting paths, so a person who could take two slots never blocks a quorum that
another assignment would meet (rule 4), and the result depends on the set of people only, not on who came first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.model import Slot


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
    slot: int
    place: int
    roles: frozenset[str]


def fill(stages: Sequence[Sequence[Slot]], people: Mapping[str, frozenset[str]]) -> Filling:
    """The best filling of `stages` by `people` (name to roles). A stage opens when all before it can be filled."""
    taken: dict[str, _Seat] = {}
    for number, stage in enumerate(stages):
        seats = [
            _Seat(number, index, place, slot.roles) for index, slot in enumerate(stage) for place in range(slot.count)
        ]
        empty = [seat for seat in seats if not _seat(seat, people, taken, set())]
        if empty:
            return Filling(_fills(taken, people), _missing(stage, empty), number)
    return Filling(_fills(taken, people), (), max(len(stages) - 1, 0))


def _seat(seat: _Seat, people: Mapping[str, frozenset[str]], taken: dict[str, _Seat], asked: set[str]) -> bool:
    """Find somebody for `seat`, moving others to another seat where needed; `taken` changes only on success."""
    for person in sorted(people):
        if person in asked or not people[person] & seat.roles:
            continue
        asked.add(person)
        held = taken.get(person)
        if held is None or _seat(held, people, taken, asked):
            taken[person] = seat
            return True
    return False


def _fills(taken: Mapping[str, _Seat], people: Mapping[str, frozenset[str]]) -> tuple[Fill, ...]:
    fills = (Fill(p, seat.stage, seat.slot, min(people[p] & seat.roles)) for p, seat in taken.items())
    return tuple(sorted(fills, key=lambda f: (f.stage, f.slot, f.person)))


def _missing(stage: Sequence[Slot], empty: Sequence[_Seat]) -> tuple[Slot, ...]:
    counts = Counter(seat.slot for seat in empty)
    return tuple(Slot(slot.roles, counts[index]) for index, slot in enumerate(stage) if counts[index])
