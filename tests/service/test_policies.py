"""Publishing policies, what was published, and trying a file on past requests."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.core.errors import Forbidden, InvalidDocument, NotFound
from orchestrator.core.policy_file import PolicyBook
from orchestrator.service import explain, policies, simulation
from orchestrator.service.books import Books
from orchestrator.service.context import Caller
from orchestrator.store.ledger import stream_of
from orchestrator.wire import ExplainRequest, PolicyPublished, PolicyText, SimulateRequest, Simulation
from tests.harness import Keyturn, caller

ROOT = caller("root")
TWO = """
policies:
  - name: deploys
    match: action.operation == 'deploy'
    stages: [[{role: tech_lead}, {role: cto}]]
  - {name: rest, levels: [medium], request_ttl: 2h}
"""


async def publish(keyturn: Keyturn, text: str, who: Caller = ROOT) -> PolicyPublished:
    return await policies.publish(keyturn.ctx, who, PolicyText(text=text, file="p.yaml"))


async def ledger(keyturn: Keyturn, namespace: str = "default") -> list[dict[str, object]]:
    async with keyturn.ctx.db.connection() as conn:
        found = await conn.execute(
            "SELECT actor, body FROM keyturn.events WHERE workflow_id = %s AND type = 'policy-published' ORDER BY seq",
            [stream_of(namespace)],
        )
        return [{**row["body"], "by": row["actor"]} for row in await found.fetchall()]


async def newest(keyturn: Keyturn, namespace: str = "default") -> PolicyBook:
    return await keyturn.ctx.books.newest(keyturn.ctx.db, namespace)


def names(book: PolicyBook) -> list[tuple[str, int | str]]:
    return [(policy.name, policy.version) for policy in book.policies]


async def test_what_is_published_decides_and_is_told(keyturn: Keyturn) -> None:
    assert await newest(keyturn) == PolicyBook()
    done = await publish(keyturn, TWO)
    assert (done.version, done.changed, dict(done.versions)) == (1, True, {"deploys": 1, "rest": 1})
    book = await newest(keyturn)
    assert (book.version, names(book)) == (1, [("deploys", 1), ("rest", 1)])
    assert await ledger(keyturn) == [
        {"version": 1, "file": "p.yaml", "digest": done.digest, "versions": {"deploys": 1, "rest": 1}, "by": "root"}
    ]
    listed = await policies.versions(keyturn.ctx, keyturn.me)
    assert (listed.current, [one.version for one in listed.versions]) == (1, [1])
    assert (await policies.get(keyturn.ctx, keyturn.me, 1)).text == TWO


async def test_the_same_text_again_changes_nothing(keyturn: Keyturn) -> None:
    first = await publish(keyturn, TWO)
    again = await publish(keyturn, TWO, caller("tara"))
    assert (again.changed, again.version, again.published_by) == (False, 1, "root")
    assert again.published_at == first.published_at
    assert len(await ledger(keyturn)) == 1


async def test_a_policy_counts_on_when_it_changes_and_only_then(keyturn: Keyturn) -> None:
    await publish(keyturn, TWO)
    moved = TWO.replace("request_ttl: 2h", "request_ttl: 3h")
    assert (await publish(keyturn, moved)).versions == {"deploys": 1, "rest": 2}
    assert (await publish(keyturn, f"# nothing but a word\n{moved}")).versions == {"deploys": 1, "rest": 2}
    assert (await publish(keyturn, "policies: []")).versions == {}
    # What comes back is not what it was: its number must not say so.
    assert (await publish(keyturn, TWO)).versions == {"deploys": 2, "rest": 3}
    assert names(await keyturn.ctx.books.at(keyturn.ctx.db, "default", 2)) == [("deploys", 1), ("rest", 2)]
    assert [one["version"] for one in await ledger(keyturn)] == [1, 2, 3, 4, 5]


async def test_a_version_of_ones_own_must_rise_with_every_change(keyturn: Keyturn) -> None:
    stated = "policies:\n  - {name: p, version: 4, levels: [low]}"
    assert (await publish(keyturn, stated)).versions == {"p": 4}
    assert (await publish(keyturn, f"{stated} # a word")).versions == {"p": 4}
    with pytest.raises(InvalidDocument) as caught:
        await publish(keyturn, stated.replace("low", "high"))
    (problem,) = caught.value.problems
    assert problem.startswith("p.yaml:2: policies[0].version: version 4 of p was published before; allowed: a higher")
    assert (await publish(keyturn, stated.replace("low", "high").replace("4", "9"))).versions == {"p": 9}
    assert (await publish(keyturn, "policies:\n  - {name: p}")).versions == {"p": 10}
    assert (await newest(keyturn)).version == 4


async def test_a_wrong_file_is_not_published(keyturn: Keyturn) -> None:
    with pytest.raises(
        InvalidDocument, match=r"p.yaml:1: policies\[0\].fallback_role: the role 'boss' is not declared"
    ):
        await publish(keyturn, "policies: [{name: p, fallback_role: boss}]")
    with pytest.raises(Forbidden):
        await publish(keyturn, TWO, Caller("default", "rita", frozenset({"audit", "read"})))
    assert (await policies.versions(keyturn.ctx, keyturn.me)).versions == []
    assert await ledger(keyturn) == []


async def test_each_namespace_has_its_own(keyturn: Keyturn) -> None:
    await publish(keyturn, TWO)
    elsewhere = caller("eve", "elsewhere")
    assert await newest(keyturn, "elsewhere") == PolicyBook()
    with pytest.raises(NotFound):
        await policies.get(keyturn.ctx, elsewhere, 1)
    assert (await publish(keyturn, "policies: [{name: other}]", elsewhere)).version == 1
    assert names(await newest(keyturn, "elsewhere")) == [("other", 1)]
    assert names(await newest(keyturn)) == [("deploys", 1), ("rest", 1)]


async def test_those_who_publish_at_once_get_numbers_one_after_the_other(keyturn: Keyturn) -> None:
    texts = [TWO.replace("2h", f"{hours}h") for hours in range(2, 12)]
    done = await asyncio.gather(
        *(publish(keyturn, text) for text in texts), *(publish(keyturn, text) for text in texts)
    )
    changed = [one for one in done if one.changed]
    assert sorted(one.version for one in changed) == list(range(1, len(changed) + 1))
    assert len({one.versions["rest"] for one in changed}) == len(changed)


async def test_a_book_that_is_remembered_is_not_read_again(keyturn: Keyturn) -> None:
    await publish(keyturn, TWO)
    books = Books()
    found = await books.at(keyturn.ctx.db, "default", 1)
    assert await books.at(keyturn.ctx.db, "default", 1) is found
    assert await books.newest(keyturn.ctx.db, "default") is found
    assert await books.at(keyturn.ctx.db, "default", 0) == PolicyBook()


async def test_the_folders_file_is_published_once_whenever_it_changes(keyturn: Keyturn) -> None:
    async def own(text: str) -> bool:
        return await policies.publish_own(keyturn.ctx, "default", text, "/etc/keyturn/p.yaml") is not None

    assert not await own("policies:\n")  # says nothing: no version
    assert [await own(TWO), await own(TWO)] == [True, False]
    await publish(keyturn, "policies: [{name: by-hand}]")
    assert not await own(TWO)  # started again: what was published by hand stands
    assert names(await newest(keyturn)) == [("by-hand", 1)]
    assert await own("policies: []")
    assert names(await newest(keyturn)) == []
    assert [one["by"] for one in await ledger(keyturn)] == ["keyturn", "root", "keyturn"]


# --- what it changes ---


async def test_a_published_policy_decides_what_is_asked_from_then_on(keyturn: Keyturn) -> None:
    await publish(keyturn, TWO)
    async with keyturn.working():
        workflow = await keyturn.submit("governed", operation="deploy", environment="production")
        asked = await keyturn.asked(workflow)
        assert (asked.policy, asked.policy_versions) == ("deploys", ["1"])
        assert await keyturn.approve(workflow, "tara") == "recorded"
        assert await keyturn.approve(workflow, "cleo") == "resolved"
        assert (await keyturn.until(workflow, "completed")).approvals[0].state == "executed"


async def test_what_waits_becomes_stricter_and_never_looser(keyturn: Keyturn) -> None:
    one = "policies: [{name: deploys, match: action.operation == 'deploy', stages: [[{role: tech_lead}]]}]"
    await publish(keyturn, one)
    async with keyturn.working():
        workflow = await keyturn.submit("governed", operation="deploy", environment="production")
        await keyturn.asked(workflow)
        await publish(keyturn, TWO)
        await publish(keyturn, one)
        assert await keyturn.approve(workflow, "theo") == "recorded"
        assert await keyturn.approve(workflow, "cleo") == "resolved"
        (done,) = (await keyturn.until(workflow, "completed")).approvals
        assert (done.policy, done.policy_versions) == ("deploys", ["1", "2", "3"])


async def test_an_approval_in_a_freeze_says_until_when_it_holds(keyturn: Keyturn) -> None:
    begins, ends = (datetime.now(UTC).replace(second=0, microsecond=0) + days * timedelta(days=1) for days in (-1, 1))
    span = f"{{from: {begins:%Y-%m-%dT%H:%M}, to: {ends:%Y-%m-%dT%H:%M}}}"
    await publish(keyturn, f"policies: [{{name: quiet, freeze: [{span}]}}]")
    async with keyturn.working():
        asked = await keyturn.asked(await keyturn.submit("governed", operation="deploy", environment="production"))
    assert (await explain.approval(keyturn.ctx, keyturn.me, asked.approval_id)).frozen_until == ends


# --- trying a file ---


async def simulate(keyturn: Keyturn, text: str, who: Caller = ROOT) -> Simulation:
    return await simulation.simulate(keyturn.ctx, who, SimulateRequest(text=text, file="p.yaml"))


async def past(keyturn: Keyturn) -> tuple[str, str]:
    """A deploy that waits, and a vacuum that was approved automatically."""
    async with keyturn.working():
        deploy = await keyturn.submit("governed", operation="deploy", environment="production")
        vacuum = await keyturn.submit("governed", operation="vacuum", environment="staging")
        await keyturn.asked(deploy)
        await keyturn.until(vacuum, "completed")
    return deploy, vacuum


async def test_a_simulation_tells_what_would_have_gone_otherwise_and_writes_nothing(keyturn: Keyturn) -> None:
    deploy, _ = await past(keyturn)
    before = [await keyturn.types(deploy), await ledger(keyturn)]
    found = await simulate(keyturn, TWO)
    assert found.replayed == 2
    (one,) = found.differences
    assert (one.workflow_id, one.risk_level, one.changed) == (deploy, "high", ["policy", "stages", "can_decide"])
    assert (one.before.policy, one.after.policy) == ("level:high", "deploys")
    assert one.after.stages == [[{"any_of": ["tech_lead"], "count": 1}, {"any_of": ["cto"], "count": 1}]]
    assert (one.lacking, one.added) == (["tom"], ["cleo"])
    assert [await keyturn.types(deploy), await ledger(keyturn)] == before
    assert (await policies.versions(keyturn.ctx, keyturn.me)).current == 0


async def test_a_simulation_tells_what_would_not_have_been_automatic(keyturn: Keyturn) -> None:
    _, vacuum = await past(keyturn)
    found = await simulate(keyturn, """
