"""The plan of a long task: its steps in order with their weights, read from what a graph tells of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """A sub-step as planned."""

    name: str
    title: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class PlannedStep(PlannedPart):
    """A step as planned."""

    substeps: tuple[PlannedPart, ...] = ()
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps in order. `whole` says that these are all there are; else only those that began are known."""

    steps: tuple[PlannedStep, ...]
    whole: bool
    timeout: float | None = None


def plan_of(traits: Mapping[str, object], topology: Mapping[str, object], seen: Sequence[str]) -> Plan:
    """The plan that the graph tells, else its nodes where it is a straight line, else the nodes `seen` in a run."""
    told = cast("Mapping[str, Any]", traits.get("plan") or {})
    if told.get("steps"):
        return Plan(tuple(_step(one) for one in told["steps"]), whole=True, timeout=told.get("timeout"))
    line = _line(topology)
    if line is not None:
        return Plan(tuple(PlannedStep(node) for node in line), whole=True)
    return Plan(tuple(PlannedStep(node) for node in dict.fromkeys(seen)), whole=False)


def timeout_of(traits: Mapping[str, object]) -> float | None:
    """The total time-out, in seconds, that the graph tells in its plan."""
    plan = cast("Mapping[str, Any]", traits.get("plan") or {})
    timeout = plan.get("timeout")
    return float(timeout) if isinstance(timeout, int | float) else None


def _step(one: Mapping[str, Any]) -> PlannedStep:
    parts = tuple(PlannedPart(*_named(part)) for part in one.get("substeps") or ())
    return PlannedStep(*_named(one), substeps=parts, attempts=int(one.get("attempts") or 1))


def _named(one: Mapping[str, Any]) -> tuple[str, str, float]:
    return str(one["name"]), str(one.get("title") or ""), float(one.get("weight") or 1.0)


def _line(topology: Mapping[str, object]) -> list[str] | None:
    """The nodes in order, if one way leads through all of them."""
    edges = cast("Sequence[Mapping[str, Any]]", topology.get("edges") or ())
    after = {one["source"]: one["target"] for one in edges if not one.get("conditional")}
    nodes = [one["id"] for one in cast("Sequence[Mapping[str, Any]]", topology.get("nodes") or ())]
    line, place = list[str](), str(after.get("__start__"))
    while place in after and place not in line:
        line.append(place)
        place = after[place]
    straight = place == "__end__" and len(edges) == len(after) and len(line) + 2 == len(nodes)
    return line if straight and line else None
