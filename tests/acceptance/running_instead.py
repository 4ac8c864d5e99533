"""What the graph of the scenarios really runs, and what it ran: kept outside of any graph's state.

A scenario's `execute` with a `payload` plants here what the node runs in place of what was approved.
"""

from __future__ import annotations

PLANTED: dict[str, dict[str, object]] = {}
RAN: dict[str, list[dict[str, object]]] = {}
RESUMED_WITH: dict[str, list[object]] = {}
