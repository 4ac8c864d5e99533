"""The end of the demo: each workflow's timeline, its audit chain computed again, and the summary."""

from __future__ import annotations

from orchestrator.cli.demo.play import Play
from orchestrator.cli.demo.telling import timeline
from orchestrator.core.canonical import chain_hash
from orchestrator.store import events


def show_timelines(play: Play) -> None:
    """What happened in each workflow, event by event."""
    for title, workflow_id in play.submitted:
        found = play.requester.workflow(workflow_id)
        play.teller.heading(f"Timeline of “{title}” ({workflow_id}): {found.status}")
        play.teller.table(("TIME", "EVENT", "BY", "WHAT"), timeline(play.events(workflow_id), play.stage.name_of))


def verify_chains(play: Play) -> None:
    """Compute the hash of every event again from what is stored, and compare."""
    play.teller.heading("Audit")
    total = 0
    broken: list[str] = []
    for _, workflow_id in play.submitted:
        count, good = _verify(play, workflow_id)
        total += count
        if not good:
            broken.append(workflow_id)
    for workflow_id in broken:
        play.teller.line(f"The chain of {workflow_id} is broken.")
    play.teller.check(f"The audit chains of {len(play.submitted)} workflows verify: {total} events computed again.",
                      held=not broken)  # fmt: skip


def _verify(play: Play, workflow_id: str) -> tuple[int, bool]:
    """The number of events, and whether each has the hash it must have and none is missing or out of order."""
    rows = play.stage.look(lambda conn: events.chain(conn, workflow_id))
    head, good = b"", True
    for number, row in enumerate(rows, 1):
        head = chain_hash(head, number, row["at"], row["type"], row["actor"], row["body"])
        good = good and row["seq"] == number and bytes(row["hash"]) == head
    return len(rows), good and len(rows) == len(play.events(workflow_id))


def summarize(play: Play) -> None:
    """All that was expected, with its mark."""
    play.teller.heading("Summary")
    for expectation, held in play.teller.checks:
        play.teller.mark(expectation, held=held)
