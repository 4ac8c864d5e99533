"""What a worker holds when it has claimed a workflow: the row as claimed, and the decisions to deliver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self, cast

from orchestrator.core.model import Kind, Requester
from orchestrator.engine.payloads import Settled
from orchestrator.store.db import Params
from orchestrator.store.workflows import SUSPECT_AFTER


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that no checkpoint contains yet. `lapsed` says that the approval's time has passed."""

    approval_id: str
    interrupt_id: str
    node: str
    dialect: str
    payload: object
    settled: Settled
    lapsed: bool
    # What holds it: the policy's freezes and whether roles are looked at once more; the flags tell of a break-glass.
    policy: str
    flags: Sequence[str]
    freeze: Sequence[Mapping[str, object]]
    recheck: bool
    # Whether a commit contains it already, and what its approval has become.
    delivered: bool
    state: str
    # The round it was asked in, and how many requests that round of its interrupt has.
    nth: int
    of: int

    @classmethod
    def from_row(cls, row: Mapping[str, object]) -> Self:
        """From the claim's JSON."""
        settled = Settled(
            Kind(str(row["kind"])),
            str(row["approval_id"]),
            cast("Mapping[str, object] | None", row["action"]),
            str(row["digest"]),
            cast("Sequence[str]", row["volatile_fields"]),
            cast("Mapping[str, object]", row["decision"]),
            cast("Sequence[str]", row["allowed"]),
            str(row["asked_digest"]),
            int(cast("int", row["revision"])),
        )
        return cls(
            settled.approval_id,
            str(row["interrupt_id"]),
            str(row["node"]),
            str(row["dialect"]),
            row["payload"],
            settled,
            bool(row["lapsed"]),
            str(row["policy"]),
            cast("Sequence[str]", row["flags"]),
            cast("Sequence[Mapping[str, object]]", row["freeze"] or ()),
            bool(row["recheck"]),
            bool(row["delivered"]),
            str(row["state"]),
            int(cast("int", row["nth"])),
            int(cast("int", row["of"])),
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """A claimed workflow. `attempts` counts claims since the last progress, this one included; `taken_from` is the
    worker whose lease ran out, None where it was free.
    """

    workflow_id: str
    namespace: str
    graph: str
    graph_version: str
    epoch: int
    attempts: int
    input: Mapping[str, object]
    checkpointed: bool
    mode: str
    title: str
    case_id: str | None
    requester: Requester
    decided: tuple[Decided, ...]
    claimed_at: datetime
    taken_from: str | None = None
    # Approvals that the thread has taken and behind which nothing has run: they must still be good when it does.
    passed: tuple[Decided, ...] = ()
    # The namespace's published policies, and the number that rises with every change of its people.
    policy_version: int = 0
    people_version: int = 0
    # The thread it runs on, where others ran before it (`continues`); None: one of its own.
    thread_key: str | None = None
    continues: bool = False

    @property
    def thread_id(self) -> str:
        """What LangGraph's tables know its thread by."""
        return self.thread_key or self.workflow_id

    @property
    def doubtful(self) -> bool:
        """Whether it was claimed so often without progress that it may be what kills workers."""
        return self.attempts > SUSPECT_AFTER

    @classmethod
    def from_row(cls, row: Params) -> Self:
        """From the claim's row."""
        decided = [Decided.from_row(one) for one in row["decided"] or ()]
        return cls(
            row["workflow_id"],
            row["namespace"],
            row["graph"],
            row["graph_version"],
            row["epoch"],
            row["attempts"],
            row["input"],
            row["checkpointed"],
            row["mode"],
            row["title"],
            row["case_id"],
            Requester(row["requester"], row["on_behalf_of"], row["launched_by"], frozenset(row["roles"])),
            tuple(one for one in decided if not one.delivered),
            row["claimed_at"],
            row["taken_from"],
            tuple(one for one in decided if one.delivered),
            *(row["known"] or (0, 0)),
            thread_key=row["thread_key"],
            continues=row["continues"],
        )

    def facts(self, node: str) -> dict[str, object]:
        """What risk rules see as `workflow`, when `node` asks."""
        return {
            "id": self.workflow_id,
            "namespace": self.namespace,
            "graph": self.graph,
            "node": node,
            "title": self.title,
            "case_id": self.case_id,
            "mode": self.mode,
            "input": self.input,
        }
