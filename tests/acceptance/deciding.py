"""The verbs of requests: submitting, deciding, running, and links in messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

from tests.acceptance import translating
from tests.acceptance.reading import Body, Link, Step, link_of, mapping, sequence
from tests.acceptance.running_instead import PLANTED
from tests.acceptance.table import BECAUSE, Outcome, Request, Table, named
from tests.acceptance.translating import person_name, verdict_of
from tests.acceptance.world import ROOT, Answer

_OVER = {"lapsed": Outcome(410, "approval_lapsed"), "stale": Outcome(409, "approver_ineligible")}


# Submitting


async def submit(table: Table, step: Step) -> Outcome:
    """A workflow with one gate, run until it waits, or until just before the gated action would run."""
    policy = step.maybe("policy")
    payload = mapping(step.fields["payload"], str(step)) if step.fields.get("payload") is not None else None
    if policy is None and payload is None and len(table.scenario.policies) == 1:
        policy = next(iter(table.scenario.policies))
    table.submitted += 1
    request = Request(step.text("req"), f"request_{table.submitted}", policy, table.world.clock.now, payload)
    body: dict[str, object] = {
        "graph": request.graph, "title": policy or "", "input": {"ask": _ask(table, step, request)},
        **named(step, "on_behalf_of", "launched_by"),
    }  # fmt: skip
    answer = await table.world.call("POST", "/workflows", step.text("by"), body, key=step.maybe("key"))
    if answer.status >= 400:
        return Outcome.of(answer)
    request.workflow_id = str(answer.body["workflow_id"])
    table.requests[request.req] = request
    await table.world.drive(request.graph, to_the_gate=True)
    return await _asked(table, request, answer)


def _ask(table: Table, step: Step, request: Request) -> dict[str, object]:
    """What the graph's gate asks."""
    fields, action = step.fields, table.action(request.payload, request.policy)
    if fields.get("dialect") == "langchain":
        call = {"name": action["operation"], "args": action.get("arguments", {})}
        review = {"action_name": call["name"], "allowed_decisions": ["approve", "edit", "reject"]}
        return {"action_requests": [call], "review_configs": [review]}
    held = table.in_force.get(request.policy or "", (0, {}))[1]
    ask: dict[str, object] = {"action": action, **named(step, "confidence", "editable", "on_reject")}
    if "confidence" in fields:  # also one that is null
        ask["confidence"] = fields["confidence"]
    if risks := [str(one) for one in (fields.get("risk"), held.get("risk")) if one]:
        ask["risk"] = max(risks, key=translating.LEVELS.index)
    if fields.get("adjust"):
        ask["adjustments"] = translating.adjustments(fields["adjust"])
    if reason := _justification(step, held, translating.asks_requester):
        ask["justification"] = reason
    return ask


def _justification(step: Step, body: Body, needed: Callable[[Body], bool]) -> str:
    """The reason that a step gives: its own, or any where the scenario asks for none."""
    if step.fields.get("justification") is not None:
        return step.text("justification")
    wanted = step.expect.get("code") == "justification_required"
    return "" if wanted or needed(body) else BECAUSE


async def _asked(table: Table, request: Request, answer: Answer) -> Outcome:
    """What a submission led to: the approval that was made, or why none was."""
    workflow = await table.workflow(request)
    approvals = cast("list[dict[str, Any]]", workflow["approvals"])
    if approvals:
        request.approval_id = str(approvals[-1]["approval_id"])
        for name, one in table.scenario.links.items():
            if one.req == request.req and name not in table.links:
                made = await _make_link(table, name, one, ROOT)
                assert made.status is not None, name
                assert made.status < 400, f"link {name} was refused: {made}"
    if workflow["status"] == "failed":
        return Outcome.stopped(workflow, 422)
    if not approvals:
        return Outcome(answer.status, str(workflow["status"]), "it made no approval")
    found = approvals[-1]
    if "unroutable_escalated" in found.get("flags", []):
        return Outcome(answer.status, "unroutable_escalated")
    if found["route"] == "DENIED":
        return Outcome(answer.status, "denied")
    replayed = "replayed" if answer.body.get("replayed") else "created"
    return Outcome(answer.status, "auto_approved" if found["state"] == "approved" else replayed)


# Deciding


async def vote(table: Table, step: Step) -> Outcome:
    request = table.request(step)
    body = {
        "verdict": verdict_of(step.fields["decision"], str(step)),
        "justification": _justification(step, table.body_of(request), translating.needs_justification),
        "revision": (await table.approval(request)).get("revision"),
        **named(step, "acting_for", "revision", "digest"),
    }  # fmt: skip
    return await _verb(table, step, "votes", body)


async def edit(table: Table, step: Step) -> Outcome:
    """The whole action anew."""
    request, payload = table.request(step), mapping(step.fields["payload"], str(step))
    action = translating.whole(table.action(payload, request.policy))
    body = {"action": action, "justification": step.maybe("justification") or BECAUSE, **named(step, "revision")}
    outcome = await _verb(table, step, "edit", body)
    if outcome.status is not None and outcome.status < 400:
        request.payload = payload
    return outcome


