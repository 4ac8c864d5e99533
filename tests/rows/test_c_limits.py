"""How long a session may be idle, and how many of them there may be: exact, and nothing accepted is lost."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from orchestrator.service import sessions, threads, workflows
from orchestrator.store import sessions as store
from orchestrator.store.db import Database
from orchestrator.wire import SubmitRequest
from tests.rows.office import Office, office
from tests.web.team import refusal


async def test_c3_ten_at_once_begin_exactly_five_and_the_rest_are_told_which_are_open(closed: Office) -> None:
    answers = await asyncio.gather(*(closed.post("/sessions", graph="clerk", title=f"{n}") for n in range(10)))
    begun = [one.json()["session_id"] for one in answers if one.status_code == 201]
    refused = [one for one in answers if one.status_code != 201]
    assert len(begun) == 5
    for one in refused:
        assert refusal(one) == (429, "too_many_sessions")
        assert {entry["session_id"] for entry in one.json()["sessions"]} == set(begun)
        assert 1700 < int(one.headers["retry-after"]) <= 1800
    # Everybody has five of their own.
    await closed.begin(who="tom")
    ended = await closed.people["rita"].delete(f"/sessions/{begun[0]}")
    assert (ended.status_code, ended.json()["state"], ended.json()["ended_reason"]) == (200, "ended", "closed")
    await closed.begin()
    assert refusal(await closed.post("/sessions", graph="clerk")) == (429, "too_many_sessions")


async def test_c3_both_limits_are_settings(database_url: str) -> None:
    async with office(database_url, session_limit=1, session_idle_seconds=60) as found:
        session = await found.begin()
        record = await found.record(session)
        assert record["idle_seconds"] == 60
        assert refusal(await found.post("/sessions", graph="clerk")) == (429, "too_many_sessions")
        too_long = await found.post("/sessions", "tom", graph="clerk", idle_seconds=61)
        assert refusal(too_long) == (422, "invalid_input")
        assert too_long.json()["allowed"] == 60
        assert (await found.record(await found.begin(who="tom", idle_seconds=5)))["idle_seconds"] == 5


async def test_c3_an_idle_session_ends_at_its_instant_whoever_looks_first(closed: Office) -> None:
    seen, swept, counted = [await closed.begin(idle_seconds=600) for _ in range(3)]
    record = await closed.record(seen)
    ends = datetime.fromisoformat(record["ends_at"])
    assert ends - datetime.fromisoformat(record["last_activity"]) == timedelta(minutes=10)
    closed.clock.ahead = timedelta(minutes=9)
    assert await sessions.end_idle(closed.keyturn.ctx) == 0
    assert (await closed.record(seen))["state"] == "idle"
    closed.clock.ahead = timedelta(minutes=11)
    # One is looked at, one is spoken to, and the third is swept.
    over = await closed.record(seen)
    assert (over["state"], over["ended_reason"], over["ends_at"]) == ("ended", "idle", None)
    assert datetime.fromisoformat(over["ended_at"]) == ends
    late = await closed.say(counted, "hello")
    assert refusal(late) == (410, "session_ended")
    assert "Begin a new one" in late.json()["detail"]
    assert await sessions.end_idle(closed.keyturn.ctx) == 1
    assert (await closed.record(swept))["state"] == "ended"
    listed = await closed.people["rita"].get("/sessions")
    assert listed.json()["sessions"] == []
    for _ in range(5):
        await closed.begin()


async def test_c3_whatever_is_done_in_a_session_keeps_it_open_and_a_run_under_way_is_not_idle(closed: Office) -> None:
    session = await closed.begin(idle_seconds=600)
    closed.clock.ahead = timedelta(minutes=9)
    await closed.say(session, "hello")
    closed.clock.ahead = timedelta(hours=9)
    # Nobody works: the run is still queued.
    assert await sessions.end_idle(closed.keyturn.ctx) == 0
    record = await closed.record(session)
    assert (record["state"], record["ends_at"]) == ("running", None)
    assert refusal(await closed.say(session, "hurry")) == (409, "thread_busy")
    async with closed.keyturn.working():
        await closed.settled(session)
    closed.clock.ahead += timedelta(minutes=9)
    assert await sessions.end_idle(closed.keyturn.ctx) == 0
    closed.clock.ahead += timedelta(minutes=2)
    assert (await closed.record(session))["state"] == "ended"


async def test_c3_a_session_that_waits_goes_idle_and_its_question_is_handed_over_not_lost(desk: Office) -> None:
    session = await desk.begin(message="travel", idle_seconds=600)
    (asked,) = (await desk.settled(session, "waiting"))["pending"]
    desk.clock.ahead = timedelta(minutes=11)
    over = await desk.record(session)
    assert (over["state"], over["pending"][0]["approval_id"]) == ("ended", asked["approval_id"])
    assert "goes on once it is decided" in over["note"]
    late = await desk.say(session, "Rome")
    assert refusal(late) == (410, "session_ended")
    assert late.json()["approvals"][0]["approval_id"] == asked["approval_id"]
    queue = await desk.people["tom"].get("/workflows/pending")
    assert [one["approval_id"] for one in queue.json()["workflows"]] == [asked["approval_id"]]
    answered = await desk.post(f"/approvals/{asked['approval_id']}/answer", "tom", answer="Oslo")
    assert answered.status_code == 200
    done = await desk.settled(session, "ended")
    assert done["workflow_status"] == "completed"
    entries = await desk.history(session)
    assert [(one["type"], one["by"]) for one in entries][1:3] == [("question", "clerk"), ("answer", "tom")]
    assert entries[-1]["content"] == "off to Oslo"


async def test_c3_a_message_and_the_sweep_that_come_together_leave_one_of_both(closed: Office) -> None:
    ctx, me = closed.keyturn.ctx, closed.keyturn.me
    held, kept = await closed.begin(idle_seconds=600), await closed.begin(idle_seconds=600)
    new = await workflows.prepared(ctx, me, SubmitRequest(graph="clerk", input={"messages": ["hello"]}))
    async with ctx.db.transaction() as conn:
        # A message has begun its run and not committed yet: the sweep passes by, however late it is.
        await threads.insert_run(conn, me, (await threads.find(ctx, me, kept)).thread_key, new, None)
        closed.clock.ahead = timedelta(minutes=11)
        assert await sessions.end_idle(ctx) == 1
    assert (await closed.record(kept))["state"] == "running"
    assert (await closed.record(held))["state"] == "ended"
    # The sweep holds a session, and a message comes: it waits, and is told.
    third = await closed.begin(idle_seconds=600)
    closed.clock.ahead = timedelta(minutes=22)
    async with asyncio.TaskGroup() as group, ctx.db.transaction() as conn:
        (row,) = [one for one in await store.due(conn, 10, ctx.clock()) if one["thread_id"] == third]
        said = group.create_task(closed.say(third, "hello"))
        await until_blocked(ctx.db)
        await store.settle(conn, [(row["thread_key"], row["now"], None)], "idle")
    assert refusal(said.result()) == (410, "session_ended")


async def until_blocked(db: Database) -> None:
    """Wait until somebody waits for a lock."""
    async with asyncio.timeout(10), db.connection() as conn:
        while True:
            found = await conn.execute("SELECT count(*) AS n FROM pg_locks WHERE NOT granted")
            if (await found.fetchone() or {"n": 0})["n"]:
                return
            await asyncio.sleep(0.01)


async def test_c3_nobody_but_its_person_ends_a_session_at_any_door(closed: Office) -> None:
    session = await closed.begin()
    for path in (f"/sessions/{session}", f"/threads/{session}"):
        answer = await closed.people["tom"].delete(path)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_owner"), path
    assert (await closed.record(session))["state"] == "idle"
    assert (await closed.people["rita"].delete(f"/threads/{session}")).status_code == 204


async def test_c3_who_comes_back_when_told_to_is_not_too_early(database_url: str) -> None:
    async with office(database_url, session_limit=1) as closed:
        await closed.begin(idle_seconds=60.4)
        refused = await closed.post("/sessions", graph="clerk")
        assert refused.status_code == 429
        closed.clock.ahead += timedelta(seconds=int(refused.headers["retry-after"]))
        assert (await closed.post("/sessions", graph="clerk")).status_code == 201
