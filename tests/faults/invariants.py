"""The promises, checked from the tables and from what reached the target, after any fault.

`violations` returns what is broken in plain words, nothing when all holds. The numbers are those of the promises: I1
decided is delivered exactly once, I2 effects at most once, I3 no effect without its decision, I4 approved is executed,
I5 one audit row per decision in chains that verify, I6 nothing stuck, I7 what was acknowledged is there, exactly once,
I8 a completed node with effects never runs again once a later node has started, I9 nothing is written by a worker that
lost its lease.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from orchestrator.core.canonical import chain_hash
from tests.faults.target import Target
from tests.faults.verdicts import given_rightly

Row = dict[str, Any]
# Graphs whose effects all stand behind one gate, with the prefix of what they do at the target.
GATED = {"governed": "charge", "governed_in_thread": "charge", "bound": "charge", "edited": "charge"}
_OPEN = ("ready", "running", "waiting")
_DECIDED = ("approved", "executed", "answered", "rejected")


@dataclass
class Promised:
    """What clients were told: workflows accepted, by title, and decisions taken, by approval."""

    submitted: dict[str, str] = field(default_factory=dict[str, str])
    decided: dict[str, tuple[str, str]] = field(default_factory=dict[str, "tuple[str, str]"])


@dataclass
class Tables:
    """Everything that was kept, by workflow, in order."""

    workflows: dict[str, Row]
    approvals: list[Row]
    votes: list[Row]
    events: dict[str, list[Row]]
    effects: list[Row]

    def approvals_of(self, workflow_id: str) -> list[Row]:
        return [row for row in self.approvals if row["workflow_id"] == workflow_id]


async def violations(
    database_url: str, target: Target | None = None, promised: Promised | None = None, *, steps_alike: bool = False
) -> list[str]:
    """What is broken. `steps_alike`: the step events of each graph's workflows must be the same (where
    nothing was killed)."""
    tables = await read(database_url)
    found = [*_delivered_once(tables), *_audited(tables), *_nothing_stuck(tables), *_fenced(tables)]
    for row in tables.approvals:
        of_it = [vote for vote in tables.votes if vote["approval_id"] == row["approval_id"]]
        found += given_rightly(row, of_it, tables.events[row["workflow_id"]])
    if target is not None:
        found += [
            *_effects_once(tables, target),
            *_effects_decided(tables, target),
            *_approved_executed(tables, target),
        ]
        found += _sealed_nodes(target)
    if promised is not None:
        found += _acknowledged(tables, promised)
    if steps_alike:
        found += _steps_alike(tables)
    return found


async def read(database_url: str) -> Tables:
    """All rows, in one snapshot."""
    async with await AsyncConnection[DictRow].connect(database_url, row_factory=dict_row) as conn:
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        workflows = await _all(conn, "SELECT *, lease_until < now() AS stranded FROM keyturn.workflows")
        approvals = await _all(conn, "SELECT * FROM keyturn.approvals ORDER BY requested_at, approval_id")
        votes = await _all(conn, "SELECT * FROM keyturn.votes ORDER BY vote_id")
        effects = await _all(conn, "SELECT * FROM keyturn.effects")
        events = await _all(
            conn,
            "SELECT workflow_id, seq, at, type, actor, body::text AS text, body, hash FROM keyturn.events"
            " ORDER BY workflow_id, seq",
        )
    by_workflow: dict[str, list[Row]] = defaultdict(list)
    for row in events:
        by_workflow[row["workflow_id"]].append(row)
    return Tables({row["workflow_id"]: row for row in workflows}, approvals, votes, by_workflow, effects)


async def _all(conn: AsyncConnection[DictRow], statement: Any) -> list[Row]:
    return await (await conn.execute(statement)).fetchall()


def _delivered_once(tables: Tables) -> Iterator[str]:
    for row in tables.approvals:
        name, workflow = row["approval_id"], tables.workflows[row["workflow_id"]]
        told = [event for event in tables.events[row["workflow_id"]] if event["type"] == "decision-delivered"]
        times = sum(event["body"]["approvals"].count(name) for event in told)
        ends_it = row["state"] == "rejected" and row["on_reject"] == "cancel"
        if times > 1:
            yield f"I1 {name}: delivered {times} times"
        # What was delivered may be good no longer when its effect is about to begin.
        if times and row["state"] not in (*_DECIDED, "lapsed", "stale"):
            yield f"I1 {name}: delivered although it is {row['state']}"
        if ends_it and times:
            yield f"I1 {name}: a rejection that ends the workflow was delivered to it"
        if (row["delivered_at"] is not None) != (times == 1):
            yield f"I1 {name}: delivered_at is {row['delivered_at']} and it was delivered {times} times"
        if row["state"] in _DECIDED and not ends_it and workflow["status"] == "completed" and not times:
            yield f"I1 {name}: decided, its workflow completed, and it was never delivered"


def _effects_once(tables: Tables, target: Target) -> Iterator[str]:
    for what, times in target.applied().items():
        if times > 1:
            yield f"I2 {what}: happened {times} times"
    for row in tables.effects:
        if tables.workflows[row["workflow_id"]]["status"] == "completed" and row["state"] != "finished":
            yield f"I2 {row['key']}: its workflow completed and the ledger says {row['state']}"


def _effects_decided(tables: Tables, target: Target) -> Iterator[str]:
    for call in target.calls():
        workflow = tables.workflows.get(call.workflow_id)
        if workflow is None:
            yield f"I3 {call.what}: happened for a workflow that does not exist"
        elif workflow["graph"] in GATED:
            given = [
                row for row in tables.approvals_of(call.workflow_id)
                if row["state"] in ("approved", "executed") and row["resolved_at"].timestamp() <= call.at
            ]  # fmt: skip
            if not given:
                yield f"I3 {call.what}: happened without an approval"


def _approved_executed(tables: Tables, target: Target) -> Iterator[str]:
    happened = target.applied()
    for workflow_id, row in tables.workflows.items():
        if row["graph"] not in GATED:
            continue
        states = Counter(approval["state"] for approval in tables.approvals_of(workflow_id))
        approved, times = states["approved"] + states["executed"], happened[f"{GATED[row['graph']]} {workflow_id}"]
        if row["status"] == "completed" and (times != 1 or not states["executed"]):
            yield f"I4 {workflow_id}: completed, its effect happened {times} times, its approvals are {dict(states)}"
        if approved and not states["pending"] and row["status"] in _OPEN:
            yield f"I4 {workflow_id}: approved, and still {row['status']}"
        if row["status"] in ("rejected", "expired") and times:
            yield f"I4 {workflow_id}: {row['status']}, and its effect happened"


def _audited(tables: Tables) -> Iterator[str]:
    for workflow_id, row in tables.workflows.items():
        head = b""
        for number, event in enumerate(tables.events[workflow_id], 1):
            head = chain_hash(head, number, event["at"], event["type"], event["actor"], event["text"])
            if event["seq"] != number or bytes(event["hash"]) != head:
                yield f"I5 {workflow_id}: the chain breaks at event {event['seq']}"
                break
        if row["last_seq"] != len(tables.events[workflow_id]) or bytes(row["last_hash"]) != head:
            yield f"I5 {workflow_id}: the row's head {row['last_seq']} is not the chain's end"
    for approval in tables.approvals:
        yield from _audited_decision(tables, approval)


def _audited_decision(tables: Tables, approval: Row) -> Iterator[str]:
    name = approval["approval_id"]
    events = [e for e in tables.events[approval["workflow_id"]] if e["body"].get("request_id") == name]
    resolved = [event for event in events if event["type"] == "confirmation-resolved"]
    expected = 1 if approval["state"] in (*_DECIDED, "lapsed", "stale", "expired", "withdrawn") else 0
    # What was approved may be cancelled before anything was done with it.
    if len(resolved) != expected and not (approval["state"] == "cancelled" and len(resolved) == 1):
        yield f"I5 {name}: {approval['state']}, with {len(resolved)} events of its resolution"
    if resolved and resolved[-1]["actor"] != approval["resolved_by"]:
        yield f"I5 {name}: resolved by {approval['resolved_by']}, audited as {resolved[0]['actor']}"
    if approval["route"] in ("AUTO", "DENIED"):
        return
    if asked := sum(event["type"] == "confirmation-required" for event in events) != 1:
        yield f"I5 {name}: asked for in {asked} events"
    votes = sum(vote["approval_id"] == name for vote in tables.votes)
    counted = [e for e in events if e["type"] == "vote-recorded" and not e["body"].get("replayed")]
    if approval["kind"] == "approval" and len(counted) != votes and approval["state"] != "answered":
        yield f"I5 {name}: {votes} votes, {len(counted)} events of votes"


def _nothing_stuck(tables: Tables) -> Iterator[str]:
    for workflow_id, row in tables.workflows.items():
        pending = [one["approval_id"] for one in tables.approvals_of(workflow_id) if one["state"] == "pending"]
        if row["status"] == "running" and row["stranded"]:
            yield f"I6 {workflow_id}: running under a lease that ran out"
        if row["status"] == "waiting" and not pending:
            yield f"I6 {workflow_id}: waits for a decision that nobody can make"
        if row["status"] not in _OPEN and pending:
            yield f"I6 {workflow_id}: {row['status']}, and {pending} can still be decided"


def _acknowledged(tables: Tables, promised: Promised) -> Iterator[str]:
    titles = Counter(row["title"] for row in tables.workflows.values())
    for title, workflow_id in promised.submitted.items():
        if workflow_id not in tables.workflows:
            yield f"I7 {workflow_id}: it was accepted, and it is not there"
        if titles[title] != 1:
            yield f"I7 {title}: submitted once, and there {titles[title]} times"
    rows = {row["approval_id"]: row for row in tables.approvals}
    for approval_id, (verdict, person) in promised.decided.items():
        row = rows.get(approval_id)
        if row is None or row["resolved_by"] != person or (row["decision"] or {}).get("verdict") != verdict:
            kept = row and (row["state"], row["resolved_by"])
            yield f"I7 {approval_id}: {person} was told that {verdict} counts, and the row says {kept}"


def _sealed_nodes(target: Target) -> Iterator[str]:
    """Nodes note their beginning and end as `begin workflow:node:visit`; a later visit seals what ended before it."""
    ended: dict[str, set[str]] = defaultdict(set)
    sealed: set[str] = set()
    for line in target.marks():
        what, _, key = line.partition(" ")
        if what not in ("begin", "end") or key.count(":") != 2:
            continue
        workflow_id, _, visit = key.split(":")
        if what == "end":
            ended[workflow_id].add(key)
            continue
        if key in sealed:
            yield f"I8 {key}: ran again after a later node had started"
        sealed |= {one for one in ended[workflow_id] if _step(one.split(":")[2]) < _step(visit)}


def _step(visit: str) -> int:
    return int(visit.split(".", maxsplit=1)[0])


def _fenced(tables: Tables) -> Iterator[str]:
    """After another worker took over, the earlier one writes nothing, until a decision lets anybody claim again."""
    for workflow_id, events in tables.events.items():
        before: set[str] = set()
        fenced_out: set[str] = set()
        for event in events:
            actor = event["actor"]
            if event["type"] in ("confirmation-resolved", "workflow-retried"):
                fenced_out = set()
            if not actor.startswith("worker:"):
                continue
            if event["type"] == "workflow-started":
                fenced_out = before - {actor}
            elif actor in fenced_out:
                yield f"I9 {workflow_id}: {event['type']} by {actor}, which had lost its lease"
            before.add(actor)


def _steps_alike(tables: Tables) -> Iterator[str]:
    """Every workflow of a graph that completed undisturbed by kills has noted the same steps, as often."""
    noted: dict[str, dict[str, Counter[tuple[str, str]]]] = defaultdict(dict)
    for workflow_id, row in tables.workflows.items():
        if row["status"] == "completed":
            events = [event for event in tables.events[workflow_id] if event["type"].startswith("step-")]
            noted[row["graph"]][workflow_id] = Counter((event["type"], event["body"]["node"]) for event in events)
    for graph, by_workflow in noted.items():
        usual = Counter(tuple(sorted(steps.items())) for steps in by_workflow.values()).most_common(1)[0][0]
        for workflow_id, steps in by_workflow.items():
            for step in {*steps, *dict(usual)}:
                if steps[step] != dict(usual).get(step, 0):
                    often = dict(usual).get(step, 0)
                    name = " of ".join(step)
                    yield f"I5 {workflow_id}: {name} is there {steps[step]} times, usual for {graph}: {often}"


def of_invariant(found: Sequence[str], number: str) -> list[str]:
    """Those violations that are of one invariant, such as `I7`."""
    return [one for one in found if one.startswith(f"{number} ")]
