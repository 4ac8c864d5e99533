"""An agent's confidence for graph authors: computed with the weights and adjustments of the installation."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from orchestrator.config import load_confidence
from orchestrator.core import confidence as core
from orchestrator.core.confidence import Confidence, ConfidenceRules
from orchestrator.core.model import Action, Requester
from orchestrator.settings import find_config

Factors = Mapping[str, float | None]
_stated: ContextVar[float | Confidence | None] = ContextVar("keyturn_confidence", default=None)


def configured() -> ConfidenceRules:
    """`hitl/confidence.yaml` of KEYTURN_CONFIG_DIR, else of the project around, else the shipped one; read once."""
    given = os.environ.get("KEYTURN_CONFIG_DIR")
    return _load(Path(given).expanduser().resolve() if given else find_config(Path.cwd()))


@cache
def _load(folder: Path) -> ConfidenceRules:
    return load_confidence(folder)


def calculate_confidence(
    factors: Factors,
    *,
    action: Action | None = None,
    requester: Requester | None = None,
    workflow: Mapping[str, object] | None = None,
    config: ConfidenceRules | None = None,
) -> Confidence:
    """How sure an agent is: `factors` (each 0 to 100) times their weights, plus every adjustment that applies.

    The sum is brought into 0 to 100 once, at the end. A factor that is missing or NaN counts as 0. The weights and
    adjustments are those of `config/hitl/confidence.yaml` unless `config` is given; they judge `action`, `requester`
    and `workflow`. InvalidInput for a factor that the file does not name.
    """
    who = requester or Requester("")
    return core.calculate_confidence(
        factors, action=action, requester=who, workflow=workflow, config=config or configured()
    )


@contextmanager
def confident(confidence: float | Confidence | Factors) -> Generator[None]:
    """State how sure the agent is of the tool calls within the block: 0 to 100, or factors.

    The worker adds the adjustments of `confidence.yaml` to each call. A tool that says itself how sure it is keeps
    that.
    """
    token = _stated.set(configured().base(confidence) if isinstance(confidence, Mapping) else confidence)
    try:
        yield
    finally:
        _stated.reset(token)


def stated() -> float | Confidence | None:
    """What the block around says; None outside of one."""
    return _stated.get()
