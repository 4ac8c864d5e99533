"""The figures of one run: as a table for people, as JSON for whoever compares runs."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bare import Durability
from benchmarks.footprint import Footprint
from benchmarks.rounds import Results

BARE: tuple[Durability, ...] = ("sync", "async", "exit")
KEYTURN = "keyturn"


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything one run measured. `latencies` are seconds from an answered decision to the next node's start."""

    results: Results
    lanes: Sequence[int]
    footprints: dict[str, Footprint]
    latencies: Sequence[float]
    postgres: str
    seconds: float

    def to_json(self) -> dict[str, object]:
        """The run as JSON."""
        ours, sync = self.footprints[KEYTURN], self.footprints["sync"]
        rates = {
            name: {str(lanes): round(self.results.median(name, lanes, lambda one: one.rate), 1) for lanes in self.lanes}
            for name in (*BARE, KEYTURN)
        }
        return {
            "ratios": {
                f"{name}_{lanes}": round(self.results.ratio(KEYTURN, name, lanes), 3)
                for name in BARE
                for lanes in self.lanes
            },
            "workflows_per_second": rates,
            "cpu_ms": self.results.cpu(),
            "decision_to_next_ms": {
                "p50": round(statistics.median(self.latencies) * 1000, 2),
                "p99": round(percentile(self.latencies, 0.99) * 1000, 2),
                "samples": len(self.latencies),
            },
            "write_commits": ours.write_commits,
            "statements": ours.statements,
            "bytes": ours.bytes,
            "bytes_ratio": round(ours.bytes / sync.bytes, 3),
            "footprints": {name: asdict(found) for name, found in self.footprints.items()},
            "machine": machine(self.postgres),
            "seconds": round(self.seconds, 1),
        }


def machine(postgres: str) -> dict[str, object]:
    """What it was measured on."""
    return {
        "cpus": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "postgres": postgres,
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of all values lie; the largest when there are few."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def write_json(figures: Figures, file: Path) -> None:
    """Write the run to `file`."""
    file.write_text(json.dumps(figures.to_json(), indent=2) + "\n", encoding="utf-8")


def show(figures: Figures, console: Console) -> None:
    """Print the run."""
    console.print(_rates(figures))
    console.print(_footprints(figures))
    found = figures.to_json()
    latency = found["decision_to_next_ms"]
    assert isinstance(latency, dict)
    console.print(
        f"Decision answered to next node started, idle: p50 {latency['p50']} ms, p99 {latency['p99']} ms "
        f"({latency['samples']} samples)"
    )
    console.print(f"Bytes kept, keyturn / bare sync: {found['bytes_ratio']}")
    console.print(
        f"{os.cpu_count()} CPUs for driver, worker and Postgres {figures.postgres}; {figures.seconds:.0f} s in all"
    )


def _name(name: str) -> str:
    return "Keyturn, everything" if name == KEYTURN else f"bare LangGraph, {name}"


def _rates(figures: Figures) -> Table:
    table = Table(title="3 nodes, 1 approval, 1 KB: medians of interleaved rounds")
    table.add_column("")
    for heading in ("concurrent", "workflows/s", "Keyturn ÷ this", "CPU ms here", "CPU ms Postgres"):
        table.add_column(heading, justify="right")
    cpu = figures.results.cpu()
    for lanes in figures.lanes:
        for name in (*BARE, KEYTURN):
            spent = cpu[name][str(lanes)]
            ratio = "" if name == KEYTURN else f"{figures.results.ratio(KEYTURN, name, lanes):.2f}"
            rate = figures.results.median(name, lanes, lambda one: one.rate)
            table.add_row(
                _name(name), str(lanes), f"{rate:.1f}", ratio, f"{spent['client']:.2f}", f"{spent['postgres']:.2f}"
            )
        table.add_section()
    return table


def _footprints(figures: Figures) -> Table:
    table = Table(title="Per workflow, one after the other")
    table.add_column("")
    for heading in ("write commits", "wake-ups", "statements", "bytes kept"):
        table.add_column(heading, justify="right")
    for name, found in figures.footprints.items():
        table.add_row(
            _name(name), f"{found.write_commits:.1f}", f"{found.notifies:.1f}", f"{found.statements:.1f}",
            f"{found.bytes:,}",
        )  # fmt: skip
    return table
