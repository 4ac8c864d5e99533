"""Whether each request was decided by whom it had to be, from its row, its votes and its events alone.

Approved is what the votes for its last revision add up to, or what a policy, the clock or a broken glass decided; and
nothing happens to a request once it is decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.core.model import BREAK_GLASS, Verdict, Vote
from orchestrator.core.votes import CLOCK, still_approved
from orchestrator.store.decisions import view_of

Row = dict[str, Any]
# What may not happen to a request that is decided.
_WHILE_OPEN = (
    "vote-recorded", "approval-revised", "approval-escalated", "approval-reminded", "approval-policy-changed",
)  # fmt: skip


def given_rightly(row: Row, votes: Sequence[Row], events: Sequence[Row]) -> Iterator[str]:
    """What is wrong with one request: `votes` of it, and all `events` of its workflow in order."""
    if row["kind"] != "approval":
        return
    told = [event for event in events if event["body"].get("request_id") == row["approval_id"]]
    yield from _in_order(row, told)
    name, standing = row["approval_id"], [_vote(one) for one in votes if not one["superseded"]]
    if ahead := [vote.voter for vote in standing if vote.revision > row["revision"]]:
        yield f"I5 {name}: votes of {ahead} for a revision that is not there"
    by_itself = str(row["resolved_by"]).startswith("policy:") or row["resolved_by"] == CLOCK
    if row["state"] in ("approved", "executed", "lapsed", "stale") and not by_itself:
        broken = [event["actor"] for event in told if event["type"] == "break-glass"]
        if BREAK_GLASS in row["flags"]:
            if row["resolved_by"] not in broken:
                yield f"I3 {name}: broken by {row['resolved_by']}, told of {broken}"
        elif not still_approved(view_of(row), standing):
            yield f"I3 {name}: {row['state']}, and the votes for revision {row['revision']} do not fill its slots"
    if row["state"] == "rejected" and not by_itself:
        against = {v.voter for v in standing if v.verdict is Verdict.REJECT and v.revision == row["revision"]}
        if len(against) < view_of(row).requirement.deny_threshold:
            yield f"I3 {name}: rejected, and only {sorted(against)} voted against revision {row['revision']}"


def _in_order(row: Row, told: Sequence[Row]) -> Iterator[str]:
    """Each vote is for the revision that was open when it was counted, and none is counted after the end."""
    name, revision, ended = row["approval_id"], 1, False
    for event in told:
        body, kind = event["body"], event["type"]
        if kind == "confirmation-resolved":
            # A freeze holds what is approved, until somebody breaks the glass.
            if ended and BREAK_GLASS not in row["flags"]:
                yield f"I5 {name}: decided again at event {event['seq']}"
            if body.get("revision", revision) != revision:
                yield f"I3 {name}: decided at revision {body['revision']}, and {revision} was open"
            ended = True
        elif kind in _WHILE_OPEN and not body.get("replayed"):
            if ended:
                yield f"I5 {name}: {kind} at event {event['seq']}, after its end"
            if kind == "approval-revised":
                revision += 1
            if body.get("revision", revision) != revision:
                yield f"I3 {name}: {kind} for revision {body['revision']}, and {revision} was open"
    if revision != row["revision"]:
        yield f"I5 {name}: revision {row['revision']}, and events of {revision}"


def _vote(row: Row) -> Vote:
    return Vote(
        row["voter"], Verdict(row["verdict"]), row["revision"], row["at"], frozenset(row["roles"]), row["acting_for"],
        row["justification"],
    )  # fmt: skip
