"""One client at one run: what it may read of the thread, and how it follows the run's workflow."""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.service import conversations, runs, states
from orchestrator.service.context import Caller
from orchestrator.service.runs import Run
from orchestrator.service.states import ThreadState
from orchestrator.web.following import Following
from orchestrator.web.parts import Parts


@dataclass(frozen=True, slots=True)
class Visit:
    """A caller who follows a workflow of a thread."""

    parts: Parts
    who: Caller
    thread_id: str
    following: Following

    @property
    def reads(self) -> bool:
        """Whether the caller may see more of the run than how it ends."""
        return "read" in self.who.permissions

    async def state(self, *, note: bool) -> ThreadState:
        """The thread's state by now, as far as the caller may see it. `note`: what it asks will be shown to them."""
        if not self.reads:
            return ThreadState()
        found = await conversations.find(self.parts.context, self.who, self.thread_id)
        return await states.state(self.parts.context, self.who, found, note=note)

    async def again(self, run: Run) -> Run:
        """The run by now, with what is known of it here."""
        found = await conversations.find(self.parts.context, self.who, self.thread_id)
        now = await runs.find(self.parts.context, self.who, found, run.run_id)
        return runs.as_known(now, run)


async def visit(parts: Parts, who: Caller, presented: str, run: Run) -> Visit:
    """Begin to follow a run; refused here where it cannot be. NotFound, Unavailable."""
    # Whoever began a run may know when it is over.
    follower = replace(who, permissions=who.permissions | {"read"})
    following = Following(parts, follower, presented, run.workflow_id)
    await following.ready(run.after_seq)
    return Visit(parts, who, run.thread_id, following)
