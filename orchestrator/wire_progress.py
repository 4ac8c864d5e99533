"""Models of the progress views. Their JSON names are camelCase, as those who draw them are written in JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from orchestrator.core.progress import State


class Camel(BaseModel):
    """Base: camelCase on the wire, our names in Python."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class SubstepProgress(Camel):
    """A part of a step."""

    name: str
    title: str
    state: State
    weight: float
    percent: float


class StepProgress(Camel):
    """A step. `percent` is null while it runs and has not told how far it is; `attempt` counts its retries."""

    name: str
    title: str
    state: State
    weight: float
    percent: float | None
    started_at: datetime | None
    finished_at: datetime | None
    elapsed_seconds: float
    attempt: int
    attempts: int
    message: str
    done: float | None
    total: float | None
    substeps: Sequence[SubstepProgress]


class TaskProgress(Camel):
    """`GET /workflows/{id}/progress`. `percent` is null where the graph's steps are not known beforehand, and
    `remainingSeconds` where nobody can tell: while it is queued or waits for a person, and before it has told anything.
    `status` is the workflow's own; `state` is one of those of a task.
    """

    workflow_id: str
    graph: str
    title: str
    state: State
    status: str
    percent: float | None
    message: str
    elapsed_seconds: float
    remaining_seconds: float | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    steps: Sequence[StepProgress]


class TaskList(Camel):
    """`GET /tasks`: the caller's tasks, newest first, and how many more there are."""

    tasks: Sequence[TaskProgress]
    more: int
