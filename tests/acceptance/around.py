"""The verbs of the world around requests: policies, people, delegations, time, and dry runs."""

from __future__ import annotations

from collections.abc import Callable

from tests.acceptance import translating
from tests.acceptance.reading import Body, Step, mapping, policy_body, version_of
from tests.acceptance.table import Outcome, Table, as_admin
from tests.acceptance.times import at
from tests.acceptance.translating import person_name, role_name
from tests.acceptance.world import ROOT, Answer


async def begin(table: Table) -> None:
    """People, policies and delegations as they stand at T0."""
    scenario, world = table.scenario, table.world
    world.clock.now = scenario.t0
    await world.people({**scenario.directory, translating.OFFICER: [translating.OFFICERS]})
    for wave in _waves(table):
        table.in_force |= wave
        await as_admin(table, "POST", "/policy/publish", _file(table), "publishing the policies")
    for one in scenario.delegations:
        body = {
            "from": person_name(one.person), "to": person_name(one.to), "starts_at": one.starts.isoformat(),
            "ends_at": one.ends.isoformat(), "reason": "as the scenario says",
        }  # fmt: skip
        await as_admin(table, "POST", "/delegations", body, f"delegating {one.person}'s vote")


def _waves(table: Table) -> list[dict[str, tuple[int, Body]]]:
    """What is published before the first step, one version of each policy at a time; a step publishes its own."""
    steps = [step for step in table.scenario.steps if step.do == "policy_publish"]
    later = {(step.text("policy"), _version(table, step)) for step in steps}
    waves: list[dict[str, tuple[int, Body]]] = []
    for name, versions in table.scenario.policies.items():
        now = [(number, body) for number, body in sorted(versions.items()) if (name, number) not in later]
        for wave, held in enumerate(now):
            if wave == len(waves):
                waves.append({})
            waves[wave][name] = held
    return waves


def _version(table: Table, step: Step) -> int:
    given = step.fields.get("version")
    if given is not None:
        return version_of(given, str(step))
    known = [*table.scenario.policies.get(step.text("policy"), {}), table.in_force.get(step.text("policy"), (0,))[0]]
    return max(known) + 1


def _file(table: Table, **changed: tuple[int, Body]) -> dict[str, object]:
    text = translating.policy_file(table.scenario, {**table.in_force, **changed})
    return {"text": text, "file": "scenario.yaml"}


async def policy_publish(table: Table, step: Step) -> Outcome:
    """The file anew with this version; a step without a body means the one above that has the version."""
    name, number = step.text("policy"), _version(table, step)
    given = step.fields.get("body")
    body = mapping(given, str(step)) if given is not None else table.scenario.policies.get(name, {}).get(number)
    assert body is not None, f"{step}: there is no body for version {number}"
    before = dict(table.in_force)
    table.in_force[name] = (number, policy_body(body, str(step)))
    answer = await table.world.call("POST", "/policy/publish", step.maybe("by") or ROOT, _file(table))
    if answer.status >= 400:
        table.in_force = before
    return Outcome.of(answer)


async def role_add(table: Table, step: Step) -> Outcome:
    return await _change_roles(table, step, lambda held, role: held | {role})


async def role_remove(table: Table, step: Step) -> Outcome:
    return await _change_roles(table, step, lambda held, role: held - {role})


async def _change_roles(table: Table, step: Step, change: Callable[[set[str], str], set[str]]) -> Outcome:
    person, role = step.text("person"), role_name(step.text("role"))
    await table.world.set_roles(person, change(table.world.roles.get(person, set()), role))
    return Outcome(200)


async def tick(table: Table, _step: Step) -> Outcome:
    await table.world.sweep()
    return Outcome(200)


async def look(table: Table, step: Step) -> Outcome:
    table.request(step)
    return Outcome(200)


async def delegate(table: Table, step: Step) -> Outcome:
    t0, place = table.scenario.t0, str(step)
    body = {
        "from": person_name(step.text("from")), "to": person_name(step.text("to")), "reason": "out of office",
        "starts_at": at(step.fields["start"], t0, place).isoformat(),
        "ends_at": at(step.fields["end"], t0, place).isoformat(),
    }  # fmt: skip
    answer = await table.world.call("POST", "/delegations", step.maybe("by") or step.text("from"), body)
    if answer.status < 400 and step.maybe("name"):
        table.delegations[step.text("name")] = str(answer.body["delegation_id"])
    return Outcome.of(answer)


async def undelegate(table: Table, step: Step) -> Outcome:
    path = f"/delegations/{table.delegations[step.text('name')]}"
    return Outcome.of(await table.world.call("DELETE", path, step.maybe("by") or ROOT))


async def simulate(table: Table, step: Step) -> Outcome:
    """What another body of a policy would have made of the requests there were. Of each request that would have
    changed, `expect.changed` may name `req` and what the answer says of it.
    """
    name = step.text("policy")
    body = policy_body(mapping(step.fields["body"], str(step)), str(step))
    sent = _file(table, **{name: (_version(table, step), body)})
    answer: Answer = await table.world.call("POST", "/policy/simulate", step.maybe("by") or ROOT, sent)
    return Outcome.of(answer)


async def explain(table: Table, step: Step) -> Outcome:
    """Why a request is needed, and why a person cannot decide it."""
    person = f"?person={person_name(step.text('person'))}" if step.maybe("person") else ""
    path = f"/approvals/{table.request(step).approval_id}/explain{person}"
    return Outcome.of(await table.world.call("GET", path, step.maybe("by") or ROOT))
