"""A workflow's graph as Mermaid text and as SVG, with done, present and waiting nodes marked.

Pure: a view in, text out. The layout is our own, layers from left to right, as a dozen nodes need no library.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from orchestrator.wire import GraphView

# Fill and border of a node by its state.
_COLOURS: Final[Mapping[str, tuple[str, str]]] = {
    "done": ("#d9f2df", "#2f8f4e"),
    "current": ("#dbe8ff", "#2b62c4"),
    "pending-gate": ("#ffeccc", "#c47a00"),
    "todo": ("#f2f2f2", "#8c8c8c"),
}
_COLUMN: Final = 210
_ROW: Final = 76
_HEIGHT: Final = 40
_WIDTH: Final = 150
_MARGIN: Final = 20
_SWEEPS: Final = 4
_LONGEST_LABEL: Final = 20
_ARROW: Final = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="#666"/></marker></defs>'
)


@dataclass(frozen=True, slots=True)
class _Edge:
    source: str
    target: str
    conditional: bool


def mermaid(view: GraphView) -> str:
    """The graph as a Mermaid flowchart; each node has the class `done`, `current`, `pending` or `todo`."""
    names = {name: f"n{number}" for number, name in enumerate(_states(view))}
    lines = ["flowchart LR"]
    for name, state in _states(view).items():
        lines.append(f'    {names[name]}["{_mermaid_text(name)}"]:::{_mermaid_class(state)}')
    for edge in _edges(view):
        arrow = "-.->" if edge.conditional else "-->"
        lines.append(f"    {names[edge.source]} {arrow} {names[edge.target]}")
    for state, (fill, border) in _COLOURS.items():
        lines.append(f"    classDef {_mermaid_class(state)} fill:{fill},stroke:{border},color:#111")
    return "\n".join(lines) + "\n"


def svg(view: GraphView) -> str:
    """The graph as a picture that stands alone: no script, no font and no file from elsewhere."""
    states, edges = _states(view), _edges(view)
    places = _layout(list(states), edges)
    width = max((x for x, _ in places.values()), default=0) + _WIDTH + _MARGIN
    height = max((y for _, y in places.values()), default=0) + _HEIGHT + _MARGIN * 2
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(view.graph)}" font-family="system-ui, sans-serif" font-size="13">'
    )
    parts = [
        head,
        _ARROW,
        *(_svg_edge(edge, places) for edge in edges),
        *(_svg_node(name, state, places[name]) for name, state in states.items()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _states(view: GraphView) -> dict[str, str]:
    return {_visible(str(node["id"])): str(node.get("state", "todo")) for node in view.nodes}


def _edges(view: GraphView) -> list[_Edge]:
    known = _states(view)
    found = [
        _Edge(_visible(str(edge["source"])), _visible(str(edge["target"])), bool(edge.get("conditional")))
        for edge in view.edges
    ]
    return [edge for edge in found if edge.source in known and edge.target in known]


def _visible(name: str) -> str:
    """`name` without characters that XML does not take, or that would break a line."""
    return "".join(character if character.isprintable() else "�" for character in name)


def _mermaid_class(state: str) -> str:
    return "pending" if state == "pending-gate" else state


def _mermaid_text(name: str) -> str:
    """`name` for a quoted label: everything that Mermaid or HTML could read as markup becomes an entity."""
    return "".join(
        character if character.isalnum() or character in " _-.:/" else f"#{ord(character)};" for character in name
    )


def _layout(names: Sequence[str], edges: Sequence[_Edge]) -> dict[str, tuple[int, int]]:
    """Left upper corners: columns by distance from the start, rows so that edges cross little."""
    columns: defaultdict[int, list[str]] = defaultdict(list)
    for name, column in _depths(names, edges).items():
        columns[column].append(name)
    neighbours: defaultdict[str, list[str]] = defaultdict(list)
    for edge in edges:
        neighbours[edge.target].append(edge.source)
        neighbours[edge.source].append(edge.target)
    rows = {name: float(row) for column in columns.values() for row, name in enumerate(column)}
    for _ in range(_SWEEPS):
        for column in columns.values():
            wanted = {name: _mean([rows[other] for other in neighbours[name]], rows[name]) for name in column}
            column.sort(key=lambda name: wanted[name])
            rows.update({name: float(row) for row, name in enumerate(column)})
    tallest = max((len(column) for column in columns.values()), default=0)
    return {
        name: (_MARGIN + number * _COLUMN, round(_MARGIN + (row + (tallest - len(column)) / 2) * _ROW))
        for number, column in columns.items()
        for row, name in enumerate(column)
    }


def _depths(names: Sequence[str], edges: Sequence[_Edge]) -> dict[str, int]:
    """The column of each node: how many steps it is from a start; an edge back moves nothing."""
    targets: defaultdict[str, list[str]] = defaultdict(list)
    for edge in edges:
        targets[edge.source].append(edge.target)
    depths: dict[str, int] = {}
    entered = {edge.target for edge in edges if edge.source != edge.target}
    starts = [name for name in names if name not in entered] or list(names[:1])
    # Breadth first from the starts, then from whatever a cycle kept from being reached.
    for start in (*starts, *names):
        layer = [] if start in depths else [start]
        depths.setdefault(start, 0)
        while layer:
            found = [target for name in layer for target in targets[name] if target not in depths]
            depths.update({target: depths[name] + 1 for name in layer for target in targets[name] if target in found})
            layer = list(dict.fromkeys(found))
    return depths


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _svg_node(name: str, state: str, place: tuple[int, int]) -> str:
    x, y = place
    fill, border = _COLOURS.get(state, _COLOURS["todo"])
    label = name if len(name) <= _LONGEST_LABEL else name[: _LONGEST_LABEL - 1] + "…"
    return (
        f'<g class="{escape(state)}"><title>{escape(name)}: {escape(state)}</title>'
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="{fill}" stroke="{border}" '
        f'stroke-width="{1 if state == "todo" else 2}"/>'
        f'<text x="{x + _WIDTH // 2}" y="{y + _HEIGHT // 2 + 5}" text-anchor="middle">{escape(label)}</text></g>'
    )


def _svg_edge(edge: _Edge, places: Mapping[str, tuple[int, int]]) -> str:
    (x1, y1), (x2, y2) = places[edge.source], places[edge.target]
    dash = ' stroke-dasharray="5 4"' if edge.conditional else ""
    if x2 > x1:
        x1, y1, y2 = x1 + _WIDTH, y1 + _HEIGHT // 2, y2 + _HEIGHT // 2
        bend = (x2 - x1) // 2
        path = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    else:
        # An edge back, or within a column, runs below the nodes.
        x1, x2, y1, y2 = x1 + _WIDTH // 2, x2 + _WIDTH // 2, y1 + _HEIGHT, y2 + _HEIGHT
        low = max(y1, y2) + _ROW // 3
        path = f"M{x1} {y1}C{x1} {low} {x2} {low} {x2} {y2}"
    return f'<path d="{path}" fill="none" stroke="#666"{dash} marker-end="url(#arrow)"/>'
