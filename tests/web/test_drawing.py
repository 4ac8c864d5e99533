"""Drawings of graphs: they hold every node and edge, and no name can become markup."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from orchestrator.web.drawing import mermaid, svg
from orchestrator.wire import GraphView

SVG = "{http://www.w3.org/2000/svg}"


def view(nodes: dict[str, str], *edges: tuple[str, str]) -> GraphView:
    return GraphView(
        workflow_id="wf",
        graph="g<&>",
        version="1",
        nodes=[{"id": name, "state": state} for name, state in nodes.items()],
        edges=[{"source": source, "target": target, "conditional": source == "b"} for source, target in edges],
    )


LOOP = view(
    {"a": "done", "b": "current", "c": "pending-gate", "d": "todo", "alone": "todo"},
    ("a", "b"), ("b", "c"), ("b", "d"), ("c", "b"), ("d", "d"), ("a", "missing"),
)  # fmt: skip


def test_the_picture_is_well_formed_and_boxes_do_not_overlap() -> None:
    root = ET.fromstring(svg(LOOP))  # noqa: S314 - our own text
    boxes = [(int(one.attrib["x"]), int(one.attrib["y"])) for one in root.iter(f"{SVG}rect")]
    assert len(boxes) == len(set(boxes)) == 5
    columns: dict[int, list[int]] = {}
    for x, y in boxes:
        columns.setdefault(x, []).append(y)
    assert all(abs(one - other) >= 60 for ys in columns.values() for one in ys for other in ys if one != other)
    assert len([one for one in root.iter(f"{SVG}path") if "marker-end" in one.attrib]) == 5


def test_mermaid_marks_each_node_with_its_state() -> None:
    drawn = mermaid(LOOP)
    assert drawn.startswith("flowchart LR\n")
    for line in (
        'n0["a"]:::done',
        'n1["b"]:::current',
        'n2["c"]:::pending',
        'n3["d"]:::todo',
        "n0 --> n1",
        "n1 -.-> n2",
    ):
        assert line in drawn


def test_no_name_becomes_markup() -> None:
    evil = 'x"]<script>alert(1)</script>\x00\n\u202e&#34;'
    drawn = view({evil: "todo", "__start__": "done"}, ("__start__", evil))
    assert "<script" not in svg(drawn)
    ET.fromstring(svg(drawn))  # noqa: S314 - our own text
    text = mermaid(drawn)
    assert "<" not in text
    assert len(text.splitlines()) == 1 + 2 + 1 + 4
    assert text.count('"') == 4


def test_an_empty_graph_is_drawn_too() -> None:
    ET.fromstring(svg(view({})))  # noqa: S314 - our own text
    assert mermaid(view({}))
