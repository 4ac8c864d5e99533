"""Two things happen to one request at once, a hundred times: one order, one end, and whoever lost is told so.

Each pair also runs forced: one side is stopped between what it reads and what it writes, and kept waiting by the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.invariants import Row, Tables
from tests.faults.target import Target
from tests.service.arena import Arena, arena, code

TIMES = 100
_MOMENT = timedelta(microseconds=1)


@pytest.fixture
async def ring(database_url: str, tmp_path: Path) -> AsyncIterator[Arena]:
    target = Target(tmp_path / "target")
    target.prepare()
    async with arena(database_url, target) as found:
        yield found


def refusals(tables: Tables, row: Row) -> list[tuple[str, str]]:
    """Who was refused with which code, of one workflow."""
    events = tables.events[row["workflow_id"]]
    return [(event["actor"], event["body"]["code"]) for event in events if event["type"] == "refused"]


def state(tables: Tables, row: Row) -> Row:
    return next(one for one in tables.approvals if one["approval_id"] == row["approval_id"])


def one_won(tables: Tables, row: Row, outcomes: list[Any], who: tuple[str, str], lost: tuple[str, str]) -> int:
    """Which of two won; the other was refused with the code for it, and that was audited."""
    codes = [code(one) for one in outcomes]
    winner = 0 if codes[1] == lost[1] else 1
    assert codes[1 - winner] == lost[1 - winner], codes
    assert codes[winner] not in lost, codes
    assert refusals(tables, row) == [(who[1 - winner], lost[1 - winner])]
    return winner


async def test_vote_and_vote(ring: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = await ring.asked(TIMES + 1)
    told = [
        await ring.race(ring.vote(ring.one, row), ring.vote(ring.other, row, "theo", "reject")) for row in rows[:-1]
    ]
    told.append(
        await ring.overtaken(
            monkeypatch, ring.vote(ring.one, rows[-1]), ring.vote(ring.other, rows[-1], "theo", "reject")
        )
    )
    tables = await ring.check()
    lost = ("already_resolved", "already_resolved")
    won = [one_won(tables, row, out, ("tara", "theo"), lost) for row, out in zip(rows, told, strict=True)]
    for row, out, winner in zip(rows, told, won, strict=True):
        assert state(tables, row)["state"] == ("approved", "rejected")[winner]
        assert out[1 - winner].facts["resolved_by"] == ("tara", "theo")[winner]
    assert set(won) == {0, 1}


async def test_two_votes_of_which_both_are_needed(ring: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = await ring.asked(TIMES + 1, "pair")
    told = [await ring.race(ring.vote(ring.one, row), ring.vote(ring.other, row, "theo")) for row in rows[:-1]]
    forced = ring.vote(ring.one, rows[-1]), ring.vote(ring.other, rows[-1], "theo")
    told.append(await ring.overtaken(monkeypatch, *forced))
    tables = await ring.check()
    assert [sorted(map(code, out)) for out in told] == [["recorded", "resolved"]] * len(rows)
    assert {state(tables, row)["state"] for row in rows} == {"approved"}
    assert Counter(vote["voter"] for vote in tables.votes) == {"tara": len(rows), "theo": len(rows)}
    assert {code(out[0]) for out in told} == {"recorded", "resolved"}


async def test_vote_and_edit(ring: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = await ring.asked(TIMES + 2)
    told = [await ring.race(ring.vote(ring.one, row), ring.edit(ring.other, row)) for row in rows[:-2]]
    told.append(await ring.overtaken(monkeypatch, ring.vote(ring.one, rows[-2]), ring.edit(ring.other, rows[-2])))
    held = await ring.kept_waiting(monkeypatch, ring.edit(ring.other, rows[-1]), ring.vote(ring.one, rows[-1]), 2)
    told.append(held[::-1])
    tables = await ring.check()
    lost = ("stale_revision", "already_resolved")
    won = [one_won(tables, row, out, ("tara", "theo"), lost) for row, out in zip(rows, told, strict=True)]
    for row, winner in zip(rows, won, strict=True):
        now = state(tables, row)
        assert (now["state"], now["revision"]) == (("approved", 1), ("pending", 2))[winner]
        assert (now["digest"] == row["digest"]) == (winner == 0)
        assert sum(vote["approval_id"] == row["approval_id"] for vote in tables.votes) == 1 - winner
    assert set(won) == {0, 1}
    assert won[-2:] == [1, 1]


async def test_vote_and_withdraw(ring: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = await ring.asked(TIMES + 2)
    told = [await ring.race(ring.vote(ring.one, row), ring.withdraw(ring.other, row)) for row in rows[:-2]]
    forced = ring.vote(ring.one, rows[-2]), ring.withdraw(ring.other, rows[-2])
    told.append(await ring.overtaken(monkeypatch, *forced))
    held = await ring.kept_waiting(monkeypatch, ring.withdraw(ring.other, rows[-1]), ring.vote(ring.one, rows[-1]), 2)
    told.append(held[::-1])
    tables = await ring.check()
    lost = ("already_resolved", "already_resolved")
    won = [one_won(tables, row, out, ("tara", "rita"), lost) for row, out in zip(rows, told, strict=True)]
    for row, winner in zip(rows, won, strict=True):
        ended = (state(tables, row)["state"], tables.workflows[row["workflow_id"]]["status"])
        assert ended == (("approved", "ready"), ("withdrawn", "cancelled"))[winner]
    assert set(won) == {0, 1}
    assert won[-2:] == [1, 1]


async def test_vote_and_break_glass(ring: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = await ring.asked(TIMES + 2, "glass")
    for row in rows:
        assert code(await ring.vote(ring.one, row, "theo")()) == "recorded"
    told = [await ring.race(ring.vote(ring.one, row), ring.break_glass(ring.other, row)) for row in rows[:-2]]
    forced = ring.vote(ring.one, rows[-2]), ring.break_glass(ring.other, rows[-2])
    told.append(await ring.overtaken(monkeypatch, *forced))
    glass = ring.break_glass(ring.other, rows[-1])
    told.append((await ring.kept_waiting(monkeypatch, glass, ring.vote(ring.one, rows[-1]), 2))[::-1])
    tables = await ring.check()
    lost = ("already_resolved", "already_resolved")
    won = [one_won(tables, row, out, ("tara", "cleo"), lost) for row, out in zip(rows, told, strict=True)]
    for row, winner in zip(rows, won, strict=True):
        now = state(tables, row)
        assert (now["state"], now["resolved_by"]) == ("approved", ("tara", "cleo")[winner])
        assert (now["flags"], now["bypassed"]) == (
            ([], []), (["break_glass"], ["team_lead or tech_lead"])
        )[winner]  # fmt: skip
        assert (now["review_by"] is not None) == (winner == 1)
    assert set(won) == {0, 1}
    assert won[-2:] == [1, 1]


async def test_vote_and_expiry(ring: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = await ring.asked(TIMES + 2)
    rows.sort(key=lambda row: row["expires_at"])
    # Escalated first, so that only the expiry is left to come.
    ring.other.clock.at = rows[-1]["expires_at"] - timedelta(hours=1)
    assert await ring.sweep(ring.other)() == len(rows)

    def clocks(row: Row, early: timedelta) -> None:
        ring.one.clock.at, ring.other.clock.at = row["expires_at"] - early, row["expires_at"]

    told: list[list[Any]] = []
    for number, row in enumerate(rows[:-2]):
        # Every other vote comes at the very instant, which is too late whoever writes it down.
        clocks(row, _MOMENT if number % 2 else timedelta())
        told.append(await ring.race(ring.vote(ring.one, row), ring.sweep(ring.other)))
    clocks(rows[-2], _MOMENT)
    told.append(await ring.overtaken(monkeypatch, ring.vote(ring.one, rows[-2]), ring.sweep(ring.other)))
    clocks(rows[-1], _MOMENT)
    told.append((await ring.kept_waiting(monkeypatch, ring.sweep(ring.other), ring.vote(ring.one, rows[-1])))[::-1])
    tables = await ring.check()
    ends = Counter[str]()
    for number, (row, (vote, _)) in enumerate(zip(rows, told, strict=True)):
        now = state(tables, row)
        status = tables.workflows[row["workflow_id"]]["status"]
        ends[now["state"]] += 1
        if now["state"] == "approved":
            assert (number % 2, code(vote), status) == (1, "resolved", "ready")
            assert refusals(tables, row) == []
        else:
            assert (now["state"], now["resolved_by"], status) == ("expired", "keyturn", "expired")
            assert (code(vote), refusals(tables, row)) == ("expired", [("tara", "expired")])
    assert set(ends) == {"approved", "expired"}
    assert [state(tables, row)["state"] for row in rows[-2:]] == ["expired", "expired"]


async def test_vote_and_escalation(ring: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = await ring.asked(TIMES + 2)
    rows.sort(key=lambda row: row["escalate_at"])

    def clocks(row: Row) -> None:
        ring.one.clock.at, ring.other.clock.at = row["escalate_at"] - _MOMENT, row["escalate_at"]

    # Every other voter is one who may decide only once it has escalated.
    voters = ["tara" if number % 2 else "cleo" for number in range(len(rows))]
    told: list[list[Any]] = []
    for row, who in zip(rows[:-2], voters, strict=False):
        clocks(row)
        told.append(await ring.race(ring.vote(ring.one, row, who), ring.sweep(ring.other)))
    clocks(rows[-2])
    forced = ring.vote(ring.one, rows[-2], voters[-2]), ring.sweep(ring.other)
    told.append(await ring.overtaken(monkeypatch, *forced))
    clocks(rows[-1])
    held = await ring.kept_waiting(monkeypatch, ring.sweep(ring.other), ring.vote(ring.one, rows[-1], voters[-1]))
    told.append(held[::-1])
    tables = await ring.check()
    seen = Counter[tuple[str, str, bool]]()
    for row, who, (vote, _) in zip(rows, voters, told, strict=True):
        types = [e["type"] for e in tables.events[row["workflow_id"]]]
        escalated = types.count("approval-escalated")
        assert escalated <= 1
        seen[who, code(vote), escalated == 1] += 1
        if code(vote) == "resolved":
            assert state(tables, row)["state"] == "approved"
        else:
            assert refusals(tables, row) == [(who, "not_eligible")]
            assert (who, state(tables, row)["state"]) == ("cleo", "pending")
    # One who may decide either way always does; the other only behind the escalation.
    assert set(seen) <= {
        ("tara", "resolved", False), ("tara", "resolved", True), ("cleo", "not_eligible", True),
        ("cleo", "resolved", True),
    }  # fmt: skip
    assert {who for who, *_ in seen} == {"tara", "cleo"}


async def test_edit_and_execution(ring: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = await ring.asked(TIMES + 1)
    last, edited = rows[-1], list[Row]()
    assert code(await ring.vote(ring.one, last)()) == "resolved"

    async def pass_by() -> None:
        async with ring.keyturn.working():
            await ring.keyturn.until(await ring.keyturn.submit("steps", target=str(ring.target.folder)), "completed")
        assert (await ring.keyturn.get(last["workflow_id"])).status == "ready"

    # A worker leaves alone what an edit holds: its first reading is what time has done, the second the edit's own.
    outcomes = await ring.overtaken(monkeypatch, ring.edit(ring.other, last), pass_by, 2)
    assert code(outcomes[0]) == "already_resolved"
    async with ring.keyturn.working():
        for row in rows[:-1]:
            # Once it is approved a worker claims and runs it at once, while the edit comes.
            vote, edit = await ring.race(ring.vote(ring.one, row), ring.edit(ring.other, row))
            if code(vote) == "stale_revision":
                edited.append(row)
                assert code(await ring.vote(ring.one, row, revision=2)()) == "resolved"
            else:
                assert (code(vote), code(edit)) == ("resolved", "already_resolved")
        for row in rows:
            await ring.keyturn.until(row["workflow_id"], "completed")
    tables = await ring.check()
    ran = {line.split()[2]: line.split()[3] for line in ring.target.marks() if line.startswith("ran ")}
    for row in rows:
        assert state(tables, row)["state"] == "executed"
        assert ran[row["approval_id"]] == state(tables, row)["digest"]
        assert (ran[row["approval_id"]] == row["digest"]) == (row not in edited)
    assert {times for what, times in ring.target.applied().items() if what.startswith("charge")} == {1}
    assert 0 < len(edited) < TIMES
