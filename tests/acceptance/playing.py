"""Playing a scenario: its steps one by one through the API, each compared with what it expects, and then its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from orchestrator.core.canonical import digest
from tests.acceptance import around, comparing, deciding, translating
from tests.acceptance.comparing import near, state_of
from tests.acceptance.reading import Body, Scenario, Step
from tests.acceptance.table import Outcome, Request, Table

VERBS: Mapping[str, Callable[[Table, Step], Awaitable[Outcome]]] = {
    "submit": deciding.submit,
    "vote": deciding.vote,
    "edit": deciding.edit,
    "execute": deciding.execute,
    "withdraw": deciding.withdraw,
    "break_glass": deciding.break_glass,
    "review": deciding.review,
    "batch": deciding.batch,
    "link": deciding.link,
    "link_get": deciding.link_get,
    "link_post": deciding.link_post,
    "policy_publish": around.policy_publish,
    "role_add": around.role_add,
    "role_remove": around.role_remove,
    "tick": around.tick,
    "assert": around.look,
    "delegate": around.delegate,
    "undelegate": around.undelegate,
    "simulate": around.simulate,
    "explain": around.explain,
}
# What a step may expect in the words of `final`.
AT_THE_END = {"filled", "void", "dissent", "reason", "flags", "bypassed", "outbox", "policy_versions"}


async def play(table: Table) -> None:
    """Everything: the world as it is at T0, the steps, the end."""
    await around.begin(table)
    for step in table.scenario.steps:
        table.world.clock.now = table.scenario.t0 + step.offset
        await check(table, step, await VERBS[step.do](table, step))
    for req, expected in table.scenario.final.items():
        found = await table.ending(table.requests[req])
        table.differences += comparing.final(f"final.{req}", expected, found)
    for request in table.requests.values():
        await table.check_sound(request)


async def check(table: Table, step: Step, outcome: Outcome) -> None:
    """Compare a step's outcome with what it expects."""
    place, expected = str(step), dict(step.expect)
    told = f" ({outcome.detail})" if outcome.detail else ""
    refused = outcome.status is not None and outcome.status >= 400
    if "status" in expected:
        table.differences.same(f"{place} status{told}", expected.pop("status"), outcome.status)
    elif refused and "code" not in expected:
        table.differences.append(f"{place}: was not expected to be refused: {outcome.status} {outcome.code}{told}")
    if "code" in expected:
        code = expected.pop("code")
        table.differences.same(f"{place} code{told}", code, comparing.code_of(step.do, code, outcome.code))
    for key, value in expected.items():
        await _check_one(table, step, outcome, key, value)


async def _check_one(table: Table, step: Step, outcome: Outcome, key: str, value: object) -> None:
    """One expectation: of the request the step is about, else of the answer itself."""
    what = f"{step} {key}"
    request = _request(table, step)
    if request is None or key in outcome.body.keys() - {"state"}:
        if not comparing.within(value, outcome.body.get(key)):
            table.differences.append(f"{what}: expected {value!r}, got {outcome.body.get(key)!r}")
        return
    approval = await table.approval(request)
    match key:
        case "state":
            table.differences.same(what, state_of(value), await table.state(request, approval))
        case "risk":
            table.differences.same(what, value, approval.get("risk_level"))
        case "sha256":
            _check_digest(table, what, str(value), request, approval)
        case "due" | "expires":
            meant = comparing.instants(value, what, table.scenario.t0, request.at, table.world.clock.now)
            if not near(meant, approval.get(f"{key}_at")):
                table.differences.append(f"{what}: expected {value!r}, got {approval.get(f'{key}_at')!r}")
        case _ if key in AT_THE_END:
            table.differences += comparing.final(str(step), {key: value}, await table.ending(request))
        case _:
            comparing.check_known({key: value}, {"state", "risk", "sha256", "due", *approval}, str(step))
            if not comparing.within(value, approval[key]):
                table.differences.append(f"{what}: expected {value!r}, got {approval[key]!r}")


def _request(table: Table, step: Step) -> Request | None:
    if step.do.startswith("link"):
        return deciding.request_of_link(table, step)
    return table.requests.get(str(step.fields.get("req")))


def _check_digest(table: Table, what: str, expected: str, request: Request, approval: Body) -> None:
    """The digest that Keyturn took: of the payload itself, or of the action around it, which must be right too."""
    if approval.get("digest") == expected:
        return
    scenario = table.scenario
    volatile = translating.volatile_of(scenario, table.body_of(request))
    action = translating.whole(table.action(request.payload, request.policy))
    own = [one.removeprefix("arguments.") for one in volatile] if translating.wraps(scenario) else volatile
    table.differences.same(f"{what} of the payload", expected, digest(request.payload or {}, own))
    table.differences.same(f"{what} of the action", digest(action, volatile), approval.get("digest"))


def graphs_of(scenario: Scenario) -> dict[str, str]:
    """The graphs a scenario needs: one for each submission, by its dialect, and for each routing row."""
    dialects = [step.fields.get("dialect") for step in scenario.steps if step.do == "submit"] or [None]
    found = {
        f"request_{number}": "calling" if dialect == "langchain" else "gated"
        for number, dialect in enumerate(dialects, start=1)
    }
    return {**found, **{f"row_{number}": "gated" for number in range(1, len(scenario.routing) + 1)}}
