"""How a lease can end, as values: what the row becomes and what is written with it. Nothing here commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from langgraph.errors import GraphRecursionError, NodeTimeoutError

from orchestrator.core.canonical import redact
from orchestrator.core.errors import Frozen, KeyturnError
from orchestrator.core.model import ApprovalState, Status
from orchestrator.core.progress import STEP_TIMED_OUT
from orchestrator.engine import pause, standing_approvals
from orchestrator.engine.render import to_json
from orchestrator.engine.standing import Progress
from orchestrator.store.db import Params
from orchestrator.store.decisions import Notice
from orchestrator.store.endings import unasked
from orchestrator.store.events import Event
from orchestrator.store.segments import Release

_MAX_DETAIL = 2000
# What ends with a workflow that a rule forbids to go on.
_OPEN = ("pending", "approved")


@dataclass(frozen=True, slots=True)
class End:
    """How a lease ends: the status the row gets, and what goes with it."""

    status: Status
    reason: str | None = None
    error: Mapping[str, object] | None = None
    result: object = None
    events: Sequence[Event] = ()
    rows: Sequence[Params] = ()
    risk: str | None = None
    # Approvals that are good no longer, and what became of them.
    ended: Sequence[str] = ()
    ended_as: ApprovalState | None = None
    notices: Sequence[Notice] = ()
    run_at: datetime | None = None

    def node(self, progress: Progress) -> str | None:
        """Where the workflow stands: at what it asks, else at what would run next."""
        if self.rows:
            return str(self.rows[0]["node"])
        return progress.next_nodes[0] if progress.next_nodes else None

    def release(self) -> Release:
        """What the row becomes."""
        return Release(
            self.status.value, self.status.finished, self.reason, self.error, self.result,
            progress=self.status is not Status.FAILED, run_at=self.run_at,
        )  # fmt: skip


def paused(planned: pause.Pause, *, tells: bool) -> End:
    """It waits for people, who are told of it where anybody is (`tells`); or a rule forbids it to go on."""
    if planned.rejected_by is None:
        return End(
            Status.WAITING, rows=planned.rows, events=planned.events, risk=planned.level.value,
            notices=planned.notices if tells else (),
        )  # fmt: skip
    by, why = planned.rejected_by, "action_forbidden"
    untold = unasked({row["approval_id"]: row["state"] for row in planned.rows}, by, why)
    return End(
        Status.REJECTED,
        reason=why,
        rows=[_cancelled(row, by) if row["state"] in _OPEN else row for row in planned.rows],
        events=[*planned.events, *untold, Event("workflow-rejected", by, {"reason": why})],
        risk=planned.level.value,
    )


def _cancelled(row: Params, by: str) -> Params:
    """A request of the same pause; who decided it before is kept."""
    pending = row["state"] == ApprovalState.PENDING
    resolved = {"resolved_by": by, "resolved_at": row["requested_at"]} if pending else {}
    return {**row, **resolved, "state": ApprovalState.CANCELLED.value}


def failed(error: Exception, actor: str, epoch: int, secrets: Sequence[object]) -> End:
    """It cannot go on; `secrets` holds what must not be told."""
    code = error.code if isinstance(error, KeyturnError) else "node_error"
    if isinstance(error, GraphRecursionError):
        code = "recursion_limit"
    if isinstance(error, NodeTimeoutError):
        code = STEP_TIMED_OUT
    detail = error.detail if isinstance(error, KeyturnError) else f"{type(error).__name__}: {error}"
    # What a graph raises may repeat the secrets it was given, by its input or by what was approved (rule 25).
    told = redact.hide(detail, secrets)[:_MAX_DETAIL]
    body: dict[str, object] = {"code": code, "detail": to_json(told)}
    if notes := getattr(error, "__notes__", None):
        body["where"] = to_json(redact.hide(str(notes[0]), secrets)[:200])
    if isinstance(error, KeyturnError):
        body |= {key: to_json(value) for key, value in error.facts.items()}
    ended, became = standing_approvals.ended_by(error)
    event = Event("workflow-failed", actor, {**body, "epoch": epoch})
    return End(Status.FAILED, reason=code, error=body, events=[event], ended=ended, ended_as=became)


def held(error: Frozen, actor: str) -> End:
    """A freeze holds it: handed back, and claimed again when that is over."""
    until = datetime.fromisoformat(str(error.facts["until"]))
    told = Event("execution-held", actor, {"code": error.code, "detail": error.detail, **error.facts})
    return End(Status.READY, reason=error.code, run_at=until, events=[told])
