"""The part of the LangGraph API that its public clients call, over the same use cases as every other channel.

Nothing of a client reaches LangGraph itself: an input begins a workflow, a resume is a decision. The rest is refused.
"""

from __future__ import annotations

from orchestrator.web.langgraph_api import assistants, runs, threads

routers = (assistants.router, threads.router, runs.router)

__all__ = ["routers"]
