"""What people do to a request besides voting, each over HTTP: done as it should be, and refused as it should be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from orchestrator.core.canonical import MASK
from tests.web.team import HIGH, IN_TURN, MEDIUM, Team, refusal


async def test_an_edit_voids_the_votes_and_its_editor_cannot_approve(team: Team) -> None:
    await team.policies(IN_TURN)
    one = await team.asked(HIGH, "Deploy v1 in production")
    path = f"/approvals/{one.approval_id}"
    assert (await team.post("tom", f"{path}/votes", verdict="approve")).json()["code"] == "recorded"
    after = {**(one.action or {}), "arguments": {"version": "v2"}}
    edited = (await team.post("theo", f"{path}/edit", action=after, revision=1, justification="v1 is broken")).json()
    assert (edited["code"], edited["state"], edited["revision"]) == ("revised", "pending", 2)
    assert edited["changes"] == [{"path": "arguments.version", "before": "v1", "after": "v2"}]
    now = await team.record(one)
    assert [(vote["voter"], vote["revision"]) for vote in now["votes"]] == [("tom", 1)]
    assert now["void"] == [{"person": "tom", "revision": 1, "reason": "revised"}]
    assert (now["filled"], now["last_editor"], now["digest"]) == ({}, "theo", edited["digest"])
    assert now["description"] == "deploy in production", "what was said of the action was said of another one"
    assert refusal(await team.post("theo", f"{path}/votes", verdict="approve")) == (403, "self_approval")
    assert refusal(await team.post("tom", f"{path}/votes", verdict="approve", revision=1)) == (409, "stale_revision")
    for who in ("tom", "tara"):
        assert (await team.post(who, f"{path}/votes", verdict="approve", revision=2)).status_code == 200
    done = await team.keyturn.until(one.workflow_id, "completed", "failed")
    assert isinstance(done.result, dict)
    assert done.result["ran"]["arguments"] == {"version": "v2"}


async def test_an_edit_is_refused_where_it_is_not_taken(team: Team) -> None:
    one = await team.asked(HIGH)
    path, action = f"/approvals/{one.approval_id}/edit", {**HIGH, "arguments": {"version": "v2"}}
    assert refusal(await team.post("cleo", path, action=action)) == (403, "not_eligible")
    assert refusal(await team.post("tom", path, action=one.action)) == (422, "invalid_input")
    assert refusal(await team.post("tom", path, action={"environment": "x"})) == (422, "invalid_input")
    assert refusal(await team.post("tom", path, action=action, revision=7)) == (409, "stale_revision")
    fixed = await team.keyturn.asked(await team.keyturn.submit("governed", **HIGH))
    path = f"/approvals/{fixed.approval_id}/edit"
    assert refusal(await team.post("tom", path, action=action)) == (422, "not_editable")
    assert (await team.record(fixed))["revision"] == 1


async def test_secrets_survive_an_edit_of_what_was_read_and_are_not_told_by_it(team: Team) -> None:
    arguments = {"password": "hunter-one", "hosts": [{"token": "hunter-two"}], "version": "v1"}
    one = await team.asked({**HIGH, "arguments": arguments})
    path = f"/approvals/{one.approval_id}/edit"
    read = (await team.record(one))["action"]
    assert read["arguments"] == {"password": MASK, "hosts": [{"token": MASK}], "version": "v1"}
    read["arguments"]["version"] = "v2"
    kept = await team.post("tom", path, action=read)
    assert [change["path"] for change in kept.json()["changes"]] == ["arguments.version"]
    read["arguments"]["password"] = "hunter-six"
    changed = await team.post("tom", path, action=read)
    assert changed.json()["changes"] == [{"path": "arguments.password", "before": MASK, "after": MASK}]
    moved = {**read, "arguments": {**read["arguments"], "note": MASK}}
    assert refusal(await team.post("tom", path, action=moved)) == (422, "invalid_input")
    trail = (await team.people["tom"].get(f"/workflows/{one.workflow_id}/events?limit=100",
                                          headers={"Accept": "application/json"})).text  # fmt: skip
    assert "approval-revised" in trail
    assert "hunter" not in trail + kept.text + changed.text
    await team.post("tara", f"/approvals/{one.approval_id}/votes", verdict="approve", revision=3)
    await team.keyturn.until(one.workflow_id, "completed")
    async with team.keyturn.ctx.db.connection() as conn:
        row = await (await conn.execute("SELECT action FROM keyturn.approvals")).fetchone()
    assert row is not None
    ran = {"password": "hunter-six", "hosts": [{"token": "hunter-two"}], "version": "v2"}
    assert row["action"]["arguments"] == ran, "what was not changed is what was asked for"


async def test_only_who_asked_withdraws_and_then_it_is_over(team: Team) -> None:
    one, other = await team.asked(HIGH), await team.asked(HIGH)
    path = f"/approvals/{one.approval_id}"
    assert refusal(await team.post("tom", f"{path}/withdraw")) == (403, "not_owner")
    ended = (await team.post("rita", f"{path}/withdraw", reason="not needed")).json()
    assert (ended["code"], ended["state"], ended["status"]) == ("withdrawn", "withdrawn", "cancelled")
    assert refusal(await team.post("tom", f"{path}/votes", verdict="approve")) == (409, "already_resolved")
    assert refusal(await team.post("rita", f"{path}/withdraw")) == (409, "already_resolved")
    by_workflow = await team.post("rita", f"/workflows/{other.workflow_id}/withdraw")
    assert by_workflow.json()["code"] == "withdrawn"
    idle = await team.keyturn.submit("steps")
    assert refusal(await team.post("rita", f"/workflows/{idle}/withdraw")) == (409, "nothing_pending")


async def test_breaking_the_glass_runs_at_once_tells_what_was_skipped_and_owes_a_review(team: Team) -> None:
    await team.policies(IN_TURN)
    one = await team.asked(HIGH)
    path = f"/approvals/{one.approval_id}"
    why = {"justification": "the shop is down"}
    assert refusal(await team.post("tara", f"{path}/break-glass", **why)) == (403, "not_eligible")
    assert refusal(await team.post("cleo", f"{path}/break-glass")) == (422, "justification_required")
    stale = await team.post("cleo", f"{path}/break-glass", revision=2, **why)
    assert refusal(stale) == (409, "stale_revision")
    other = await team.post("cleo", f"{path}/break-glass", digest="0" * 64, **why)
    assert refusal(other) == (409, "hash_mismatch")
    broken = (await team.post("cleo", f"{path}/break-glass", digest=one.digest, **why)).json()
    assert (broken["code"], broken["state"], broken["resolved_by"]) == ("resolved", "approved", "cleo")
    await team.keyturn.until(one.workflow_id, "completed")
    record = await team.record(one)
    assert record["bypassed"] == ["team_lead", "tech_lead"], "of every stage, also those that were not open yet"
    assert record["flags"] == ["break_glass"]
    assert record["review_by"] is not None
    review = f"{path}/review"
    assert refusal(await team.post("cleo", review, note="fine")) == (403, "self_approval")
    assert refusal(await team.post("rita", review, note="fine")) == (403, "self_approval")
    assert refusal(await team.post("tom", review)) == (422, "justification_required")
    assert (await team.post("tom", review, note="it was down")).json()["code"] == "reviewed"
    assert (await team.post("tara", review, note="so it was")).json()["code"] == "replayed"
    assert (await team.record(one))["reviewed_by"] == "tom"


async def test_what_an_edit_made_void_counts_as_skipped(team: Team) -> None:
    await team.policies(IN_TURN)
    one = await team.asked(HIGH)
    path = f"/approvals/{one.approval_id}"
    await team.post("tom", f"{path}/votes", verdict="approve")
    await team.post("rita", f"{path}/edit", action={**HIGH, "arguments": {"version": "v3"}})
    await team.post("cleo", f"{path}/break-glass", justification="now")
    assert (await team.record(one))["bypassed"] == ["team_lead", "tech_lead"]


async def test_a_batch_is_judged_one_by_one(team: Team) -> None:
    first, second, third = [await team.asked(MEDIUM) for _ in range(3)]
    decisions = [
        {"approval_id": first.approval_id, "verdict": "approve"},
        {"approval_id": second.approval_id, "verdict": "reject"},
        {"approval_id": "ap-none", "verdict": "approve"},
        {"approval_id": third.approval_id, "verdict": "reject", "justification": "no"},
        {"approval_id": third.approval_id, "verdict": "approve"},
    ]
    answer = await team.post("tom", "/approvals/batch", decisions=decisions)
    assert [(one["approval_id"], one["status"], one["code"], one["state"]) for one in answer.json()["results"]] == [
        (first.approval_id, 200, "resolved", "approved"),
        (second.approval_id, 422, "justification_required", None),
        ("ap-none", 404, "not_found", None),
        (third.approval_id, 200, "resolved", "rejected"),
        (third.approval_id, 409, "already_resolved", None),
    ]
    assert (await team.record(second))["state"] == "pending"
    for wrong in ([], decisions[:1] * 101, [{"approval_id": "x", "verdict": "maybe"}]):
        assert refusal(await team.post("tom", "/approvals/batch", decisions=wrong)) == (422, "invalid_input")


async def test_a_delegate_decides_in_anothers_place_while_it_lasts(team: Team) -> None:
    one, other = await team.asked(MEDIUM), await team.asked(MEDIUM)
    vote = f"/approvals/{one.approval_id}/votes"
    place = {"verdict": "approve", "acting_for": "tom"}
    assert refusal(await team.post("cleo", vote, **place)) == (403, "not_eligible")
    ends = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    made = await team.post("tom", "/delegations", to="cleo", ends_at=ends, reason="holidays")
    assert made.status_code == 201
    assert {name: made.json()[name] for name in ("from", "to", "reason")} == {
        "from": "tom", "to": "cleo", "reason": "holidays",
    }  # fmt: skip
    listed = (await team.people["cleo"].get("/delegations")).json()["delegations"]
    assert [entry["delegation_id"] for entry in listed] == [made.json()["delegation_id"]]
    assert (await team.post("cleo", vote, **place)).json()["code"] == "resolved"
    assert (await team.record(one))["votes"][0]["acting_for"] == "tom"
    ended = await team.people["tom"].delete(f"/delegations/{made.json()['delegation_id']}")
    assert ended.json()["revoked_at"] is not None
    vote = f"/approvals/{other.approval_id}/votes"
    assert refusal(await team.post("cleo", vote, **place)) == (403, "not_eligible")


async def test_nobody_delegates_for_others_to_themselves_or_into_the_past(team: Team) -> None:
    ends = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    ordinary = await team.edge.key("tom", ("submit", "read", "decide"))
    async with team.edge.http(ordinary) as tom:
        for body, wanted in [
            ({"from": "tara", "to": "cleo", "ends_at": ends}, (403, "forbidden")),
            ({"to": "tom", "ends_at": ends}, (422, "invalid_input")),
            ({"to": "cleo", "ends_at": past}, (422, "invalid_input")),
            ({"to": "nobody", "ends_at": ends}, (404, "not_found")),
            ({"to": "cleo", "ends_at": "2099-01-01T00:00:00"}, (422, "invalid_input")),
        ]:
            assert refusal(await tom.post("/delegations", json=body)) == wanted, body
        theirs = await team.post("tara", "/delegations", to="cleo", ends_at=ends)
        assert refusal(await tom.delete(f"/delegations/{theirs.json()['delegation_id']}")) == (403, "forbidden")
        assert (await tom.get("/delegations")).json()["delegations"] == []
        assert refusal(await tom.delete("/delegations/dg-none")) == (404, "not_found")
    boss = await team.post("theo", "/delegations", **{"from": "tom", "to": "cleo", "ends_at": ends})
    assert (boss.status_code, boss.json()["created_by"]) == (201, "theo")


async def test_each_verb_needs_its_permission(team: Team) -> None:
    one = await team.asked(HIGH)
    path = f"/approvals/{one.approval_id}"
    looking = await team.edge.key("tom", ("read",))
    async with team.edge.http(looking) as tom:
        for route, body in {
            f"{path}/edit": {"action": HIGH},
            f"{path}/withdraw": {},
            f"/workflows/{one.workflow_id}/withdraw": {},
            f"{path}/break-glass": {"justification": "x"},
            f"{path}/review": {"note": "x"},
            f"{path}/links": {"person": "tom", "verdict": "approve"},
            "/approvals/batch": {"decisions": [{"approval_id": one.approval_id, "verdict": "approve"}]},
            "/delegations": {"to": "cleo", "ends_at": "2099-01-01T00:00:00Z"},
        }.items():
            assert refusal(await tom.post(route, json=body)) == (403, "forbidden"), route
    assert (await team.record(one))["state"] == "pending"
