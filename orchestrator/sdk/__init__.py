"""What graph authors import: gates, questions, the effects ledger, idempotency keys and graph options.

`graphs/` imports nothing of Keyturn but this package.
"""

from orchestrator.core.errors import ActionRejected, DigestMismatch, InvalidInput, KeyturnError
from orchestrator.core.model import Action
from orchestrator.sdk.effects import Effect, Happened, Unknown, effect
from orchestrator.sdk.gate import Decision, ask, confirm, request_approval
from orchestrator.sdk.options import PURE, GraphOptions, options
from orchestrator.sdk.runtime import idempotency_key

__all__ = [
    "PURE",
    "Action",
    "ActionRejected",
    "Decision",
    "DigestMismatch",
    "Effect",
    "GraphOptions",
    "Happened",
    "InvalidInput",
    "KeyturnError",
    "Unknown",
    "ask",
    "confirm",
    "effect",
    "idempotency_key",
    "options",
    "request_approval",
]
