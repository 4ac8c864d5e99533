"""Who was shown which requests, so that an answer which names none is only taken for one that its sender has seen."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.store.db import Connection

# A person was shown these requests. In one order, so that two who note the same do not wait for each other.
NOTE = """
INSERT INTO keyturn.seen_requests (approval_id, person)
SELECT approval_id, %(person)s FROM unnest(%(approvals)s::text[]) AS asked (approval_id)
 ORDER BY approval_id ON CONFLICT DO NOTHING
"""

# Whether a person was shown all of these requests.
SEEN = """
SELECT count(*) = cardinality(%(approvals)s::text[]) AS seen FROM keyturn.seen_requests
 WHERE approval_id = ANY (%(approvals)s) AND person = %(person)s
"""

# Whether anything that people could see was decided on the thread of a workflow: not what policy let pass at once.
DECIDED_BEFORE = """
SELECT EXISTS (
    SELECT 1 FROM (SELECT workflow_id FROM keyturn.workflows WHERE thread_key = %(thread_key)s
                   UNION SELECT %(workflow)s) AS ran
      JOIN keyturn.approvals a USING (workflow_id)
     WHERE a.state <> 'pending'
       AND (a.resolved_by NOT LIKE 'policy:%%' OR a.resolved_at > a.requested_at)) AS found
"""

# What waits no more needs not be remembered.
FORGET = """
DELETE FROM keyturn.seen_requests s USING keyturn.approvals a
 WHERE a.approval_id = s.approval_id AND a.state <> 'pending'
"""


async def note(conn: Connection, person: str, approval_ids: Sequence[str]) -> None:
    """Keep that a person was shown these requests."""
    await conn.execute(NOTE, {"person": person, "approvals": list(approval_ids)})


async def by(conn: Connection, person: str, approval_ids: Sequence[str]) -> bool:
    """Whether a person was shown all of these requests."""
    found = await (await conn.execute(SEEN, {"person": person, "approvals": list(approval_ids)})).fetchone()
    return bool(found and found["seen"])


async def forget(conn: Connection) -> int:
    """Forget who was shown what is decided by now; returns how many rows that were."""
    return (await conn.execute(FORGET)).rowcount


async def decided_before(conn: Connection, workflow_id: str, thread_key: str | None) -> bool:
    """Whether people have decided anything before on the thread of a workflow."""
    row = {"workflow": workflow_id, "thread_key": thread_key}
    found = await (await conn.execute(DECIDED_BEFORE, row)).fetchone()
    return bool(found and found["found"])
