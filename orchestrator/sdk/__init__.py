"""What graph authors import: gates, questions, the effects ledger, idempotency keys and graph options.

`graphs/` imports nothing of Keyturn but this package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from orchestrator.core.errors import ActionRejected, DigestMismatch, InvalidInput, KeyturnError, StepFailed
from orchestrator.core.model import Action
from orchestrator.sdk.options import PURE, GraphOptions, options

if TYPE_CHECKING:
    from orchestrator.core.confidence import Confidence
    from orchestrator.sdk.confidence import calculate_confidence, confident
    from orchestrator.sdk.effects import Effect, Happened, Unknown, effect
    from orchestrator.sdk.gate import Answer, Decision, ask, asked, confirm, request_approval
    from orchestrator.sdk.runtime import idempotency_key
    from orchestrator.sdk.stepping import Step, Substep, steps
    from orchestrator.sdk.telling import progress
    from orchestrator.sdk.tool import HitlTool, ToolRejected, hitl_tool, tool_key

# Imported when first asked for: some bring LangGraph along, which the client and the command line do without.
_HOMES = {
    "Answer": "orchestrator.sdk.gate",
    "Confidence": "orchestrator.core.confidence",
    "Decision": "orchestrator.sdk.gate",
    "Effect": "orchestrator.sdk.effects",
    "Happened": "orchestrator.sdk.effects",
    "HitlTool": "orchestrator.sdk.tool",
    "Step": "orchestrator.sdk.stepping",
    "Substep": "orchestrator.sdk.stepping",
    "ToolRejected": "orchestrator.sdk.tool",
    "Unknown": "orchestrator.sdk.effects",
    "ask": "orchestrator.sdk.gate",
    "asked": "orchestrator.sdk.gate",
    "calculate_confidence": "orchestrator.sdk.confidence",
    "confident": "orchestrator.sdk.confidence",
    "confirm": "orchestrator.sdk.gate",
    "effect": "orchestrator.sdk.effects",
    "hitl_tool": "orchestrator.sdk.tool",
    "idempotency_key": "orchestrator.sdk.runtime",
    "progress": "orchestrator.sdk.telling",
    "request_approval": "orchestrator.sdk.gate",
    "steps": "orchestrator.sdk.stepping",
    "tool_key": "orchestrator.sdk.tool",
}

__all__ = [
    "PURE",
    "Action",
    "ActionRejected",
    "Answer",
    "Confidence",
    "Decision",
    "DigestMismatch",
    "Effect",
    "GraphOptions",
    "Happened",
    "HitlTool",
    "InvalidInput",
    "KeyturnError",
    "Step",
    "StepFailed",
    "Substep",
    "ToolRejected",
    "Unknown",
    "ask",
    "asked",
    "calculate_confidence",
    "confident",
    "confirm",
    "effect",
    "hitl_tool",
    "idempotency_key",
    "options",
    "progress",
    "request_approval",
    "steps",
    "tool_key",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(home), name)
