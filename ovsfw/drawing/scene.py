"""What of a graph is drawn as what: boxes, lines between them, and rows in boxes where lines would hide everything.

An arrow from a node to itself is a row in its box.  So is each arrow of a node with many: a row in the box at its other
end.  Nodes that are no groups are drawn twice if need be, on the left for what comes from them and on the right for
what goes to them, for otherwise half of the lines would lead back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ovsfw.drawing.layout import Layout, Link, Size, layout
from ovsfw.drawing.text import services, short, size
from ovsfw.policy.graph import Arrow, Graph, Kind, Node
from ovsfw.policy.model import Action

MANY = 12  # arrows of one box
WIDEST_LABEL, WIDEST_ROW = 34, 48


@dataclass(frozen=True, slots=True)
class Row:
    """An arrow that is written in a box."""

    arrow: Arrow
    text: str


@dataclass(slots=True)
class Box:
    """A node, or one side of it; `elsewhere` is how many of its arrows are rows of other boxes."""

    node: Node
    rows: list[Row] = field(default_factory=list)
    lines: int = 0
    elsewhere: int = 0

    @property
    def texts(self) -> list[str]:
        """What stands above the rows, the label first."""
        about = [self.node.about] if self.node.kind is not Kind.PREFIX else []
        more = [f"{self.elsewhere} arrows: see the other boxes"] if self.elsewhere else []
        return [short(self.node.label, WIDEST_LABEL), *about, *more]

    @property
    def size(self) -> Size:
        """In pixels."""
        return size([*self.texts, *(row.text for row in self.rows)])


@dataclass(frozen=True, slots=True)
class Line:
    """An arrow that is drawn, from box to box."""

    arrow: Arrow
    source: str
    target: str

    @property
    def text(self) -> str:
        """Its label."""
        return services_text(self.arrow)


@dataclass(frozen=True, slots=True)
class Scene:
    """All that is drawn, and where."""

    boxes: dict[str, Box]
    lines: dict[str, Line]
    layout: Layout


def services_text(arrow: Arrow) -> str:
    """`tcp/80, tcp/443`, in a tier `deny tcp/22`."""
    word = "" if arrow.action is Action.ALLOW else f"{arrow.action.value} "
    return word + services(arrow.services)


def scene(graph: Graph) -> Scene:
    """Decide, and place everything."""
    nodes = {node.id: node for node in graph.nodes}
    ends = {arrow.id: _ends(arrow, nodes) for arrow in graph.arrows}
    boxes = {box: Box(nodes[name]) for box, name in _boxes(graph, ends)}
    degree = Counter(box for arrow in graph.arrows for box in ends[arrow.id] if arrow.source != arrow.target)
    lines: dict[str, Line] = {}
    for arrow in graph.arrows:
        source, target = ends[arrow.id]
        if arrow.source == arrow.target:
            boxes[source].rows.append(Row(arrow, short(f"↻ itself: {services_text(arrow)}", WIDEST_ROW)))
        elif max(degree[source], degree[target]) <= MANY:
            lines[arrow.id] = Line(arrow, source, target)
            boxes[source].lines += 1
            boxes[target].lines += 1
        else:
            _write(arrow, boxes[source], boxes[target], in_target=degree[source] >= degree[target])
    shown = {name: box for name, box in boxes.items() if name == box.node.id or box.lines or box.rows}
    links = [Link(name, line.source, line.target, size([line.text])) for name, line in lines.items()]
    return Scene(shown, lines, layout({name: box.size for name, box in shown.items()}, links))


def _ends(arrow: Arrow, nodes: dict[str, Node]) -> tuple[str, str]:
    """The boxes of an arrow."""
    left = arrow.source if nodes[arrow.source].kind is Kind.GROUP else f"from {arrow.source}"
    right = arrow.target if nodes[arrow.target].kind is Kind.GROUP else f"to {arrow.target}"
    return left, right


def _boxes(graph: Graph, ends: dict[str, tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Every box with its node, in the order of the nodes; a node that is in no arrow has one, too."""
    named = {box for pair in ends.values() for box in pair}
    for node in graph.nodes:
        sides = [box for box in (f"from {node.id}", f"to {node.id}") if box in named]
        for box in sides or [node.id]:
            yield box, node.id


def _write(arrow: Arrow, source: Box, target: Box, *, in_target: bool) -> None:
    """As a row in the box that has fewer arrows."""
    sign, here, there = ("←", target, source) if in_target else ("→", source, target)
    text = f"{sign} {short(there.node.label, WIDEST_LABEL // 2)}: {services_text(arrow)}"
    here.rows.append(Row(arrow, short(text, WIDEST_ROW)))
    there.elsewhere += 1
