"""What the graphs of the scenarios really run, and what they ran: kept outside of any graph's state.

A scenario's `execute` with a `payload` plants here what the node runs in place of what was approved.
"""

from __future__ import annotations

from collections.abc import Callable

# What to do when a workflow passes its gate: the worker is told to stop then, so that nothing runs before `execute`.
PASSING: dict[str, Callable[[], None]] = {}
PLANTED: dict[str, dict[str, object]] = {}
RAN: dict[str, list[dict[str, object]]] = {}
RESUMED_WITH: dict[str, list[object]] = {}
