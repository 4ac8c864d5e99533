"""The ledger of external effects. Every write follows `workflows.hold`, so a lost lease can change nothing here."""

from __future__ import annotations

from datetime import datetime

from psycopg.types.json import Json

from orchestrator.store.db import Connection, Params

# The entry as it stands.
GET = "SELECT * FROM keyturn.effects WHERE key = %(key)s"

# What a workflow did.
OF_WORKFLOW = "SELECT * FROM keyturn.effects WHERE workflow_id = %(workflow)s ORDER BY started_at, key"

# Begin: a new entry, or a failed one that runs again. Anything else is left as it is.
BEGIN = """
INSERT INTO keyturn.effects AS e (key, namespace, workflow_id, node, visit, name, state, token, approval_id, started_at)
VALUES (%(key)s, %(namespace)s, %(workflow_id)s, %(node)s, %(visit)s, %(name)s, 'started', %(token)s, %(approval_id)s,
        coalesce(%(now)s::timestamptz, now()))
ON CONFLICT (key) DO UPDATE SET state = 'started', attempts = e.attempts + 1, error = NULL, token = EXCLUDED.token,
        approval_id = coalesce(e.approval_id, EXCLUDED.approval_id)
 WHERE e.state = 'failed'
RETURNING key
"""

# The earlier attempt did not happen: it runs again now, and the questions about it are settled.
AGAIN = """
UPDATE keyturn.effects SET attempts = attempts + 1, settled = asked WHERE key = %(key)s AND state = 'started'
"""

ASK = "UPDATE keyturn.effects SET asked = %(asked)s WHERE key = %(key)s AND state = 'started' AND asked < %(asked)s"

# The end; the approval it ran under is used up with it. An effect that is done is progress, as it never runs again: a
# long node of many effects is not taken for poison because its workers died.
FINISH = """
WITH finished AS (
    UPDATE keyturn.effects SET state = 'finished', result = %(result)s, settled = asked,
           finished_at = coalesce(%(now)s::timestamptz, now())
     WHERE key = %(key)s AND state = 'started' RETURNING approval_id, workflow_id
), progressed AS (
    UPDATE keyturn.workflows w SET attempts = 0
      FROM finished WHERE w.workflow_id = finished.workflow_id AND w.attempts > 1
)
UPDATE keyturn.approvals a SET state = 'executed', executed_at = coalesce(%(now)s::timestamptz, now())
  FROM finished WHERE a.approval_id = finished.approval_id AND a.state = 'approved'
"""

FAIL = "UPDATE keyturn.effects SET state = 'failed', error = %(error)s WHERE key = %(key)s AND state = 'started'"

# The approval an effect is bound to, locked: it must still stand, and for exactly this.
APPROVAL = """
SELECT a.state, a.digest, a.lapses_at <= coalesce(%(now)s::timestamptz, now()) AS lapsed, e.key AS used_by,
       (SELECT state FROM keyturn.effects WHERE key = %(key)s) AS effect_state, a.policy, a.flags,
       (SELECT policy_version FROM keyturn.namespaces n WHERE n.namespace = a.namespace) AS policy_version,
       a.terms -> 'freeze' AS freeze, a.terms -> 'recheck_at_execution' AS recheck,
       coalesce(%(now)s::timestamptz, now()) AS now
  FROM keyturn.approvals a LEFT JOIN keyturn.effects e USING (approval_id)
 WHERE a.workflow_id = %(workflow)s AND a.approval_id = %(approval)s FOR UPDATE OF a
"""


# Whether the approval an effect runs under, if any, is no longer good.
LATE = """
SELECT a.approval_id FROM keyturn.effects e JOIN keyturn.approvals a USING (approval_id)
 WHERE e.key = %(key)s AND a.lapses_at <= coalesce(%(now)s::timestamptz, now())
"""


# Whether what ran under an approval may have happened: it began, and nothing tells how it ended.
IN_DOUBT = "SELECT FROM keyturn.effects WHERE approval_id = %(approval)s AND state = 'started'"


async def in_doubt(conn: Connection, approval_id: str) -> bool:
    """Whether an effect that was begun under this approval may have happened."""
    return await (await conn.execute(IN_DOUBT, {"approval": approval_id})).fetchone() is not None


async def late(conn: Connection, key: str, now: datetime | None) -> str | None:
    """The lapsed approval of an effect; None when it is good, or the effect has none."""
    found = await (await conn.execute(LATE, {"key": key, "now": now})).fetchone()
    return None if found is None else str(found["approval_id"])


async def get(conn: Connection, key: str) -> Params | None:
    """The entry; None when the effect never began."""
    return await (await conn.execute(GET, {"key": key})).fetchone()


async def of_workflow(conn: Connection, workflow_id: str) -> list[Params]:
    """Every entry of a workflow, in the order they began."""
    return await (await conn.execute(OF_WORKFLOW, {"workflow": workflow_id})).fetchall()


async def begin(conn: Connection, row: Params) -> bool:
    """Begin the effect; False when it is finished or in doubt and nothing was changed.

    `token` names this attempt, so that sending the same beginning twice is not taken for a doubtful effect.
    """
    return await (await conn.execute(BEGIN, row)).fetchone() is not None


async def again(conn: Connection, key: str) -> None:
    """Run a doubtful effect again."""
    await conn.execute(AGAIN, {"key": key})


async def ask(conn: Connection, key: str, asked: int) -> None:
    """Note that question number `asked` is put to a person."""
    await conn.execute(ASK, {"key": key, "asked": asked})


async def finish(conn: Connection, key: str, result: object, now: datetime | None) -> None:
    """Record the end and its JSON result."""
    await conn.execute(FINISH, {"key": key, "result": Json(result), "now": now})


async def fail(conn: Connection, key: str, error: str) -> None:
    """Record that the body raised."""
    await conn.execute(FAIL, {"key": key, "error": error[:2000]})


async def bound_approval(
    conn: Connection, workflow_id: str, approval_id: str, key: str, now: datetime | None
) -> Params | None:
    """State and digest of the approval, which effect has used it, and how the effect `key` stands."""
    row = {"workflow": workflow_id, "approval": approval_id, "key": key, "now": now}
    found = await conn.execute(APPROVAL, row)
    return await found.fetchone()
