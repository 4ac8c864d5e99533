"""What a process tells about itself: Prometheus figures and log lines in JSON.

Figures carry no names of workflows or people, and a log line is always one line.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

METRICS_MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Telemetry:
    """The figures of one process, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "keyturn_http_requests",
            "HTTP requests answered",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "keyturn_http_request_seconds",
            "Seconds from a request to the beginning of its answer",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._workflows = Gauge("keyturn_workflows", "Workflows by status", ("status",), registry=self._registry)
        self._approvals = Gauge(
            "keyturn_approvals_pending", "Approvals that wait for a decision", ("risk_level",), registry=self._registry
        )
        self._workers = Gauge("keyturn_workers", "Workers seen lately", registry=self._registry)
        self._database = Gauge("keyturn_database_up", "1 while the database answers", registry=self._registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer; `route` is the path's template, so that ids do not become labels."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(known, route).observe(seconds)

    def set_counts(self, workflows: Mapping[str, int], approvals: Mapping[str, int], workers: int) -> None:
        """Put the database's counts in place of the last ones."""
        for gauge, counts in ((self._workflows, workflows), (self._approvals, approvals)):
            gauge.clear()
            for label, count in counts.items():
                gauge.labels(label).set(count)
        self._workers.set(workers)
        self._database.set(1)

    def set_database_away(self) -> None:
        """The counts could not be read; the last ones stay."""
        self._database.set(0)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


class JsonLines(logging.Formatter):
    """One JSON object a line, ASCII only: what is logged cannot begin a line or drive a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "from": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(level: str) -> None:
    """Send everything of `level` and above to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Each request is in the figures; these would say it again at every call, and Procrastinate has a trace for each
    # attempt at a delivery that is to be repeated.
    for noisy in ("httpx", "httpcore", "uvicorn.access", "procrastinate"):
        logging.getLogger(noisy).setLevel(max(root.level, logging.WARNING))