async def withdraw(table: Table, step: Step) -> Outcome:
    reason = step.maybe("reason") or step.maybe("justification") or BECAUSE
    return await _verb(table, step, "withdraw", {"reason": reason})


async def break_glass(table: Table, step: Step) -> Outcome:
    """The verb. What was broken runs at once, so a worker is let run it where the scenario says that it has."""
    outcome = await _verb(table, step, "break-glass", {"justification": step.maybe("justification") or ""})
    if outcome.status == 200 and "executed" in {step.expect.get("code"), step.expect.get("state")}:
        ran = await run_approved(table, table.request(step))
        return outcome if ran.status == 200 and step.expect.get("code") != "executed" else ran
    return outcome


async def review(table: Table, step: Step) -> Outcome:
    return await _verb(table, step, "review", {"note": step.maybe("note") or BECAUSE})


async def _verb(table: Table, step: Step, verb: str, body: object) -> Outcome:
    path = f"/approvals/{table.request(step).approval_id}/{verb}"
    return Outcome.of(await table.world.call("POST", path, step.text("by"), body, key=step.maybe("key")))


async def batch(table: Table, step: Step) -> Outcome:
    """Several decisions in one call. `expect.results` are status, code and state of each, in order."""
    decisions: list[dict[str, object]] = []
    for number, given in enumerate(sequence(step.fields["decisions"], str(step))):
        one = mapping(given, f"{step} decisions[{number}]")
        request = table.requests[str(one["req"])]
        seen = {"revision": (await table.approval(request)).get("revision")}
        more = seen | {key: value for key, value in one.items() if key in {"revision", "digest", "acting_for"}}
        decisions.append({
            "approval_id": request.approval_id,
            "verdict": verdict_of(one["decision"], str(step)),
            "justification": one.get("justification", BECAUSE), **more,
        })  # fmt: skip
    return Outcome.of(await table.world.call("POST", "/approvals/batch", step.text("by"), {"decisions": decisions}))


# Running


async def execute(table: Table, step: Step) -> Outcome:
    """Let a worker run the approved workflow now, or again where it failed."""
    request, payload = table.request(step), step.fields.get("payload")
    PLANTED.pop(request.workflow_id, None)
    if payload is not None:
        PLANTED[request.workflow_id] = table.action(mapping(payload, str(step)))
    return await run_approved(table, request)


async def run_approved(table: Table, request: Request) -> Outcome:
    """One attempt to run what was approved, and what came of it."""
    before = (await table.approval(request)).get("state")
    if before in _OVER:  # a retry would ask anew
        return _OVER[before]
    if (await table.workflow(request))["status"] != "ready":
        answer = await table.world.call("POST", f"/workflows/{request.workflow_id}/retry", ROOT)
        if answer.status >= 400:
            return Outcome.of(answer)
    await table.world.drive(request.graph)
    workflow, approval = await table.workflow(request), await table.approval(request)
    if workflow["status"] == "failed" or (workflow["status"] == "ready" and workflow["reason"]):
        return Outcome.stopped(workflow, 409)
    state, status = str(approval.get("state")), str(workflow["status"])
    return Outcome(200 if status == "completed" else 409, state, f"the workflow is {status}")


# Links


async def link(table: Table, step: Step) -> Outcome:
    """A link made now."""
    return await _make_link(table, step.text("link"), link_of(step.fields, str(step)), step.maybe("by") or ROOT)


async def _make_link(table: Table, name: str, one: Link, by: str) -> Outcome:
    body = {
        "person": person_name(one.person), "verdict": verdict_of(one.decision, name),
        "ttl_seconds": one.ttl.total_seconds(),
    }  # fmt: skip
    path = f"/approvals/{table.requests[one.req].approval_id}/links"
    answer = await table.world.call("POST", path, by, body)
    if answer.status < 400:
        parts = urlsplit(str(answer.body["url"]))
        table.links[name] = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return Outcome.of(answer)


def request_of_link(table: Table, step: Step) -> Request:
    """The request that a step's link is about."""
    name = step.text("link")
    made = next((one for one in table.scenario.steps if one.do == "link" and one.text("link") == name), None)
    meant = link_of(made.fields, str(made)) if made else table.scenario.links[name]
    return table.requests[meant.req]


async def link_get(table: Table, step: Step) -> Outcome:
    """As a mail scanner does it: several times, and HEAD too. Nothing may change."""
    url, person, request = table.links[step.text("link")], step.maybe("by"), request_of_link(table, step)
    before = await _seen(table, request)
    answers = [await table.world.call("GET", url, person) for _ in range(int(str(step.fields.get("times", 2))))]
    await table.world.call("HEAD", url, person)
    if await _seen(table, request) != before or len({one.status for one in answers}) > 1:
        table.differences.append(f"{step}: looking at a link changed something")
    return Outcome.of(answers[0])


async def _seen(table: Table, request: Request) -> object:
    approval = await table.approval(request)
    return (approval["state"], approval["votes"], len(await table.events(request)))


async def link_post(table: Table, step: Step) -> Outcome:
    """As the page's form does it, with a reason."""
    body = {"justification": _justification(step, {}, translating.needs_justification)}
    return Outcome.of(await table.world.call("POST", table.links[step.text("link")], step.maybe("by"), body))
