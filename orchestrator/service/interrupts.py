"""The interrupts of a workflow as clients of LangGraph's own interfaces see them: rows of approvals, grouped and named.

LangGraph names an interrupt by its task, so a node that asks twice asks both times under one name. Ours tell the rounds
apart, and the revisions of what was edited: an answer never meets another question than the one it was given for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn, cast

from orchestrator.core.canonical import redact
from orchestrator.core.errors import (
    AlreadyResolved,
    AmbiguousApproval,
    Expired,
    NothingPending,
    StaleRevision,
    UnknownInterrupt,
)
from orchestrator.core.model import ApprovalState
from orchestrator.store.db import Params

# `-<round>-<revision of each of its requests>` behind LangGraph's name.
_SUFFIX = re.compile(r"-(\d{1,9})-\d+(\.\d+)*")
# What an id of ours looks like: LangGraph's, a stop's, or an approval's.
_ID = re.compile(r"([0-9a-f]{32}|breakpoint:[0-9a-f-]{1,64})(-\d+-[\d.]+)?|ap-[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What one interrupt asked in one round: its rows in the order of its payload."""

    rows: Sequence[Params]

    @property
    def dialect(self) -> str:
        """How it is answered."""
        return str(self.rows[0]["dialect"])

    @property
    def pending(self) -> list[Params]:
        """The requests that nobody has decided."""
        return [row for row in self.rows if row["state"] == ApprovalState.PENDING]

    @property
    def id(self) -> str:
        """Its name: LangGraph's, unless it was asked again or edited."""
        base, nth = str(self.rows[0]["interrupt_id"]), int(self.rows[0]["round"])
        revisions = [int(row["revision"]) for row in self.rows]
        return base if nth == 0 and set(revisions) == {1} else f"{base}-{nth}-{'.'.join(map(str, revisions))}"


@dataclass(frozen=True, slots=True)
class Meant:
    """What an answer is for. `exact`: its name tells which revision was seen."""

    rows: Sequence[Params]
    dialect: str
    exact: bool


def looks_like_id(text: str) -> bool:
    """Whether a text can be the name of an interrupt."""
    return _ID.fullmatch(text) is not None


def grouped(rows: Iterable[Params]) -> list[Asked]:
    """The interrupts of a workflow's approvals, in the order they were asked."""
    groups: dict[tuple[str, str, int], list[Params]] = {}
    for row in rows:
        groups.setdefault((row["workflow_id"], row["interrupt_id"], row["round"]), []).append(row)
    return [Asked(sorted(ones, key=lambda one: int(one["item"]))) for ones in groups.values()]


def named(groups: Sequence[Asked], name: str) -> Meant:
    """The interrupt or single request of this name. UnknownInterrupt, StaleRevision, AlreadyResolved, Expired."""
    for one in groups:
        found = next((row for row in one.rows if row["approval_id"] == name), None)
        if found is not None:
            return _open(Meant([found], one.dialect, exact=False))
        if one.id == name:
            return _open(Meant(one.rows, one.dialect, exact=True))
    for one in groups:
        if _is_of(one, name):
            _open(Meant(one.rows, one.dialect, exact=False))
            detail = f"the request was edited since and its interrupt is {one.id} now: read it again, then decide"
            raise StaleRevision(detail, interrupt_id=one.id, revision=max(row["revision"] for row in one.rows))
    pending = [one.id for one in groups if one.pending]
    known = f"waiting: {', '.join(pending)}" if pending else "nothing of it waits"
    raise UnknownInterrupt(f"no interrupt of this thread is {name!r}; {known}", interrupt_id=name, pending=pending)


def _is_of(one: Asked, name: str) -> bool:
    """Whether a name is that of this round, whatever was edited since."""
    base, nth = str(one.rows[0]["interrupt_id"]), int(one.rows[0]["round"])
    if name == base:
        return nth == 0
    suffix = _SUFFIX.fullmatch(name.removeprefix(base)) if name.startswith(base) else None
    return suffix is not None and int(suffix[1]) == nth


def only(groups: Sequence[Asked], status: str) -> Meant:
    """The one interrupt that waits. AmbiguousApproval, AlreadyResolved, Expired, NothingPending."""
    waiting = [one for one in groups if one.pending]
    if len(waiting) > 1:
        say_which(waiting, f"{len(waiting)} interrupts wait")
    if waiting:
        return Meant(waiting[0].rows, waiting[0].dialect, exact=False)
    ended = [row for one in groups for row in one.rows if row["resolved_at"] is not None]
    if not ended:
        detail = f"the thread is {status} and waits for no answer"
        raise NothingPending(detail, status=status)
    return over(ended)


def say_which(waiting: Sequence[Asked], why: str) -> NoReturn:
    """Ask for a name."""
    listed = [
        {"interrupt_id": one.id, "approval_ids": [row["approval_id"] for row in one.rows],
         "description": one.rows[0]["description"], "node": one.rows[0]["node"]}
        for one in waiting
    ]  # fmt: skip
    detail = f"{why}; say which is meant, as {{interrupt id: answer}}"
    raise AmbiguousApproval(detail, approvals=listed)


def _open(meant: Meant) -> Meant:
    if all(row["state"] != ApprovalState.PENDING for row in meant.rows):
        over(meant.rows)
    return meant


def over(rows: Sequence[Params]) -> NoReturn:
    """Tell whoever comes late who was first."""
    last = max(rows, key=_ended_at)
    facts: dict[str, object] = {"approval_id": last["approval_id"], "interrupt_id": last["interrupt_id"]}
    if last["state"] == ApprovalState.EXPIRED:
        at = last["expires_at"].isoformat()
        raise Expired(f"the request expired at {at}", expired_at=at, **facts)
    when = last["resolved_at"].isoformat() if last["resolved_at"] else None
    # It is executed by nobody who decides.
    became = "approved" if last["state"] == ApprovalState.EXECUTED else last["state"]
    detail = f"the request was {became} by {last['resolved_by']} at {when}; this answer was not counted"
    raise AlreadyResolved(detail, state=last["state"], resolved_by=last["resolved_by"], resolved_at=when, **facts)


def _ended_at(row: Mapping[str, datetime | None]) -> tuple[bool, datetime | None]:
    at = row["resolved_at"]
    return (False, None) if at is None else (True, at)


# What it shows


def shown(one: Asked) -> object:
    """What an interrupt asks, with edited actions in the place of what was asked first, and without its secrets."""
    payload: object = one.rows[0]["payload"]
    for row in one.rows:
        if row["revision"] > 1:
            payload = _with_edit(one.dialect, payload, row)
    return redact.beside(payload, one.rows[0]["payload"])


def _with_edit(dialect: str, payload: object, row: Params) -> object:
    action, item = cast("Mapping[str, object]", row["action"]), int(row["item"])
    name, args = action["operation"], action["arguments"]
    if dialect == "agent_inbox":
        return _replaced(payload, item, {"action_request": {"action": name, "args": args}})
    body = cast("Mapping[str, object]", payload)
    match dialect:
        case "keyturn":
            return {**body, "action": action}
        case "langchain_call":
            return {**body, "name": name, "args": args}
        case _:
            return {**body, "action_requests": _replaced(body["action_requests"], item, {"name": name, "args": args})}


def _replaced(entries: object, item: int, part: Mapping[str, object]) -> list[object]:
    listed = cast("Sequence[Mapping[str, object]]", entries)
    return [{**entry, **part} if nth == item else entry for nth, entry in enumerate(listed)]
