"""Comparing what a scenario expects with what Keyturn says; every difference is told, the first one is not the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from tests.acceptance.malformed import MalformedError
from tests.acceptance.reading import Body, mapping, sequence, texts
from tests.acceptance.times import instant, span
from tests.acceptance.translating import person_name, role_name

# The scenarios' word first, Keyturn's after it.
_STATES = {"denied": "rejected", "deny": "rejected", "refused": "unroutable", "canceled": "cancelled"}
RESUMES = {"approved", "answered"}
CANCELS = {"rejected", "expired", "withdrawn", "cancelled"}
# What a verb answers, as scenarios may call it too.
_CODES = {
    ("break_glass", "resolved"): {"break_glass"}, ("edit", "revised"): {"edited"},
}  # fmt: skip
_QUORUM = {"quorum", "slots", "missing_slots", "approvals", "votes", "stages"}
ENDED = {"workflow-rejected", "workflow-timed-out", "workflow-cancelled"}


class Differences(list[str]):
    """What was not as expected."""

    def same(self, what: str, expected: object, got: object) -> None:
        if expected != got:
            self.append(f"{what}: expected {expected!r}, got {got!r}")


def code_of(verb: str, expected: object, got: str | None) -> str | None:
    """The code that was got, in the word the scenario has for it."""
    return str(expected) if expected in _CODES.get((verb, got or ""), ()) else got


def state_of(value: object) -> str:
    return _STATES.get(str(value), str(value))


def instants(value: object, place: str, *starts: datetime) -> list[datetime]:
    """The instants an expected time can mean: an absolute one, or an offset from any of `starts`."""
    absolute = instant(value, place)
    return [absolute] if absolute is not None else [start + span(value, place) for start in starts]


def near(expected: Sequence[datetime], got: object) -> bool:
    """Whether a time of the wire is one of `expected`, to the millisecond."""
    if not isinstance(got, str):
        return False
    found = datetime.fromisoformat(got)
    return any(abs(found - one) < timedelta(milliseconds=1) for one in expected)


def outbox(events: Sequence[Body]) -> list[str]:
    """The commands that a workflow's resolutions issued: the run is resumed or cancelled, once each.

    A rejection cancels where the workflow ended with it; a gate that wants to hear of it is resumed.
    """
    found: list[str] = []
    for event in events:
        data = mapping(event["data"], "event")
        if event["type"] not in {"confirmation-resolved", "approval-withdrawn"} or "state" not in data:
            continue
        ended = any(one["type"] in ENDED and one["seq"] > event["seq"] for one in events)  # pyright: ignore[reportOperatorIssue]
        state = str(data["state"])
        if state in RESUMES or (state == "rejected" and not ended):
            found.append("resume")
        elif state in CANCELS:
            found.append("cancel")
    return found


def final(place: str, expected: Body, got: Body) -> Differences:
    """The differences of one request's end. `got` is as `Player.ending` tells it."""
    differences = Differences()
    for key, value in expected.items():
        _FINAL[key](differences, f"{place}.{key}", value, got)
    return differences


def _state(differences: Differences, what: str, expected: object, got: Body) -> None:
    # Approved, and the time to run it ran out before the scenario's end: a scenario may leave that unsaid.
    if not (expected == "approved" and got["state"] == "lapsed" and got["ran_out"]):
        differences.same(what, state_of(expected), got["state"])


def _filled(differences: Differences, what: str, expected: object, got: Body) -> None:
    wanted = {person_name(person): role_name(str(role)) for person, role in mapping(expected, what).items()}
    differences.same(what, wanted, got["filled"])


def _void(differences: Differences, what: str, expected: object, got: Body) -> None:
    """`person` or `person@revision`, each with the reason; no other vote may be void."""
    left = [mapping(one, what) for one in sequence(got["void"], what)]
    for name, reason in mapping(expected, what).items():
        person, _, revision = name.rpartition("@") if "@" in name else (name, "", "")
        found = [
            one for one in left
            if one["person"] == person_name(person) and (not revision or str(one["revision"]) == revision.lstrip("r"))
        ]  # fmt: skip
        if not found or any(one["reason"] != reason for one in found):
            differences.append(f"{what}.{name}: expected {reason!r}, got {[one['reason'] for one in found]}")
        left = [one for one in left if one not in found]
    if left:
        differences.append(f"{what}: nothing else was expected, got {left}")


def _names(differences: Differences, what: str, expected: object, got: Body) -> None:
    key = what.rpartition(".")[2]
    wanted = sorted(person_name(name) if key == "dissent" else str(name) for name in texts(expected))
    differences.same(what, wanted, sorted(str(one) for one in cast("list[object]", got[key])))


def _bypassed(differences: Differences, what: str, expected: object, got: Body) -> None:
    """The freeze and the roles that were missing; a scenario may call all of these the quorum."""
    wanted, found = set(texts(expected)), {str(one) for one in cast("list[object]", got["bypassed"])}
    if wanted & _QUORUM:
        wanted = {"quorum" if one in _QUORUM else one for one in wanted}
        found = {one if one == "freeze" else "quorum" for one in found}
    differences.same(what, sorted(wanted), sorted(found))


def _reason(differences: Differences, what: str, expected: object, got: Body) -> None:
    told = [str(one) for one in cast("list[object]", got["reason"]) if one]
    if str(expected) not in told:
        differences.append(f"{what}: expected {expected!r}, got {told}")


def _versions(differences: Differences, what: str, expected: object, got: Body) -> None:
    found = [str(one).rpartition("@")[2].lstrip("v") for one in cast("list[object]", got["policy_versions"])]
    differences.same(what, texts(expected), found)


def _outbox(differences: Differences, what: str, expected: object, got: Body) -> None:
    differences.same(what, texts(expected), got["outbox"])


def _events(differences: Differences, what: str, expected: object, got: Body) -> None:
    """How many events of a type there are."""
    counted = cast("Mapping[str, int]", got["events"])
    for kind, count in mapping(expected, what).items():
        differences.same(f"{what}.{kind}", count, counted.get(kind, 0))


def _part(differences: Differences, what: str, expected: object, got: Body) -> None:
    """A value whose mappings may hold more than was expected."""
    key = what.rpartition(".")[2]
    if not within(expected, got[key]):
        differences.append(f"{what}: expected {expected!r} in {got[key]!r}")


def within(expected: object, got: object) -> bool:
    """Whether `got` is `expected`, where a mapping of `got` may have more keys."""
    if isinstance(expected, Mapping):
        wanted = cast("Mapping[str, object]", expected)
        found: Any = got
        return isinstance(got, Mapping) and all(key in found and within(one, found[key]) for key, one in wanted.items())
    if isinstance(expected, list):
        listed = cast("list[object]", expected)
        others: Any = got
        return (
            isinstance(got, list)
            and len(listed) == len(others)
            and all(within(one, other) for one, other in zip(listed, others, strict=True))
        )
    return str(expected) == str(got) if isinstance(expected, str) else expected == got


_FINAL = {
    "state": _state,
    "filled": _filled,
    "void": _void,
    "dissent": _names,
    "reason": _reason,
    "policy_versions": _versions,
    "flags": _names,
    "bypassed": _bypassed,
    "outbox": _outbox,
    "events": _events,
    "resumed_with": _part,
    "ran": _part,
    "revision": _part,
    "risk": _part,
    "status": _part,
}


def check_known(expected: Body, known: set[str], place: str) -> None:
    if unknown := sorted(set(expected) - known):
        raise MalformedError(f"{place}: expect.{unknown[0]} is not known; known are {', '.join(sorted(known))}")