policies:
  - {name: all-low, levels: [low], stages: [[{role: team_lead}]], require_justification: decision}
""")  # fmt: skip
    (one,) = found.differences
    assert one.workflow_id == vacuum
    assert (one.before.route, one.after.route) == ("AUTO", "FULL")
    assert (one.before.justification_required, one.after.justification_required) == (False, True)


async def test_in_a_simulation_a_freeze_turns_automatic_into_quick(keyturn: Keyturn) -> None:
    await past(keyturn)
    begins, ends = (datetime.now(UTC) + days * timedelta(days=1) for days in (-1, 1))
    span = f"{{from: {begins:%Y-%m-%dT%H:%M}, to: {ends:%Y-%m-%dT%H:%M}}}"
    found = await simulate(keyturn, f"policies: [{{name: quiet, levels: [low], freeze: [{span}]}}]")
    assert [(one.before.route, one.after.route) for one in found.differences] == [("AUTO", "QUICK")]


async def test_a_simulation_tells_of_a_match_that_fails(keyturn: Keyturn) -> None:
    await past(keyturn)
    found = await simulate(keyturn, "policies: [{name: p, match: action.metadata.rows > 1}]")
    assert len(found.differences) == 2
    assert all("the match of policy p could not be evaluated" in one.troubles[0] for one in found.differences)


async def test_a_simulation_tells_of_a_slot_that_nobody_could_fill(keyturn: Keyturn) -> None:
    deploy, _ = await past(keyturn)
    text = "roles: [dba]\npolicies: [{name: p, levels: [high], stages: [[{any_of: [dba]}]]}]"
    (one,) = (await simulate(keyturn, text)).differences
    assert (one.workflow_id, one.after.can_decide) == (deploy, [])
    assert list(one.troubles) == ["nobody besides who asked holds dba, so it would have been refused"]
    (one,) = (await simulate(keyturn, text.replace("levels", "fallback_role: cto, levels"))).differences
    assert not one.troubles


async def test_who_may_simulate(keyturn: Keyturn) -> None:
    for permission in ("admin", "audit"):
        assert (await simulate(keyturn, TWO, Caller("default", "x", frozenset({permission})))).replayed == 0
    with pytest.raises(Forbidden, match="`admin or audit`"):
        await simulate(keyturn, TWO, Caller("default", "x", frozenset({"read", "decide", "submit"})))
    with pytest.raises(InvalidDocument):
        await simulate(keyturn, "policies: [{}]")


async def test_a_simulation_sees_its_own_namespace_only(keyturn: Keyturn) -> None:
    await past(keyturn)
    assert (await simulate(keyturn, TWO, caller("eve", "elsewhere"))).replayed == 0


# --- explaining ---


async def test_an_explanation_says_which_policy_and_why(keyturn: Keyturn) -> None:
    async def explained(operation: str) -> tuple[str, str, int]:
        request = ExplainRequest(action={"operation": operation, "environment": "production"})
        found = await explain.action(keyturn.ctx, keyturn.me, request)
        return found.policy, found.policy_reason, len(found.stages[0])

    assert await explained("deploy") == ("level:high", "", 1)
    await publish(keyturn, TWO)
    assert await explained("deploy") == (
        "deploys", "deploys is the first policy of version 1 that takes it: action.operation == 'deploy'", 2,
    )  # fmt: skip
    assert await explained("drop") == (
        "level:critical", "no policy of version 1 surely takes it, so the defaults of level critical stand", 1,
    )  # fmt: skip


async def test_an_explanation_says_until_when_it_is_frozen(keyturn: Keyturn) -> None:
    await publish(keyturn, "policies: [{name: quiet, freeze: [{days: [sat, sun], time_zone: Europe/Berlin}]}]")
    request = ExplainRequest(action={"operation": "vacuum"})
    for day, until in ((5, datetime(2026, 6, 7, 22, tzinfo=UTC)), (8, None)):
        now = datetime(2026, 6, day, 22, tzinfo=UTC)
        found = await explain.action(replace(keyturn.ctx, clock=lambda now=now: now), keyturn.me, request)
        assert (found.policy, found.frozen_until) == ("quiet", until)
        assert found.route == ("QUICK" if until else "AUTO")
