"""What two versions of a requirement come to together: whoever satisfies the result satisfies each (rule 8).

Slots are compared stage by stage. A slot that both have is needed as often as the one that needs it more often; a slot
whose roles are among another's stands for that one too, so nobody is asked twice for the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import zip_longest
from typing import TypeAlias

from orchestrator.core.matching import Candidate, fill
from orchestrator.core.model import Requirement, Slot

Stage: TypeAlias = Sequence[Slot]
_Seats: TypeAlias = Counter[frozenset[str]]


def stricter_requirement(one: Requirement, other: Requirement) -> Requirement:
    """What satisfies both. What an escalation did to a slot of either stays with the slots of the same roles."""
    return Requirement(
        stages=tuple(_stage(*pair) for pair in zip_longest(one.stages, other.stages, fillvalue=())),
        deny_threshold=min(one.deny_threshold, other.deny_threshold),
        justification_on_decision=one.justification_on_decision or other.justification_on_decision,
    )


def _stage(one: Stage, other: Stage) -> tuple[Slot, ...]:
    if tuple(one) == tuple(other):
        return tuple(one)
    mine, theirs = _seats(one), _seats(other)
    # Merging again what was merged before changes nothing.
    both = mine if _covers(mine, theirs) else theirs if _covers(theirs, mine) else _merged(mine, theirs)
    slots = sorted(both.items(), key=lambda item: sorted(item[0]))
    return tuple(_escalated(Slot(roles, count), (*one, *other)) for roles, count in slots)


def _seats(stage: Stage) -> _Seats:
    seats: _Seats = Counter()
    for slot in stage:
        seats[slot.roles] += slot.count
    return seats


def _covers(strict: _Seats, loose: _Seats) -> bool:
    """Whether whoever takes all seats of `strict` could take all seats of `loose`, each person one."""
    wanted = [Slot(frozenset({str(index)}), count) for index, count in enumerate(loose.values())]
    takers = {
        f"{index}.{seat}": Candidate(frozenset(str(at) for at, wide in enumerate(loose) if roles <= wide))
        for index, (roles, count) in enumerate(strict.items())
        for seat in range(count)
    }
    return not fill([wanted], takers).missing


def _merged(one: _Seats, other: _Seats) -> _Seats:
    """The seats of both, where one seat stands for two of which it is the narrower; alike ones first."""
    mine, theirs, both = Counter(one), Counter(other), Counter[frozenset[str]]()
    pairs = ((a, b) for a in one for b in other if a <= b or b <= a)
    for a, b in sorted(pairs, key=lambda pair: (len(pair[0] ^ pair[1]), sorted(map(sorted, pair)))):
        shared = min(mine[a], theirs[b])
        mine[a] -= shared
        theirs[b] -= shared
        both[a & b] += shared
    # `+` leaves out what is down to nothing.
    return +(both + mine + theirs)


def _escalated(slot: Slot, before: Iterable[Slot]) -> Slot:
    """`slot` with what was done to the slots it stands for."""
    alike = [other for other in before if other.escalated and (other.roles <= slot.roles or slot.roles <= other.roles)]
    closed: list[datetime] = [other.closed_at for other in alike if other.closed_at]
    return replace(
        slot,
        escalated=frozenset(role for other in alike for role in other.escalated),
        closed_at=min(closed, default=None),
    )
